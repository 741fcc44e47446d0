"""Proof that a caller owns the account whose sign-in they change: an access token alone may be stolen."""

from datetime import timedelta
from typing import Any

from rest_framework.exceptions import ValidationError
from rest_framework.request import Request

from records.db.clock import database_now
from users.authentication import TooManyFailures
from users.models import User
from users.sessions import Limit, RateLimit

#: Of the current password, by who is signed in: not counted with the failed logins, which strangers can cause.
GUESSES = Limit("change-password", 10, timedelta(minutes=15))
NOT_CURRENT = "This is not your current password."
#: How long ago somebody without a password may have logged in.
FRESH_LOGIN = timedelta(minutes=5)


def confirm_password(user: User, password: str) -> None:
    """Raise ValidationError if this is not the user's password, and TooManyFailures after ten such guesses.

    Not to be called in a transaction: a guess stays counted when a change is rolled back.
    """
    guesses = (GUESSES, str(user.pk))
    if wait := RateLimit.objects.wait(guesses):
        raise TooManyFailures(wait)
    if not user.check_password(password):
        if wait := RateLimit.objects.hit(guesses):
            raise TooManyFailures(wait)
        raise ValidationError({"current_password": [NOT_CURRENT]})


def confirmed_as(request: Request) -> str | None:
    """Return the password hash of a caller who gave their password, or has none and logged in just now; else None."""
    user: Any = request.user
    session: Any = request.auth
    given = request.data.get("current_password") if isinstance(request.data, dict) else None
    if given and isinstance(given, str):
        confirm_password(user, given)
        return user.password
    is_fresh = (session.now or database_now()) - session.created_at < FRESH_LOGIN
    return user.password if is_fresh and not user.has_usable_password() else None
