"""Login with a username or an e-mail address and a password."""

import math
from datetime import timedelta
from typing import Any

from django.contrib.auth.backends import ModelBackend
from django.contrib.auth.hashers import UNUSABLE_PASSWORD_PREFIX
from django.contrib.auth.models import Permission
from django.db.models import Q
from django.http import HttpRequest

from records.exceptions import TooManyAttemptsError
from records.http.client_address import client_network
from users.events import record_event
from users.models import User
from users.models.rate_limit import Counter, Limit, RateLimit
from users.models.session import hash_token
from users.passwords import hashing
from users.passwords.limits import MAX_SUBMITTED_LENGTH

FAILURES_OF_ACCOUNT = Limit("login-account", 10, timedelta(minutes=15))
FAILURES_FROM_ADDRESS = Limit("login-address", 50, timedelta(minutes=15))
#: Refusals that are recorded in the audit log.
RECORDED_REFUSALS = Limit("login-refused", 10, timedelta(minutes=15))


class AccountBackend(ModelBackend):
    """Log users in by username or e-mail address, with a limit to failed attempts.

    Serves the API, the browsable API and the admin. An attempt costs one password hash, whether or not the account
    exists. After too many failures, even the right password raises TooManyAttemptsError.
    """

    def authenticate(
        self, request: HttpRequest | None, username: str | None = None, password: str | None = None, **kwargs: Any
    ) -> User | None:
        if username is None or password is None or "\0" in username or len(password) > MAX_SUBMITTED_LENGTH:
            return None
        user = User.all_objects.with_login(username).first()
        user_id = user.pk if user else None
        network = client_network(request) if request else None
        counters = _failure_counters(user, username, network)
        try:
            authenticated = self._check(user, password, counters)
        except TooManyAttemptsError:
            _record_refusal(user_id, network or username.lower()[:60])
            raise
        if authenticated is None:
            record_event("login", user_id, "failure")
        return authenticated

    def _check(self, user: User | None, password: str, counters: list[Counter]) -> User | None:
        raise_if_exhausted(RateLimit.objects.seconds_to_wait(*counters))
        # Check the password first so that inactive and deleted accounts take the same time.
        is_correct = user.check_password(password) if user else hashing.check(password, UNUSABLE_PASSWORD_PREFIX)
        if user is None or not is_correct or user.is_deleted or not self.user_can_authenticate(user):
            raise_if_exhausted(RateLimit.objects.count_attempt(*counters))
            return None
        # Check again, so that a correct guess does not pass beside concurrent wrong ones that exhaust the limit.
        raise_if_exhausted(RateLimit.objects.seconds_to_wait(*counters))
        RateLimit.objects.reset(*counters[0])
        return user

    def get_all_permissions(self, user_obj: Any, obj: Any = None) -> set[str]:
        """Return the user's own and their groups' permissions, by one query per request."""
        if not user_obj.is_active or user_obj.is_anonymous or obj is not None:
            return set()
        if not hasattr(user_obj, "_permissions"):
            granted = Permission.objects.all()
            if not user_obj.is_superuser:
                granted = granted.filter(Q(user=user_obj) | Q(group__user=user_obj)).distinct()
            names = granted.order_by().values_list("content_type__app_label", "codename")
            user_obj._permissions = {f"{app}.{codename}" for app, codename in names}
        permissions: set[str] = user_obj._permissions
        return permissions


def _record_refusal(user_id: int | None, subject: str) -> None:
    """Record a refused login, but cap these entries so that an attacker cannot flood the audit log."""
    if not RateLimit.objects.count_attempt((RECORDED_REFUSALS, subject)):
        record_event("login", user_id, "failure")


def raise_if_exhausted(wait: int) -> None:
    """Raise TooManyAttemptsError if there are seconds to wait."""
    if wait:
        minutes = math.ceil(wait / 60)
        raise TooManyAttemptsError(f"Too many failed attempts. Please try again in {minutes} min.", wait)


def _failure_counters(user: User | None, username: str, network: str | None) -> list[Counter]:
    """Return what a failed login is counted for: the account, or the unknown name, and the address."""
    account = str(user.pk) if user else f"?{hash_token(username.lower())}"
    return [(FAILURES_OF_ACCOUNT, account)] + ([(FAILURES_FROM_ADDRESS, network)] if network else [])
