"""Proof that users own the account whose login they change, because an access token may be stolen."""

from datetime import timedelta
from typing import Any

from django.core.exceptions import ValidationError
from rest_framework.request import Request

from records.db.clock import database_now
from users.authentication.backend import raise_if_exhausted
from users.models import Limit, RateLimit, User

#: Guesses of the current password. Failed logins are counted separately, because strangers can cause them.
PASSWORD_GUESSES = Limit("change-password", 10, timedelta(minutes=15))
NOT_CURRENT = "This is not your current password."
#: How long after a login users without a password may change their login.
FRESH_LOGIN = timedelta(minutes=5)


def confirm_password(user: User, password: str) -> None:
    """Raise ValidationError if this is not the user's password, and TooManyAttemptsError after ten wrong guesses.

    Do not call it in a transaction: a guess must stay counted when a change is rolled back.
    """
    guesses = (PASSWORD_GUESSES, str(user.pk))
    raise_if_exhausted(RateLimit.objects.seconds_to_wait(guesses))
    if not user.check_password(password):
        raise_if_exhausted(RateLimit.objects.count_attempt(guesses))
        raise ValidationError({"current_password": [NOT_CURRENT]})


def confirmed_password_hash(request: Request) -> str | None:
    """Return the password hash of a user who sent their password, or has none and logged in recently; else None."""
    user: Any = request.user
    session: Any = request.auth
    password = request.data.get("current_password") if isinstance(request.data, dict) else None
    if password and isinstance(password, str):
        confirm_password(user, password)
        return str(user.password)
    is_fresh = (session.now or database_now()) - session.created_at < FRESH_LOGIN
    return str(user.password) if is_fresh and not user.has_usable_password() else None
