"""The quota of the caller, on every answer of the API."""

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse

from records.rest.throttles import AnonymousThrottle


class RateLimitMiddleware:
    """Adds `RateLimit` and `RateLimit-Policy`, from the numbers that the throttle of the view had.

    An answer given before a view counts the request, such as 413, 414 or an unknown path, shows the quota of the
    address and uses none of it. Where the counters cannot be reached there are no headers.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        if request.path == "/api" or request.path.startswith("/api/"):
            for name, value in self._headers(request).items():
                response.headers[name] = value
        return response

    def _headers(self, request: HttpRequest) -> dict[str, str]:
        if hasattr(request, "rate_limit"):
            return request.rate_limit
        throttle = AnonymousThrottle()
        return throttle.peek(throttle.address_key(request))
