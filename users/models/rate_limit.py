"""Limits to how often something may happen, counted in the database so that all workers share them."""

import math
import re
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from django.db import models, transaction
from django.db.models import QuerySet

from records.db.clock import DatabaseNow


class Limit(NamedTuple):
    """The highest number of attempts within any period of this length."""

    name: str
    max_attempts: int
    period: timedelta


#: A limit and the subject that it is counted for: an account, an address, a mailbox.
Counter = tuple[Limit, str]


class RateLimitQuerySet(QuerySet["RateLimit"]):
    def seconds_to_wait(self, *counters: Counter) -> int:
        """Return the seconds until another attempt is allowed by all counters; 0 if it is now. Takes one query."""
        rows: Any = self.annotate(now=DatabaseNow()).in_bulk([_key(*counter) for counter in counters])
        limits = {_key(*counter): counter[0] for counter in counters}
        return max((row.seconds_to_wait(limits[key], row.now) for key, row in rows.items()), default=0)

    def count_attempt(self, *counters: Counter) -> int:
        """Count an attempt by all counters; return the seconds to wait, and count nothing, if one is exhausted.

        The rows are locked, so that concurrent attempts cannot exceed the limit.
        """
        limits = {_key(*counter): counter[0] for counter in counters}
        with transaction.atomic():
            expiry: Any = DatabaseNow() + max(limit.period for limit in limits.values())
            rows: list[Any] = [RateLimit(key=key, expires_at=expiry) for key in sorted(limits)]
            # An existing row is updated, which locks it: it cannot be deleted before it is read.
            self.bulk_create(rows, update_conflicts=True, update_fields=["expires_at"], unique_fields=["key"])
            locked = self.annotate(now=DatabaseNow()).select_for_update()
            rows = list(locked.filter(key__in=limits).order_by("key"))
            wait: int = max(row.seconds_to_wait(limits[row.key], row.now) for row in rows)
            if not wait:
                for row in rows:
                    limit = limits[row.key]
                    row.hits = [*row.hits, row.now.timestamp()][-limit.max_attempts :]
                    row.expires_at = row.now + limit.period
                self.bulk_update(rows, ["hits", "expires_at"])
        return wait

    def reset(self, limit: Limit, subject: str) -> None:
        """Delete the attempts counted for this subject."""
        self.filter(key=_key(limit, subject)).delete()


class RateLimit(models.Model):
    """The times of recent attempts."""

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
    def counted_user_id(self) -> int | None:
        """The id of the user that is counted; None if an address or a mailbox is."""
        subject = self.key.rpartition(":")[2]
        is_id = re.fullmatch("[0-9]{1,18}", subject) and self.key.count(":") == 1
        return int(subject) if is_id else None

    def seconds_to_wait(self, limit: Limit, now: datetime) -> int:
        """Return the seconds from `now`, by the database's clock, until another attempt is allowed."""
        if len(self.hits) < limit.max_attempts:
            return 0
        oldest: float = self.hits[-limit.max_attempts]
        return max(0, math.ceil(oldest + limit.period.total_seconds() - now.timestamp()))


def _key(limit: Limit, subject: str) -> str:
    return f"{limit.name}:{subject}"
