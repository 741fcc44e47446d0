"""Rate limits, counted together by all workers that share a cache."""

import logging
import math
import time
from collections.abc import Callable
from time import monotonic
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from django.core.cache import caches
from django.core.cache.backends.base import BaseCache
from rest_framework.request import Request
from rest_framework.throttling import SimpleRateThrottle

from records.http.client_address import client_network

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: A cache that takes longer than this to fail is not used for PAUSE_SECONDS, because each attempt blocks a thread.
SLOW_SECONDS = 0.1
PAUSE_SECONDS = 5
#: Seconds between log lines about a cache that stays down.
LOG_INTERVAL_SECONDS = 30


class Outage:
    """A failing cache: the times, by time.monotonic(), until which it is neither used nor logged."""

    use_at = log_at = 0.0

    def note(self, error: Exception, took: float) -> None:
        now = monotonic()
        if took > SLOW_SECONDS:
            self.use_at = now + PAUSE_SECONDS
        if now >= self.log_at:
            self.log_at = now + LOG_INTERVAL_SECONDS
            logger.error("Cache unavailable, requests are not throttled: %s", error)


def is_redis_error(error: Exception) -> bool:
    # Compared by name, because importing redis takes 0.1 s and 5 MB, also where it is not used.
    return type(error).__module__.partition(".")[0] == "redis"


_outages: WeakKeyDictionary[BaseCache, Outage] = WeakKeyDictionary()


class SlidingThrottle(SimpleRateThrottle):
    """A sliding window of two counters for each client: the current period and a share of the previous one.

    DRF stores the time of every request and writes the whole list back, which loses concurrent requests and moves 5 KB
    for 600 of them. Here a request costs one read and one atomic increment.
    """

    duration: int
    num_requests: int
    #: Requests of the previous and of the current period.
    before: float = 0
    now: float = 0

    @property
    def cache(self) -> BaseCache:  # type: ignore[override]
        return caches["default"]

    def allow_request(self, request: Request, view: Any) -> bool:
        """Count the request; return False if it exceeds the limit. Without the cache every request is allowed."""
        client = self.get_cache_key(request, view)
        if client is None or self.rate is None:
            return True
        is_allowed = self._use_cache(lambda: self._count(request, client))
        return is_allowed is not False

    def _use_cache(self, operation: Callable[[], T]) -> T | None:
        """Return the result of `operation`, or None while the cache is unavailable."""
        cache, started = self.cache, monotonic()
        outage = _outages.get(cache)
        if outage is not None and started < outage.use_at:
            return None
        try:
            result = operation()
        except Exception as error:
            if not isinstance(error, OSError) and not is_redis_error(error):
                raise  # no failure of Redis, nor of the sockets and files of other backends
            _outages.setdefault(cache, Outage()).note(error, monotonic() - started)
            return None
        if outage is not None:
            _outages.pop(cache, None)
            logger.warning("Cache available again: requests are throttled.")
        return result

    def _count(self, request: Request, client: str) -> bool:
        current, previous = self._counters(client)
        try:
            self.now = self._increment(current)
        except ValueError:  # the cache dropped the counter
            return True
        self.before = self.cache.get(previous, 0)
        used = self.before * (1 - self.elapsed / self.duration) + self.now
        request._request.rate_limit = self._headers(used)  # type: ignore[attr-defined]
        if used <= self.num_requests:
            return True
        self.cache.decr(current)  # refused requests are not counted
        return False

    def _increment(self, key: str) -> float:
        try:
            return self.cache.incr(key)
        except ValueError:  # the first request of the period
            self.cache.add(key, 0, self.duration * 2)
            return self.cache.incr(key)

    def peek(self, client: str) -> dict[str, str]:
        """Return the headers of the client without counting a request; {} while the cache is unavailable."""
        return self._use_cache(lambda: self._peek(client)) or {}

    def _peek(self, client: str) -> dict[str, str]:
        current, previous = self._counters(client)
        self.before, self.now = self.cache.get(previous, 0), self.cache.get(current, 0)
        return self._headers(self.before * (1 - self.elapsed / self.duration) + self.now)

    def _counters(self, client: str) -> tuple[str, str]:
        self.elapsed = time.time() % self.duration
        number = int(time.time() // self.duration)
        return f"{client}:{number}", f"{client}:{number - 1}"

    def _headers(self, used: float) -> dict[str, str]:
        """Return the headers of draft-ietf-httpapi-ratelimit-headers-10."""
        remaining = max(0, math.floor(self.num_requests - used))
        # Seconds until the period ends, or until another request is allowed if none remains.
        wanted = self.now + 1 if used <= self.num_requests else self.now
        seconds = math.ceil(self.duration - self.elapsed) if remaining else self._wait_for(wanted)
        return {
            "RateLimit-Policy": f'"{self.scope}";q={self.num_requests};w={self.duration}',
            "RateLimit": f'"{self.scope}";r={remaining};t={seconds}',
        }

    def wait(self) -> float:
        """Return the seconds until another request is allowed, at most one period."""
        return self._wait_for(self.now)

    def _wait_for(self, number: float) -> int:
        """Return the seconds until this number of requests is allowed in the current period."""
        room = self.num_requests - number
        if self.before and room >= 0:
            return max(1, math.ceil(self.duration * (1 - room / self.before) - self.elapsed))
        # In the next period, when the share of this one has become small enough.
        faded: float = self.duration * (1 - (self.num_requests - 1) / max(1, number - 1))
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
