"""Health checks, which use any address in the Host header."""

from django.http import HttpRequest, HttpResponsePermanentRedirect
from django.middleware.common import CommonMiddleware

PROBES = frozenset({"/ping", "/health/live", "/health/ready"})


class HostCheckMiddleware(CommonMiddleware):
    """Refuse a Host header that ALLOWED_HOSTS does not contain, except from probes, which send an address or nothing.

    The responses to probes do not depend on the host and contain no links.
    """

    def process_request(self, request: HttpRequest) -> HttpResponsePermanentRedirect | None:
        return None if request.path_info in PROBES else super().process_request(request)
