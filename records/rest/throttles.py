"""How many requests a caller may make, counted together by all workers that share a cache."""

import logging
import math
import sqlite3
import threading
import time
from collections.abc import Callable
from itertools import count
from time import monotonic
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from django.core.cache import caches
from django.core.cache.backends.base import BaseCache
from redis.exceptions import RedisError
from rest_framework.request import Request
from rest_framework.throttling import SimpleRateThrottle

from records.http.client_address import client_network

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: How a cache fails: Redis, the file of SharedCounters, and the sockets and files of other backends.
CACHE_ERRORS = (RedisError, sqlite3.Error, OSError)
#: A cache that takes longer than this to fail is left alone for a while: each question costs a thread that time.
SLOW_SECONDS = 0.1
PAUSE_SECONDS = 5
#: The log tells of a cache that stays down this often.
TOLD_EVERY_SECONDS = 30


class Outage:
    """A cache that fails at the moment: from when on it is asked again, and the log told again."""

    ask_at = tell_at = 0.0

    def note(self, error: Exception, took: float) -> None:
        now = monotonic()
        if took > SLOW_SECONDS:
            self.ask_at = now + PAUSE_SECONDS
        if now >= self.tell_at:
            self.tell_at = now + TOLD_EVERY_SECONDS
            logger.error("Cache unavailable, requests are not throttled: %s", error)


_outages: WeakKeyDictionary[BaseCache, Outage] = WeakKeyDictionary()


