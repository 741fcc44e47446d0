"""Sessions: the devices on which users are signed in."""

import hashlib
import secrets
import uuid
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from django.conf import settings
from django.contrib.auth import get_user_model
from django.db import models, transaction
from django.utils.crypto import constant_time_compare

from records import context
from records.audit.models import AuditEntry
from records.db.clock import DatabaseNow
from records.db.compiled import CompilableQuerySet
from records.db.expressions import AnyOf
from records.models.changes import Change
from users.events import record_event

if TYPE_CHECKING:
    from users.models.user import User

#: How long after a refresh the same token counts as the loser of a race between two tabs, not as stolen.
REUSE_GRACE = timedelta(seconds=5)


class Device(NamedTuple):
    """The client of a session, as of its last refresh."""

    ip: str | None
    user_agent: str


def hash_token(token: str) -> str:
    """Return the SHA-256 of a token. A fast hash is enough, because tokens are long and random."""
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


def _users() -> Any:
    model: Any = get_user_model()
    return model.objects


class SessionQuerySet(CompilableQuerySet["Session"]):
    def alive(self) -> Self:
        """Return the sessions that neither ended nor expired, of users who may use the service."""
        return self.filter(revoked_at=None, expires_at__gt=DatabaseNow(), user__is_active=True, user__deleted_at=None)

    def with_now(self) -> Self:
        """Annotate each row with the database's time, `now`."""
        return self.annotate(now=DatabaseNow())

    def visible_to(self, user: "User") -> Self:
        return self.filter(user_id=user.pk)

    def end(self) -> int:
        """End the sessions without an entry in the audit log, because another change caused it."""
        return self.filter(revoked_at=None).update(revoked_at=DatabaseNow())

    def end_after(self, changes: Mapping["User", set[str]]) -> None:
        """End the sessions of users who were deactivated or whose password changed, by at most two statements.

        The session in which users change their own password continues.
        """
        deactivated = [user.pk for user, names in changes.items() if "is_active" in names and not user.is_active]
        changed = [user.pk for user, names in changes.items() if "password" in names and user.pk not in deactivated]
        if deactivated:
            self.filter(AnyOf("user", deactivated)).end()
        if changed:
            current = context.login_session()
            self.filter(AnyOf("user", changed)).exclude(pk=current and current.pk).end()

    def sign_out(self) -> int:
        """End the sessions and record a logout for each."""
        with transaction.atomic():
            locked = self.filter(revoked_at=None).select_for_update(of=("self",))
            changes = [Change(user_id, user_id) for user_id in locked.values_list("user_id", flat=True)]
            AuditEntry.objects.record(get_user_model(), "logout", changes)
            return self.end()

    def sign_out_user(self, user: "User") -> None:
        with transaction.atomic():
            # A concurrent login through one of the sessions waits for this lock, and then fails.
            len(_users().filter(pk=user.pk).select_for_update(no_key=True).values_list("pk"))
            self.filter(user=user).sign_out()

    def start(self, user: "User", device: Device, *, by: "Session | None" = None) -> "Session | None":
        """Sign `user` in on a device, after a check of their password or by another session of theirs.

        Return None if the user was deactivated, changed their password or ended that session since `user` was read.
        """
        with transaction.atomic():
            unchanged = _users().active().filter(pk=user.pk, password=user.password)
            now = unchanged.select_for_update(no_key=True).values_list(DatabaseNow(), flat=True).first()
            if now is None or (by is not None and not self.alive().filter(pk=by.pk).exists()):
                record_event("login", user.pk, "failure")
                return None
            record_event("login", user.pk)
            session = self.create(
                user=user,
                created_at=by.created_at if by else now,  # a session that derives from another is not a fresh login
                expires_at=now + settings.REFRESH_TOKEN_LIFETIME,
                **device._asdict(),
            )
            session.now = now
            return session

    def refresh(self, token: str, device: Device) -> "tuple[Session, str] | None":
        """Return the session of a refresh token, and its next refresh token; None if the token is invalid.

        Each token works once. A used token ends its session, unless it is used within REUSE_GRACE of the last refresh:
        then two tabs raced or a response was lost, and only this request fails.
        """
        family, _, _ = token.partition(".")
        with transaction.atomic():
            locked = self.alive().with_now().select_for_update(of=("self",), no_key=True)
            session = locked.filter(family_hash=hash_token(family)).first()
            if session is None:
                return None
            if constant_time_compare(session.refresh_hash, hash_token(token)):
                return session, session.next_refresh_token(family, device)
            if session.now - session.refreshed_at > REUSE_GRACE:
                session.end()
            return None


class Session(models.Model):
    """A device on which a user is signed in, by tokens or by a browser's cookie.

    All refresh tokens of a session begin with the same secret: `family.secret`. Stored are the hash of the family, by
    which used tokens are recognised, and the hash of the current token.
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
    #: The database's time when the row was read by `with_now()` or created by `start()`.
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

    def next_refresh_token(self, family: str = "", device: Device | None = None) -> str:
        """Create the next refresh token, which replaces the current one. Only its hash is stored."""
        family = family or secrets.token_urlsafe(32)
        token = f"{family}.{secrets.token_urlsafe(32)}"
        Session.objects.filter(pk=self.pk).update(
            family_hash=hash_token(family),
            refresh_hash=hash_token(token),
            refreshed_at=DatabaseNow(),
            expires_at=DatabaseNow() + settings.REFRESH_TOKEN_LIFETIME,
            **(device._asdict() if device else {}),
        )
        return token
