import os
from collections.abc import Callable, Iterable
from io import BytesIO
from typing import Any

import django
from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler, WSGIRequest
from django.utils.http import parse_header_parameters

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
django.setup(set_prefix=False)

LONGEST_CONTENT_TYPE = 256


class UTF8Request(WSGIRequest):
    """In UTF-8 whatever is claimed: Django reads the address too by the body's charset, and crashes at "base64"."""

    def _set_content_type_params(self, meta: dict[str, Any]) -> None:
        try:
            if len(meta.get("CONTENT_TYPE", "")) > LONGEST_CONTENT_TYPE:
                raise ValueError("Parsing its parameters takes quadratic time.")
            self.content_type, self.content_params = parse_header_parameters(meta.get("CONTENT_TYPE", ""))
        except ValueError:
            # An unreadable type is an unknown one (RFC 9110, section 8.3): 415 where there is a body.
            meta["CONTENT_TYPE"] = self.content_type = "application/octet-stream"
            self.content_params = {}


class Handler(WSGIHandler):
    request_class = UTF8Request


django_application = Handler()


def application(environ: dict[str, Any], start_response: Callable) -> Iterable[bytes]:
    """Run Django, which would take a request without a Content-Length for one without a body."""
    may_have_body = "HTTP_TRANSFER_ENCODING" in environ or environ.get("wsgi.input_terminated")
    if may_have_body and not environ.get("CONTENT_LENGTH"):
        # One byte more than is allowed is enough to be refused.
        body = environ["wsgi.input"].read(settings.DATA_UPLOAD_MAX_MEMORY_SIZE + 1)
        environ |= {"wsgi.input": BytesIO(body), "CONTENT_LENGTH": str(len(body))}
    return django_application(environ, start_response)
