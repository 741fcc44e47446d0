"""Answers of writes that carried an idempotency key."""

import hashlib
from datetime import datetime, timedelta
from typing import Any, ClassVar, Self

from django.conf import settings
from django.db import connections, models, router

from records.db.expressions import AnyOf
from records.models.changes import rows_purged

#: How long a key is kept, counted from the end of its request.
LIFETIME = timedelta(hours=24)
MAX_KEY_LENGTH = 255


class IdempotencyKeyQuerySet(models.QuerySet["IdempotencyKey"]):
    _db: str | None

    def of_caller(self, user_id: int, key: str) -> Self:
        return self.filter(user_id=user_id, key=key)

    def expired(self, now: datetime) -> Self:
        return self.filter(created_at__lte=now - LIFETIME)

    def try_lock(self, user_id: int, key: str) -> bool:
        """Lock a key until the end of the transaction; return False if another request holds it.

        On SQLite the transaction itself is the lock: it waits until no other one writes.
        """
        connection = connections[self._db or router.db_for_write(self.model)]
        if connection.vendor != "postgresql":
            return True
        with connection.cursor() as cursor:
            # A lock of the transaction, not of the session: it works behind a pooler and ends with the connection.
            cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [self.model.lock_id(user_id, key)])
            [is_locked] = cursor.fetchone()
        return bool(is_locked)


class IdempotencyKey(models.Model):
    """The answer to a request with an `Idempotency-Key`, to be sent again when the request is repeated."""

    user_id = models.BigIntegerField()
    key = models.CharField(max_length=MAX_KEY_LENGTH)
    #: A keyed hash of method, path, query and body: bodies may hold passwords.
    fingerprint = models.CharField(max_length=64)
    status = models.PositiveSmallIntegerField()
    headers = models.JSONField(default=dict)
    body = models.BinaryField()
    created_at = models.DateTimeField()

    objects: ClassVar[Any] = IdempotencyKeyQuerySet.as_manager()

    class Meta:
        db_table = "idempotency_keys"
        verbose_name = "idempotency key"
        default_permissions = ()
        constraints = [
            models.UniqueConstraint(fields=["user_id", "key"], name="idempotency_keys_unique"),
        ]
        indexes = [models.Index(fields=["created_at"], name="idempotency_keys_created_at")]

    def __str__(self) -> str:
        return self.key

    @staticmethod
    def lock_id(user_id: int, key: str) -> int:
        """Return the number by which PostgreSQL locks a key: 64 bits, with a sign."""
        digest = hashlib.blake2b(f"idempotency {user_id} {key}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, signed=True)

    def is_expired(self, now: datetime) -> bool:
        return self.created_at <= now - LIFETIME


def connect_signals() -> None:
    rows_purged.connect(_delete_keys_of_users)


def _delete_keys_of_users(sender: Any, keys: list[Any], using: str | None, **kwargs: Any) -> None:
    """Delete what is kept for users who are purged."""
    if sender._meta.label == settings.AUTH_USER_MODEL:
        IdempotencyKey.objects.using(using).filter(AnyOf("user_id", keys)).delete()
