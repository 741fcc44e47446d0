"""What people get by mail: text and HTML, with links that begin with APP_URL."""

import logging
from smtplib import SMTPException
from typing import Any

from django.conf import settings
from django.core.mail import EmailMultiAlternatives
from django.template.loader import render_to_string

from users.models import User
from users.tokens import VERIFICATION_LIFETIME, verification_token

logger = logging.getLogger(__name__)


def send_verification(user: User) -> None:
    _send(user, "verify_email", token=verification_token(user), days=VERIFICATION_LIFETIME.days)


def _send(user: User, template: str, **context: Any) -> None:
    """Mail `users/mail/<template>.txt`, whose first line is the subject, and `.html`. A mail server that is down costs
    the mail and nothing else."""
    context |= {"user": user, "app_name": settings.APP_NAME, "app_url": settings.APP_URL}
    subject, _, text = render_to_string(f"users/mail/{template}.txt", context).partition("\n")
    message = EmailMultiAlternatives(subject, text.lstrip(), to=[str(user.email)])
    message.attach_alternative(render_to_string(f"users/mail/{template}.html", context), "text/html")
    try:
        message.send()
    except (OSError, SMTPException):
        logger.exception("A mail could not be sent to user %s.", user.pk)
