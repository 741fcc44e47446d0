"""The WSGI application, which every server runs."""

import os
from collections.abc import Callable, Iterable
from io import BytesIO
from typing import Any

import django
from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler, WSGIRequest
from django.urls import get_resolver
from django.utils.http import parse_header_parameters

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
django.setup(set_prefix=False)

MAX_CONTENT_TYPE_LENGTH = 256


class UTF8Request(WSGIRequest):
    """A request that is decoded as UTF-8. Django would decode the URL too by the charset of the Content-Type."""

    def _set_content_type_params(self, meta: dict[str, Any]) -> None:
        try:
            if len(meta.get("CONTENT_TYPE", "")) > MAX_CONTENT_TYPE_LENGTH:
                raise ValueError("The Content-Type is too long.")  # parsing it would take quadratic time
            self.content_type, self.content_params = parse_header_parameters(meta.get("CONTENT_TYPE", ""))
        except ValueError:
            # An invalid type is treated as unknown (RFC 9110, section 8.3): 415 if there is a body.
            meta["CONTENT_TYPE"] = self.content_type = "application/octet-stream"
            self.content_params = {}


class Handler(WSGIHandler):
    request_class = UTF8Request


django_application = Handler()
get_resolver().url_patterns  # noqa: B018 - import all views now, not in the first request


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Run Django. A body without a Content-Length is read first, because Django would ignore it."""
    may_have_body = "HTTP_TRANSFER_ENCODING" in environ or environ.get("wsgi.input_terminated")
    if may_have_body and not environ.get("CONTENT_LENGTH"):
        # One byte more than the limit, which RequestLimitMiddleware refuses.
        body = environ["wsgi.input"].read(settings.DATA_UPLOAD_MAX_MEMORY_SIZE + 1)
        environ |= {"wsgi.input": BytesIO(body), "CONTENT_LENGTH": str(len(body))}
    return django_application(environ, start_response)
