"""How people are signed in: sessions and identities; what may happen how often, and which tokens are spent."""

import hashlib
import math
import re
import secrets
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.db import IntegrityError, models, transaction
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.crypto import constant_time_compare
from rest_framework.exceptions import APIException

from records import context
from records.audit.models import AuditEntry
from records.db.clock import DatabaseNow
from records.db.text import printable
from records.http.client_address import client_address
from records.models.changes import Change

if TYPE_CHECKING:
    from users.models import User

# How long a used refresh token may come again as the other half of a race, before it counts as stolen.
REUSE_GRACE = timedelta(seconds=5)


def _people(user: "User") -> Any:
    people: Any = user._meta.model
    return people.objects


def record_event(action: str, user_id: int | None, outcome: str = "success") -> None:
    """Tell the audit log what somebody did, or failed to do, with an account; None where it is nobody's."""
    AuditEntry.objects.record(get_user_model(), action, [Change(user_id, user_id)], outcome=outcome, user_id=user_id)


@contextmanager
def attempted(
    action: str, aimed_at: Callable[[], int | None] = lambda: None, *, by_owner: bool = False
) -> Iterator[None]:
    """The log calls the changes made meanwhile so; and it tells of a failure, of which nothing else is left.

    To be begun outside of the transaction that a failure takes back; `aimed_at` tells whose account it was about.
    """
    try:
        with context.record_as(action, by_owner=by_owner):
            yield
    except (APIException, ValidationError, IntegrityError):
        record_event(action, aimed_at(), "failure")
        raise


class SessionQuerySet(QuerySet["Session"]):
    def alive(self) -> Self:
        """Not ended, not expired, of a user who may use the service."""
        return self.filter(revoked_at=None, expires_at__gt=DatabaseNow(), user__is_active=True, user__deleted_at=None)

    def with_now(self) -> Self:
        """Annotate each row with the database's time, `now`."""
        return self.annotate(now=DatabaseNow())

    def visible_to(self, user: "User") -> Self:
        return self.filter(user_id=user.pk)

    def end_all_of(self, user: "User") -> None:
        with transaction.atomic():
            # Who is signing in just now waits for this lock, and then finds the session ended that they came by.
            len(_people(user).filter(pk=user.pk).select_for_update(no_key=True).values_list("pk"))
            self.filter(user=user).sign_out()

    def end(self) -> int:
        """As a consequence of something else, such as a new password."""
        return self.filter(revoked_at=None).update(revoked_at=DatabaseNow())

    def sign_out(self) -> int:
        """Because somebody wants it, of which the log tells."""
        with transaction.atomic():
            users = list(self.filter(revoked_at=None).select_for_update(of=("self",)).values_list("user_id", flat=True))
            if users:
                AuditEntry.objects.record(get_user_model(), "logout", [Change(each, each) for each in users])
            return self.end()

    def start(self, user: "User", request: HttpRequest, *, by: "Session | None" = None) -> "Session | None":
        """Sign `user` in on this device, by a session that they have or by what was just checked.

        None where they were deactivated, changed their password or ended that session, since `user` was read.
        """
        with transaction.atomic():
            unchanged = _people(user).active().filter(pk=user.pk, password=user.password)
            now = unchanged.select_for_update(no_key=True).values_list(DatabaseNow(), flat=True).first()
            if now is None or (by is not None and not self.alive().filter(pk=by.pk).exists()):
                record_event("login", user.pk, "failure")
                return None
            record_event("login", user.pk)
            session = self.create(
                user=user,
                created_at=by.created_at if by else now,  # a session that comes by another one is no fresh login
                expires_at=now + settings.REFRESH_TOKEN_LIFETIME,
                **_device(request),
            )
            session.now = now
            return session

    def refresh(self, token: str, request: HttpRequest) -> "tuple[Session, str] | None":
        """The session of this refresh token, with its next one; each token works once.

        None for all others. One that was used before ends its session, unless it comes within REUSE_GRACE of the
        last refresh: then two tabs raced, or an answer was lost, and the loser alone is turned away.
        """
        family, _, _ = token.partition(".")
        with transaction.atomic():
            locked = self.alive().with_now().select_for_update(of=("self",), no_key=True)
            session = locked.filter(family_hash=hash_token(family)).first()
            if session is None:
                return None
            if constant_time_compare(session.refresh_hash, hash_token(token)):
                return session, session.next_refresh_token(family, **_device(request))
            if session.now - session.refreshed_at > REUSE_GRACE:
                session.end()
            return None


