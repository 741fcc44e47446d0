"""Counting the rows of a list: exactly up to a limit, beyond it by the planner's estimate."""

import json
import threading
import time
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from django.db import connections
from django.db.models import QuerySet

from records.db.compiled import CompilableQuerySet

#: Rows up to which lists are counted exactly, where the database can estimate.
MAX_EXACT_COUNT = 10_000
#: Seconds for which an estimate is reused, without counting again whether there are more rows than that.
REUSE_SECONDS = 5
#: Estimates that are kept.
MAX_ESTIMATES = 1_000
#: Values of the parameter `count`.
COUNTS = ("exact", "estimated", "none")


def estimated_count(queryset: QuerySet[Any]) -> int:
    """Return the number of rows that PostgreSQL's planner expects. No row is read."""
    [plan] = json.loads(queryset.order_by().values("pk").explain(format="json"))
    rows: int = plan["Plan"]["Plan Rows"]
    return rows


def can_estimate(queryset: QuerySet[Any]) -> bool:
    return connections[queryset.db].vendor == "postgresql"


class RecentEstimates:
    """Estimates of lists with more rows than are counted exactly, by the query of the list. All threads share them."""

    def __init__(self) -> None:
        self._entries: OrderedDict[Hashable, tuple[float, int]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, query: Hashable) -> int | None:
        read_at, rows = self._entries.get(query, (0.0, 0))
        return rows if read_at and time.monotonic() - read_at < REUSE_SECONDS else None

    def add(self, query: Hashable, rows: int) -> None:
        with self._lock:
            self._entries[query] = time.monotonic(), rows
            self._entries.move_to_end(query)
            if len(self._entries) > MAX_ESTIMATES:
                self._entries.popitem(last=False)

    def clear(self) -> None:
        with self._lock:
            self._entries.clear()


recent_estimates = RecentEstimates()


@dataclass
class Total:
    """The number of rows of a list; `rows` is None if they were not counted."""

    rows: int | None = None
    is_estimate: bool = False

    def pages(self, size: int) -> int | None:
        return None if self.rows is None else -(-self.rows // size)


@dataclass
class Counter:
    """Counts the rows of one list as its parameter `count` says; `mode` is "" without the parameter."""

    queryset: CompilableQuerySet[Any]
    mode: str

    @cached_property
    def recent_estimate(self) -> int | None:
        """The estimate of the same list a few seconds ago, if it had more rows than are counted exactly."""
        if self.mode not in {"", "estimated"} or not can_estimate(self.queryset):
            return None
        query = self.queryset.recorded_query
        return None if query is None else recent_estimates.get(query)

    @property
    def limit(self) -> int | None:
        """The number of rows to count at most: None for all, 0 for none."""
        if self.mode == "none" or self.recent_estimate is not None:
            return 0
        if self.mode == "exact" or not can_estimate(self.queryset):
            return None
        return 0 if self.mode == "estimated" else MAX_EXACT_COUNT + 1

    def total(self, counted: int | None, offset: int, size: int, *, has_more: bool) -> Total:
        """Return the total of a list of which `size` rows from `offset` on were read.

        `counted` is the number that the query of the rows returned with them; None if there was no row.
        """
        if self.mode == "none":
            return Total()
        if not has_more and (size or offset == 0):
            return Total(offset + size)  # the last page was read
        limit = self.limit
        if counted is None:
            counted = self.queryset[:limit].count() if limit != 0 else 0
        if limit is None or 0 < counted < limit:
            return Total(counted)
        estimate = self.recent_estimate
        if estimate is None:
            estimate = max(estimated_count(self.queryset), counted)
            if counted and (query := self.queryset.recorded_query) is not None:
                recent_estimates.add(query, estimate)
        # The rows that were read, or not found, bound the total.
        estimate = max(estimate, offset + size + has_more) if size else min(estimate, offset)
        return Total(estimate, is_estimate=True)
