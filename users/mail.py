"""What people get by mail: text and HTML, with links that begin with APP_URL. Mails are composed when they are sent."""

from datetime import timedelta
from typing import Any

from django.conf import settings
from django.core.mail import EmailMultiAlternatives
from django.template.loader import render_to_string

from users.models import User
from users.outbox import LIFETIME, QueuedMail
from users.tokens import DELETE_ACCOUNT, RESET_PASSWORD, VERIFY_EMAIL, Purpose, mail_token

#: Mails that carry a token, by the name of their template.
TOKEN_MAILS = {purpose.name.replace("-", "_"): purpose for purpose in (VERIFY_EMAIL, RESET_PASSWORD, DELETE_ACCOUNT)}


def queue_verification(user: User) -> bool:
    return _queue_token(user, VERIFY_EMAIL)


def queue_deletion_token(user: User) -> bool:
    return _queue_token(user, DELETE_ACCOUNT)


def queue_password_reset(user: User | None) -> bool:
    """For nobody too: neither the answer's time nor its statements may tell whether there is such an account."""
    return _queue_token(user, RESET_PASSWORD)


def queue_deletion_reminder(user: User) -> bool:
    return QueuedMail.objects.enqueue("deletion_reminder", user_id=user.pk, to=user.email)


def queue_notice(user: User, event: str, *, to: str | None = None) -> None:
    """Tell somebody what was done to their account, so that they learn of it if it was not them.

    `to` is their former address where it is the address that was changed.
    """
    if to or user.email:
        QueuedMail.objects.enqueue("notice", user_id=user.pk, to=to or user.email, event=event)


def _queue_token(user: User | None, purpose: Purpose) -> bool:
    kind = purpose.name.replace("-", "_")
    # A mail that comes later than what was asked for is good helps nobody.
    lifetime = min(purpose.lifetime, LIFETIME)
    to = user.email if user else None
    return QueuedMail.objects.enqueue(kind, user_id=user.pk if user else None, to=to, lifetime=lifetime)


def compose(mail: QueuedMail) -> EmailMultiAlternatives | None:
    """Return the message of a queued mail; None if there is no longer anybody to send it to."""
    user = User.all_objects.filter(pk=mail.user_id or 0).first()
    context = {**mail.context, "moment": mail.created_at}
    if purpose := TOKEN_MAILS.get(mail.kind):
        # What was queued for another address or for an account that is closed meanwhile is not sent.
        is_current = user is not None and user.email == mail.to and user.is_active and not user.is_deleted
        user = user if is_current else None
        context |= _token_context(user or User(pk=0), purpose)
    message = _message(user or User(pk=0, username="nobody"), mail.kind, context)
    message.to = [mail.to]
    return message if user is not None else None


def _token_context(user: User, purpose: Purpose) -> dict[str, Any]:
    hours = purpose.lifetime // timedelta(hours=1)
    return {
        "token": mail_token(purpose, user),
        "lifetime": f"{hours // 24} days" if hours > 24 else f"{hours} hour{'s' * (hours > 1)}",
        "page": purpose.name,
        "grace_days": settings.ACCOUNT_DELETION_GRACE.days,
    }


def _message(user: User, template: str, context: dict[str, Any]) -> EmailMultiAlternatives:
    """Render `users/mail/<template>.txt`, whose first line is the subject, and `.html`."""
    context |= {"user": user, "app_name": settings.APP_NAME, "app_url": settings.APP_URL}
    subject, _, text = render_to_string(f"users/mail/{template}.txt", context).partition("\n")
    message = EmailMultiAlternatives(subject, text.lstrip())
    message.attach_alternative(render_to_string(f"users/mail/{template}.html", context), "text/html")
    return message