class Session(models.Model):
    """A device somebody is signed in on, by tokens or by a browser's cookie. Both name it and are worth nothing
    without it.

    All refresh tokens of a session begin with the same secret, so that a used one is known again without keeping
    it: `family.secret`, of which the hash of the first half and of the whole present token are stored.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False, help_text="Id of the session.")
    user = models.ForeignKey("users.User", on_delete=models.CASCADE, related_name="sessions")
    family_hash = models.CharField(
        max_length=64, null=True, help_text="SHA-256, hexadecimal, of what all its refresh tokens begin with."
    )
    refresh_hash = models.CharField(
        max_length=64, blank=True, help_text="SHA-256 of the present refresh token, hexadecimal."
    )
    created_at = models.DateTimeField(db_default=DatabaseNow(), editable=False, help_text="When the person signed in.")
    refreshed_at = models.DateTimeField(
        db_default=DatabaseNow(), editable=False, help_text="When a refresh token was last exchanged."
    )
    expires_at = models.DateTimeField(help_text="When the session ends if it is not refreshed.")
    revoked_at = models.DateTimeField(null=True)
    ip = models.GenericIPAddressField(null=True, help_text="Address it was last refreshed from.")
    user_agent = models.CharField(
        max_length=300, blank=True, help_text="What the program it was last refreshed by calls itself."
    )

    owned_by = "user_id"
    #: The database's time when the row was read, if it was asked for.
    now: Any = None
    objects = SessionQuerySet.as_manager()

    class Meta:
        db_table = "sessions"
        constraints = [models.UniqueConstraint(fields=["family_hash"], name="sessions_family_hash_unique")]
        indexes = [models.Index(fields=["expires_at"], name="sessions_expires_at")]

    def __str__(self) -> str:
        return f"{self.user_id} from {self.created_at:%Y-%m-%d %H:%M}"

    def end(self) -> None:
        Session.objects.filter(pk=self.pk).end()

    def sign_out(self) -> None:
        Session.objects.filter(pk=self.pk).sign_out()

    def next_refresh_token(self, family: str = "", **device: Any) -> str:
        """The refresh token that replaces the one before; it is in no other place than the answer."""
        family = family or secrets.token_urlsafe(32)
        token = f"{family}.{secrets.token_urlsafe(32)}"
        changes = {
            "family_hash": hash_token(family),
            "refresh_hash": hash_token(token),
            "refreshed_at": DatabaseNow(),
            "expires_at": DatabaseNow() + settings.REFRESH_TOKEN_LIFETIME,
            **device,
        }
        Session.objects.filter(pk=self.pk).update(**changes)
        return token


def hash_token(token: str) -> str:
    """Tokens are long and random: a plain hash keeps them, where passwords need a slow one."""
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


def _device(request: HttpRequest) -> dict[str, Any]:
    return {"ip": client_address(request), "user_agent": printable(request.headers.get("User-Agent", "")[:300])}


class Limit(NamedTuple):
    """At most so many in any such period."""

    name: str
    most: int
    period: timedelta


class RateLimitQuerySet(QuerySet["RateLimit"]):
    def wait(self, *counted: tuple[Limit, str]) -> int:
        """Seconds until all of these may happen again; 0 where they may now. One query."""
        rows: Any = self.annotate(now=DatabaseNow()).in_bulk([_key(limit, subject) for limit, subject in counted])
        limits = {_key(limit, subject): limit for limit, subject in counted}
        return max((row.wait(limits[key], row.now) for key, row in rows.items()), default=0)

    def hit(self, *counted: tuple[Limit, str]) -> int:
        """Count one of each; the seconds to wait, and nothing counted, where one of them is used up.

        The rows are locked meanwhile: whatever runs at the same time, no more than the limit are let through.
        """
        limits = {_key(limit, subject): limit for limit, subject in counted}
        with transaction.atomic():
            expiry: Any = DatabaseNow() + max(limit.period for limit in limits.values())
            new: list[Any] = [RateLimit(key=key, expires_at=expiry) for key in sorted(limits)]
            # An update where there is one: it locks the row, which nobody can then take away.
            self.bulk_create(new, update_conflicts=True, update_fields=["expires_at"], unique_fields=["key"])
            locked = self.annotate(now=DatabaseNow()).select_for_update()
            rows: list[Any] = list(locked.filter(key__in=limits).order_by("key"))
            wait = max(row.wait(limits[row.key], row.now) for row in rows)
            if not wait:
                for row in rows:
                    limit = limits[row.key]
                    row.hits = [*row.hits, row.now.timestamp()][-limit.most :]
                    row.expires_at = row.now + limit.period
                self.bulk_update(rows, ["hits", "expires_at"])
        return wait

    def forget(self, limit: Limit, subject: str) -> None:
        self.filter(key=_key(limit, subject)).delete()


class RateLimit(models.Model):
    """When something last happened that may happen so often only; kept in the database, all workers share it."""

    key = models.CharField(max_length=120, primary_key=True)
    hits = models.JSONField(default=list, help_text="Times, in seconds since 1970, oldest first.")
    expires_at = models.DateTimeField()

    objects = RateLimitQuerySet.as_manager()

    class Meta:
        db_table = "rate_limits"
        indexes = [models.Index(fields=["expires_at"], name="rate_limits_expires_at")]

    def __str__(self) -> str:
        return self.key

    @property
    def account(self) -> int | None:
        """The id of the user that is counted; None if it is an address or a mailbox."""
        subject = self.key.rpartition(":")[2]
        is_id = re.fullmatch("[0-9]{1,18}", subject) and self.key.count(":") == 1
        return int(subject) if is_id else None

    def wait(self, limit: Limit, now: datetime) -> int:
        """Return the seconds from `now`, by the database's clock, until it may happen again."""
        if len(self.hits) < limit.most:
            return 0
        return max(0, math.ceil(self.hits[-limit.most] + limit.period.total_seconds() - now.timestamp()))


