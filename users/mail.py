"""What people get by mail: text and HTML, with links that begin with APP_URL."""

import logging
from concurrent.futures import ThreadPoolExecutor
from smtplib import SMTPException
from typing import Any

from django.conf import settings
from django.core.mail import EmailMultiAlternatives
from django.template.loader import render_to_string

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
    _background.submit(_send_password_reset, user)


def _send_password_reset(user: User | None) -> None:
    if user is None:
        return
    try:
        _send_token(user, RESET_PASSWORD)
    except Exception:  # here nobody else would hear of it
        logger.exception("The mail to reset the password of user %s could not be made.", user.pk)


def send_deletion_reminder(user: User) -> bool:
    return _send(user, "deletion_reminder")


def _send_token(user: User, purpose: Purpose, **context: Any) -> bool:
    hours = int(purpose.lifetime.total_seconds() // 3600)
    lifetime = f"{hours // 24} days" if hours > 24 else f"{hours} hour{'s' * (hours > 1)}"
    template = purpose.name.replace("-", "_")
    return _send(user, template, token=mail_token(purpose, user), lifetime=lifetime, page=purpose.name, **context)


def _send(user: User, template: str, **context: Any) -> bool:
    """Mail `users/mail/<template>.txt`, whose first line is the subject, and `.html`.

    False where the mail server is down: that costs the mail and nothing else, and it can be asked for again.
    """
    context |= {"user": user, "app_name": settings.APP_NAME, "app_url": settings.APP_URL}
    subject, _, text = render_to_string(f"users/mail/{template}.txt", context).partition("\n")
    message = EmailMultiAlternatives(subject, text.lstrip(), to=[str(user.email)])
    message.attach_alternative(render_to_string(f"users/mail/{template}.html", context), "text/html")
    try:
        message.send()
    except (OSError, SMTPException) as error:
        # Without its text: a mail server may quote what it was sent.
        logger.error("The mail %s could not be sent to user %s: %s.", template, user.pk, type(error).__name__)
        return False
    return True
