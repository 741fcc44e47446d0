"""Health checks, which ask by whatever address they know."""

from django.http import HttpRequest, HttpResponsePermanentRedirect
from django.middleware.common import CommonMiddleware

PROBES = frozenset({"/ping", "/health/live", "/health/ready"})


class HostCheckMiddleware(CommonMiddleware):
    """Refuse a Host header that ALLOWED_HOSTS does not contain, except from probes, which send an address or nothing.

    Their answers depend on no host and have no links.
    """

    def process_request(self, request: HttpRequest) -> HttpResponsePermanentRedirect | None:
        return None if request.path_info in PROBES else super().process_request(request)
