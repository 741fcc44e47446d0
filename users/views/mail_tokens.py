"""Mails with tokens, and the tokens that come back."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError as ModelValidationError
from django.db import transaction
from rest_framework import status
from rest_framework.exceptions import Throttled, ValidationError
from rest_framework.response import Response

from users import mail
from users.mail_tokens import Purpose, use_token, user_id_of
from users.models import User
from users.views.attempts import record_attempt

INVALID_TOKEN = "This token is invalid, used or expired."  # noqa: S105 - a message


def set_password(user: User, password: str) -> None:
    try:
        validate_password(password, user)
    except ModelValidationError as error:
        raise ValidationError({"new_password": error.messages}) from None
    user.set_password(password)
    user.save()


def accepted(detail: str) -> Response:
    return Response({"detail": detail}, status=status.HTTP_202_ACCEPTED)


def queue_mail(user: User, purpose: Purpose, queue: Callable[[User], bool]) -> Response:
    """Queue a mail by `queue`; raise an error if the user has no address or has been sent too many."""
    address = mail.address_for(purpose, user)
    if not address:
        raise ValidationError("Your account has no e-mail address: add one first.")
    if wait := mail.count_mail(purpose, address):
        raise Throttled(wait, "Several of these mails were sent already: please look for the last one.")
    if not queue(user):
        raise mail.QueueFullError
    return accepted(f"A mail is on its way to {address}.")


@contextmanager
def token_user(purpose: Purpose, token: str, action: str) -> Iterator[User]:
    """Use a token in this block, which is one transaction; if it fails, the token stays valid."""
    with record_attempt(action, lambda: user_id_of(purpose, token), by_owner=True), transaction.atomic():
        user = use_token(purpose, token)
        if user is None:
            raise ValidationError({"token": [INVALID_TOKEN]})
        yield user
