"""The headers `RateLimit` and `RateLimit-Policy`."""

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse

from records.rest.throttles import AnonymousThrottle


class RateLimitMiddleware:
    """Add the rate limit headers to every response of the API, with the numbers of the view's throttle.

    Responses that no view returns, such as 413 or 414, are not counted and have the quota of the address. Without the
    cache there are no headers.
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
            headers: dict[str, str] = request.rate_limit
            return headers
        throttle = AnonymousThrottle()
        return throttle.peek(throttle.address_key(request))
