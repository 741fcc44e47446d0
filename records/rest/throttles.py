"""How many requests a caller may make, counted together by all workers that share a cache."""

import math
import time
from typing import Any

from rest_framework.request import Request
from rest_framework.throttling import SimpleRateThrottle

from records import audit


class SlidingThrottle(SimpleRateThrottle):
    """Two counters a caller, of this period and the one before, which counts for the part of it still in sight.

    DRF's own keeps the time of every request, reads all and writes all back: of two at once one is lost, and 600 of
    them are 5 KB to carry for each request. Here a request costs two reads and one atomic addition.
    """

    duration: int
    num_requests: int

    def allow_request(self, request: Request, view: Any) -> bool:
        caller = self.get_cache_key(request, view)
        if caller is None or self.rate is None:
            return True
        self.elapsed = time.time() % self.duration
        number = int(time.time() // self.duration)
        present, previous = f"{caller}:{number}", f"{caller}:{number - 1}"
        self.cache.add(present, 0, self.duration * 2)
        self.before = self.cache.get(previous, 0)
        try:
            self.now = self.cache.incr(present)
        except ValueError:  # dropped since: the cache is full or was restarted
            return True
        if self.before * (1 - self.elapsed / self.duration) + self.now <= self.num_requests:
            return True
        self.cache.decr(present)  # who is refused is not counted, and let in as soon as there is room
        return False

    def wait(self) -> float:
        """Seconds until one more request is allowed, a period at most."""
        room = self.num_requests - self.now
        if self.before and room >= 0:
            return max(1, math.ceil(self.duration * (1 - room / self.before) - self.elapsed))
        # Not in this period: in the next one, when what was counted in this has faded enough.
        faded = self.duration * (1 - (self.num_requests - 1) / max(1, self.now - 1))
        return min(self.duration, max(1, math.ceil(self.duration - self.elapsed + faded)))


class AnonymousThrottle(SlidingThrottle):
    scope = "anon"

    def get_cache_key(self, request: Request, view: Any) -> str | None:
        if request.user and request.user.is_authenticated:
            return None
        return self.cache_format % {"scope": self.scope, "ident": audit.client_network(request)}


class UserThrottle(SlidingThrottle):
    scope = "user"

    def get_cache_key(self, request: Request, view: Any) -> str | None:
        if not request.user or not request.user.is_authenticated:
            return None
        return self.cache_format % {"scope": self.scope, "ident": request.user.pk}
