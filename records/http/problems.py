"""Problem details (RFC 9457), for the API and for every page outside of it."""

import json
import sys
from collections.abc import Callable
from http import HTTPStatus
from itertools import islice
from typing import Any

from django.db import Error
from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string

from records import context
from records.db.availability import unavailability
from records.exceptions import TooManyAttemptsError
from records.http.hints import MAX_ERRORS

PROBLEM_TYPE = "application/problem+json"
RETRY_AFTER_SECONDS = 2


def problem_body(
    status: int, detail: str, errors: dict[str, list[str]] | None = None, max_errors: int | None = MAX_ERRORS
) -> dict[str, Any]:
    """Return the JSON object of a problem; `errors` maps field names to messages."""
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": int(status),
        "detail": detail,
    }
    if errors:
        body["errors"] = dict(islice(errors.items(), max_errors))
    if errors and max_errors is not None and len(errors) > max_errors:
        body["detail"] = f"{detail} {len(errors) - max_errors:,} more errors are not shown."
    return body | {"request_id": context.request_id()}


def problem_response(
    request: HttpRequest, status: int, detail: str, headers: dict[str, str] | None = None
) -> HttpResponse:
    """Return a problem as JSON, or as a page if a browser asked for one outside of the API."""
    if request.path.startswith("/api/v") or "text/html" not in request.META.get("HTTP_ACCEPT", ""):
        body = json.dumps(problem_body(status, detail))
        return HttpResponse(body, status=status, content_type=PROBLEM_TYPE, headers=headers)
    return problem_page(status, detail, headers=headers)


def problem_page(status: int, detail: str, *, title: str = "", headers: dict[str, str] | None = None) -> HttpResponse:
    body = problem_body(status, detail)
    text = render_to_string("error.html", body | {"title": title or body["title"]})
    return HttpResponse(text, status=status, headers=headers)


class ProblemMiddleware:
    """Return problems for requests that reach no API view."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        charset = (request.content_params or {}).get("charset", "utf-8")
        has_body = request.META.get("CONTENT_LENGTH") not in {None, "", "0"}
        if has_body and charset.lower() not in {"utf-8", "utf8", "us-ascii", "ascii"}:
            return problem_response(request, 415, "Text must be sent in UTF-8.")
        return self.get_response(request)

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        """Handle rate limits and an unavailable database in views that are not DRF's, such as the admin's."""
        if isinstance(exception, TooManyAttemptsError):
            headers = {"Retry-After": str(exception.wait), "Cache-Control": "no-store"}
            return problem_response(request, HTTPStatus.TOO_MANY_REQUESTS, exception.message, headers)
        return _unavailable_response(request, exception)


def _unavailable_response(request: HttpRequest, error: BaseException | None) -> HttpResponse | None:
    """Return a 503 response if the database cannot be used, None for any other error."""
    message = unavailability(error) if isinstance(error, Error) else None
    if message is None:
        return None
    headers = {"Retry-After": str(RETRY_AFTER_SECONDS), "Cache-Control": "no-store"}
    return problem_response(request, HTTPStatus.SERVICE_UNAVAILABLE, message, headers)


def _error_view(status: int, detail: str) -> Callable[..., HttpResponse]:
    """Return a view for requests that reach no view: an invalid Host header, an unknown page."""

    def view(request: HttpRequest, exception: Exception | None = None, reason: str = "") -> HttpResponse:
        return problem_response(request, status, detail, {"Allow": "GET, HEAD"} if status == 405 else {})

    return view


csrf_failure = _error_view(403, "The CSRF token is missing or wrong: reload the page and try again.")
bad_request = _error_view(400, "The request could not be understood.")
permission_denied = _error_view(403, "This is not allowed.")
page_not_found = _error_view(404, "There is nothing at this address.")
method_not_allowed = _error_view(405, "This address can only be read.")
_crash = _error_view(500, "An internal error occurred. The log describes it under this request id.")


def server_error(request: HttpRequest) -> HttpResponse:
    return _unavailable_response(request, sys.exc_info()[1]) or _crash(request)
