"""Mails to users, as text and HTML. They are queued in a transaction and composed when they are sent."""

from datetime import timedelta
from typing import Any

from django.conf import settings
from django.core.mail import EmailMultiAlternatives
from django.template.loader import render_to_string

from records.exceptions import UnavailableError
from users.mail_tokens import CHANGE_EMAIL, DELETE_ACCOUNT, RESET_PASSWORD, VERIFY_EMAIL, Purpose, mail_token
from users.models import Limit, RateLimit, User
from users.models.queued_mail import LIFETIME, QueuedMail
from users.models.session import hash_token


class QueueFullError(UnavailableError):
    def __init__(self) -> None:
        super().__init__("Too many mails are waiting to be sent. Please try again in a few minutes.", wait=60)


#: Name of a template → the purpose of the token in its mail.
TOKEN_MAILS = {
    purpose.name.replace("-", "_"): purpose for purpose in (VERIFY_EMAIL, CHANGE_EMAIL, RESET_PASSWORD, DELETE_ACCOUNT)
}
#: Mails of one kind to one address.
MAILS = Limit("mail", 5, timedelta(minutes=15))


def count_mail(purpose: Purpose, email: str | None) -> int:
    """Count a mail to this address; return the seconds to wait, and count nothing, if it had too many."""
    # Both confirm an address.
    kind = VERIFY_EMAIL if purpose == CHANGE_EMAIL else purpose
    return RateLimit.objects.count_attempt((MAILS, f"{kind.name}:{hash_token(str(email).lower())}"))


def queue_verification(user: User) -> bool:
    return _queue_token(user, VERIFY_EMAIL)


def queue_change_of_address(user: User) -> bool:
    """Queue a mail to the pending address, with a token to confirm it."""
    return _queue_token(user, CHANGE_EMAIL)


def queue_deletion_token(user: User) -> bool:
    return _queue_token(user, DELETE_ACCOUNT)


def queue_password_reset(user: User | None) -> bool:
    """Queue a mail to reset the password. Without a user, take the same time and statements, and send nothing."""
    return _queue_token(user, RESET_PASSWORD)


def queue_deletion_reminder(user: User) -> bool:
    return QueuedMail.objects.enqueue("deletion_reminder", user_id=user.pk, to=user.email)


def _queue_token(user: User | None, purpose: Purpose) -> bool:
    kind = purpose.name.replace("-", "_")
    # A mail whose token has expired is useless.
    lifetime = min(purpose.lifetime, LIFETIME)
    to = address_for(purpose, user)
    return QueuedMail.objects.enqueue(kind, user_id=user.pk if user else None, to=to, lifetime=lifetime)


def address_for(purpose: Purpose, user: User | None) -> str | None:
    if user is None:
        return None
    return user.pending_email if purpose == CHANGE_EMAIL else user.email


def compose(mail: QueuedMail) -> EmailMultiAlternatives | None:
    """Return the message of a queued mail; None if it must not be sent any more."""
    user = User.all_objects.filter(pk=mail.user_id or 0).first()
    context = {**mail.context, "moment": mail.created_at}
    if purpose := TOKEN_MAILS.get(mail.kind):
        # The address may have changed and the account may have been closed since.
        is_open = user is not None and user.is_active and not user.is_deleted
        is_current = is_open and address_for(purpose, user) == mail.to
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
        "page": purpose.page,
        "grace_days": settings.ACCOUNT_DELETION_GRACE.days,
    }


def _message(user: User, template: str, context: dict[str, Any]) -> EmailMultiAlternatives:
    """Render `users/mail/<template>.txt`, whose first line is the subject, and `.html`."""
    context |= {"user": user, "app_name": settings.APP_NAME, "app_url": settings.APP_URL}
    subject, _, text = render_to_string(f"users/mail/{template}.txt", context).partition("\n")
    message = EmailMultiAlternatives(subject=subject, body=text.lstrip())
    message.attach_alternative(render_to_string(f"users/mail/{template}.html", context), "text/html")
    return message
