"""What people get by mail: text and HTML, with links that begin with APP_URL."""

import logging
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from smtplib import SMTPException
from typing import Any

from django.conf import settings
from django.core.mail import EmailMultiAlternatives
from django.template.loader import render_to_string
from django.utils import timezone

from users.models import User
from users.tokens import DELETE_ACCOUNT, RESET_PASSWORD, VERIFY_EMAIL, Purpose, mail_token

logger = logging.getLogger(__name__)

_background = ThreadPoolExecutor(max_workers=2, thread_name_prefix="mail")


def send_verification(user: User) -> bool:
    return _send_token(user, VERIFY_EMAIL)


def send_deletion_token(user: User) -> bool:
    return _send_token(user, DELETE_ACCOUNT, grace_days=settings.ACCOUNT_DELETION_GRACE.days)


def send_password_reset(user: User | None) -> None:
    """In the background, and for nobody too: how long it takes must not tell whether there is such an account."""
    # Signed here: it asks the database for the time, and threads in the background have no connection of their own.
    token = mail_token(RESET_PASSWORD, user or User(pk=0))
    _background.submit(partial(_send_password_reset, token=token), user)


def _send_password_reset(user: User | None, token: str) -> None:
    try:
        message = _message(user or User(pk=0, username="nobody"), *_token_mail(RESET_PASSWORD, token))
        if user is not None:
            _sent(message, user)
    except Exception:  # here nobody else would hear of it
        logger.exception("A mail to reset a password could not be made.")


def send_deletion_reminder(user: User) -> bool:
    return _sent(_message(user, "deletion_reminder", {}), user)


def send_notice(user: User, event: str, *, to: str | None = None) -> None:
    """Tell somebody what was done to their account, in the background: should it not have been them, they learn of it.

    `to` is their address of before, where it is the address that was changed.
    """
    if to or user.email:
        _background.submit(_send_notice, user, event, to)


def _send_notice(user: User, event: str, to: str | None) -> None:
    try:
        message = _message(user, "notice", {"event": event, "moment": timezone.now()})
        message.to = [to or str(user.email)]
        _sent(message, user)
    except Exception:  # here nobody else would hear of it
        logger.exception("A notice could not be made.")


def _send_token(user: User, purpose: Purpose, **context: Any) -> bool:
    return _sent(_message(user, *_token_mail(purpose, mail_token(purpose, user), **context)), user)


def _token_mail(purpose: Purpose, token: str, **context: Any) -> tuple[str, dict[str, Any]]:
    hours = int(purpose.lifetime.total_seconds() // 3600)
    lifetime = f"{hours // 24} days" if hours > 24 else f"{hours} hour{'s' * (hours > 1)}"
    context |= {"token": token, "lifetime": lifetime, "page": purpose.name}
    return purpose.name.replace("-", "_"), context


def _message(user: User, template: str, context: dict[str, Any]) -> EmailMultiAlternatives:
    """The mail `users/mail/<template>.txt`, whose first line is the subject, and `.html`."""
    context |= {"user": user, "app_name": settings.APP_NAME, "app_url": settings.APP_URL}
    subject, _, text = render_to_string(f"users/mail/{template}.txt", context).partition("\n")
    message = EmailMultiAlternatives(subject, text.lstrip(), to=[str(user.email)])
    message.attach_alternative(render_to_string(f"users/mail/{template}.html", context), "text/html")
    return message


def _sent(message: EmailMultiAlternatives, user: User) -> bool:
    """False where the mail server is down: that costs the mail and nothing else, and it can be asked for again."""
    try:
        message.send()
    except (OSError, SMTPException, ValueError) as error:  # ValueError: an address that no mail can go to
        # Without its text: a mail server may quote what it was sent.
        logger.error("A mail could not be sent to user %s: %s.", user.pk, type(error).__name__)
        return False
    return True
