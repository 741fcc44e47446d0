"""Request ids and the request log."""

import logging
import re
import time
import uuid
from collections.abc import Callable
from functools import partial

from django.http import HttpRequest, HttpResponse

from records import context
from records.http.client_address import client_address

logger = logging.getLogger("records.requests")

VALID_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")


class RequestContextMiddleware:
    """Give each request an id, the client's own if it is valid, and a line in the request log."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        started = time.perf_counter()
        sent = request.headers.get("X-Request-ID", "")
        request_id = sent if VALID_REQUEST_ID.fullmatch(sent) else str(uuid.uuid4())
        with context.activate_request(request_id, context.RequestContext(request, partial(client_address, request))):
            response = self.get_response(request)
            response["X-Request-ID"] = request_id
            milliseconds = (time.perf_counter() - started) * 1000
            # The query string is left out because it may hold personal data; %r escapes line breaks.
            user_id = context.loaded_actor_id() or "-"
            line = (request.method, request.path[:1000], response.status_code, milliseconds, user_id)
            logger.info("%s %r %d %.1fms user=%s", *line)
            return response