def _key(limit: Limit, subject: str) -> str:
    return f"{limit.name}:{subject}"


class SpentTokenQuerySet(QuerySet["SpentToken"]):
    def spend(self, token: str, expires_at: datetime) -> bool:
        """Whether the token was not used before; of many that try at once one succeeds."""
        try:
            with transaction.atomic():
                self.create(token_hash=hash_token(token), expires_at=expires_at)
        except IntegrityError:
            return False
        return True


class SpentToken(models.Model):
    """A token from a mail that was used: it works once."""

    token_hash = models.CharField(max_length=64, primary_key=True)
    expires_at = models.DateTimeField()

    objects = SpentTokenQuerySet.as_manager()

    class Meta:
        db_table = "spent_tokens"
        indexes = [models.Index(fields=["expires_at"], name="spent_tokens_expires_at")]

    def __str__(self) -> str:
        return self.token_hash[:8]


class IdentityManager(models.Manager["Identity"]):
    def get_by_natural_key(self, provider: str, subject: str) -> "Identity":
        return self.get(provider=provider, subject=subject)


class Identity(models.Model):
    """Who somebody is to an OpenID Connect provider: `subject` never changes there, an e-mail address may."""

    user = models.ForeignKey("users.User", on_delete=models.CASCADE, related_name="identities")
    provider = models.CharField(max_length=50)
    subject = models.CharField(max_length=255)
    created_at = models.DateTimeField(auto_now_add=True)

    objects = IdentityManager()

    class Meta:
        db_table = "identities"
        verbose_name_plural = "identities"
        constraints = [models.UniqueConstraint(fields=["provider", "subject"], name="identities_unique")]

    def __str__(self) -> str:
        return f"{self.subject} at {self.provider}"

    def natural_key(self) -> tuple[str, str]:
        return (self.provider, self.subject)

    natural_key.dependencies = ["users.user"]  # type: ignore[attr-defined]