class SlidingThrottle(SimpleRateThrottle):
    """Two counters a caller, of this period and the one before, which counts for the part of it still in sight.

    DRF's own keeps the time of every request, reads all and writes all back: of two at once one is lost, and 600 of
    them are 5 KB to carry for each request. Here a request costs two reads and one atomic addition.
    """

    duration: int
    num_requests: int

    @property
    def cache(self) -> BaseCache:  # type: ignore[override]
        return caches["throttles"]

    def allow_request(self, request: Request, view: Any) -> bool:
        """Count the request, and return False if it is one too many. Without the cache every request is allowed."""
        caller = self.get_cache_key(request, view)
        if caller is None or self.rate is None:
            return True
        is_allowed = self._ask_cache(lambda: self._count(request, caller))
        return is_allowed is not False

    def _ask_cache(self, ask: Callable[[], T]) -> T | None:
        """Return what `ask` returns, or None while the cache is away."""
        cache, started = self.cache, monotonic()
        outage = _outages.get(cache)
        if outage is not None and started < outage.ask_at:
            return None
        try:
            answer = ask()
        except CACHE_ERRORS as error:
            _outages.setdefault(cache, Outage()).note(error, monotonic() - started)
            return None
        if outage is not None:
            _outages.pop(cache, None)
            logger.warning("Cache available again: requests are throttled.")
        return answer

    def _count(self, request: Request, caller: str) -> bool:
        present, previous = self._counters(caller)
        self.cache.add(present, 0, self.duration * 2)
        self.before = self.cache.get(previous, 0)
        try:
            self.now = self.cache.incr(present)
        except ValueError:  # dropped since: the cache is full or was restarted
            return True
        used = self.before * (1 - self.elapsed / self.duration) + self.now
        request._request.rate_limit = self._headers(used)  # type: ignore[attr-defined]
        if used <= self.num_requests:
            return True
        self.cache.decr(present)  # who is refused is not counted, and let in as soon as there is room
        return False

    def peek(self, caller: str) -> dict[str, str]:
        """Return the caller's headers without counting a request; none while the cache is away."""
        return self._ask_cache(lambda: self._peek(caller)) or {}

    def _peek(self, caller: str) -> dict[str, str]:
        present, previous = self._counters(caller)
        self.before, self.now = self.cache.get(previous, 0), self.cache.get(present, 0)
        return self._headers(self.before * (1 - self.elapsed / self.duration) + self.now)

    def _counters(self, caller: str) -> tuple[str, str]:
        self.elapsed = time.time() % self.duration
        number = int(time.time() // self.duration)
        return f"{caller}:{number}", f"{caller}:{number - 1}"

    def _headers(self, used: float) -> dict[str, str]:
        """Policy and quota as in draft-ietf-httpapi-ratelimit-headers-10."""
        remaining = max(0, math.floor(self.num_requests - used))
        # With something left until this period's count starts anew, else until one more is allowed.
        wanted = self.now + 1 if used <= self.num_requests else self.now
        seconds = math.ceil(self.duration - self.elapsed) if remaining else self._wait_for(wanted)
        return {
            "RateLimit-Policy": f'"{self.scope}";q={self.num_requests};w={self.duration}',
            "RateLimit": f'"{self.scope}";r={remaining};t={seconds}',
        }

    def wait(self) -> float:
        """Seconds until one more request is allowed, a period at most."""
        return self._wait_for(self.now)

    def _wait_for(self, number: float) -> int:
        """Seconds until so many requests of this period are allowed."""
        room = self.num_requests - number
        if self.before and room >= 0:
            return max(1, math.ceil(self.duration * (1 - room / self.before) - self.elapsed))
        # Not in this period: in the next one, when what was counted in this has faded enough.
        faded = self.duration * (1 - (self.num_requests - 1) / max(1, number - 1))
        return min(self.duration, max(1, math.ceil(self.duration - self.elapsed + faded)))


class AnonymousThrottle(SlidingThrottle):
    scope = "anon"

    def get_cache_key(self, request: Request, view: Any) -> str | None:
        return None if request.user and request.user.is_authenticated else self.address_key(request)

    def address_key(self, request: Any) -> str:
        return self.cache_format % {"scope": self.scope, "ident": client_network(request)}


class UserThrottle(SlidingThrottle):
    scope = "user"

    def get_cache_key(self, request: Request, view: Any) -> str | None:
        if not request.user or not request.user.is_authenticated:
            return None
        return self.cache_format % {"scope": self.scope, "ident": request.user.pk}


class SharedCounters(BaseCache):
    """Numbers that all workers of one machine share, in a SQLite file; several machines share a Redis.

    Django's cache in files loses what is counted at the same time, and its cache in the database would cost each
    request a query or more. They need not outlive the machine, so nothing waits for the disk.
    """

    def __init__(self, location: str, params: dict[str, Any]) -> None:
        super().__init__(params)
        self._location = location
        self._own = threading.local()

    def _execute(self, statement: str, *values: Any) -> Any:
        if not hasattr(self._own, "connection"):
            self._own.connection = self._connect()
        return self._own.connection.execute(statement, values).fetchone()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._location, timeout=5, isolation_level=None)
        for attempt in count():
            try:
                connection.executescript(
                    "PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF; CREATE TABLE IF NOT EXISTS counters"
                    " (key TEXT PRIMARY KEY, value INTEGER NOT NULL, expires REAL NOT NULL) WITHOUT ROWID"
                )
                break
            except sqlite3.OperationalError:
                # Of workers that start at once one makes the file, and SQLite lets nobody wait for that.
                if attempt == 100:
                    raise
                time.sleep(0.02)
        return connection

    def add(self, key: Any, value: Any, timeout: Any = 300, version: int | None = None) -> bool:
        now = time.time()
        self._execute("DELETE FROM counters WHERE key IN (SELECT key FROM counters WHERE expires < ? LIMIT 2)", now)
        row = (self.make_and_validate_key(key, version), value, now + timeout)
        return self._execute("INSERT OR IGNORE INTO counters VALUES (?, ?, ?) RETURNING 1", *row) is not None

    def get(self, key: Any, default: Any = None, version: int | None = None) -> Any:
        found = self._execute("SELECT value FROM counters WHERE key = ?", self.make_and_validate_key(key, version))
        return found[0] if found else default

    def incr(self, key: Any, delta: int = 1, version: int | None = None) -> int:
        statement = "UPDATE counters SET value = value + ? WHERE key = ? RETURNING value"
        found = self._execute(statement, delta, self.make_and_validate_key(key, version))
        if found is None:
            raise ValueError(f"There is no counter {key!r}.")
        return found[0]

    def clear(self) -> None:
        self._execute("DELETE FROM counters")
