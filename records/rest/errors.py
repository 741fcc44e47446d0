"""Every error as a problem detail (RFC 9457), from whichever source."""

import json
import logging
import re
import sqlite3
import sys
from collections.abc import Callable
from functools import cache
from http import HTTPStatus
from itertools import islice
from typing import Any

from django.apps import apps
from django.core.exceptions import RequestDataTooBig, SuspiciousOperation, TooManyFieldsSent, TooManyFilesSent
from django.core.exceptions import ValidationError as ModelValidationError
from django.db import DataError, Error, IntegrityError, models
from django.http import HttpRequest, HttpResponse, UnreadablePostError
from django.template.loader import render_to_string
from redis.exceptions import RedisError
from rest_framework import exceptions
from rest_framework.settings import api_settings
from rest_framework.utils.serializer_helpers import ReturnDict
from rest_framework.views import exception_handler

from records import audit
from records.constraints import constraint_fields
from records.db.availability import sqlstate
from records.rest.hints import MOST_ERRORS, shown
from records.rest.parsers import PayloadTooLarge
from records.rest.renderers import PROBLEM_TYPE
from records.rest.serializers import api_names

logger = logging.getLogger(__name__)

RETRY_AFTER_SECONDS = 2
#: Faults of the request as a whole; they become the problem's `detail`.
GENERAL = api_settings.NON_FIELD_ERRORS_KEY
#: A message or a field's name may quote what was sent.
LONGEST_TEXT = 500


class Conflict(exceptions.APIException):
    status_code = HTTPStatus.CONFLICT
    default_detail = "The request conflicts with the present state."

    def __init__(self, detail: str | None = None, errors: dict[str, list[str]] | None = None) -> None:
        super().__init__(detail)
        self.errors = errors or {}


#: The database's states in which a request is answered by 503: the start of the SQLSTATE, of which the longest that
#: fits counts, and what the caller is told.
UNAVAILABLE = {
    "08": "The database cannot be reached at the moment. Please try again.",
    "25006": "The database is read-only at the moment: nothing was changed. Please try again later.",
    "25P03": "The database ended the transaction because it took too long. Please try again.",
    "25P04": "The database ended the transaction because it took too long. Please try again.",
    "28": "The database cannot be reached at the moment. Please try again.",
    "3D": "The database cannot be reached at the moment. Please try again.",
    "40": "Another request changed the same rows at the same time: nothing was changed. Please try again.",
    "42501": "The database does not permit this to the service. Please try again later.",
    "42703": "The database is not migrated to this version of the service yet. Please try again later.",
    "42P01": "The database is not migrated to this version of the service yet. Please try again later.",
    "53": "The database has too little memory, disk space or connections at the moment. Please try again later.",
    "53100": "The disk of the database is full: nothing was changed. Please try again later.",
    "53300": "The database has no connection left at the moment. Please try again.",
    "55006": "What was asked for is in use by another transaction. Please try again.",
    "55P03": "What was asked for is in use by another transaction. Please try again.",
    "57": "The database is restarting. Please try again.",
    "57014": "The database took too long, and the request was cancelled. Please try again.",
    "58": "The database cannot read or write its files at the moment. Please try again later.",
    "XX": "The database has an internal error. Please try again later.",
}


class ServiceUnavailable(exceptions.APIException):
    status_code = HTTPStatus.SERVICE_UNAVAILABLE
    default_detail = UNAVAILABLE["08"]
    wait = RETRY_AFTER_SECONDS


def problem(status: int, detail: str, errors: dict[str, list[str]] | None = None) -> dict[str, Any]:
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": int(status),
        "detail": detail,
    }
    if errors:
        body["errors"] = dict(islice(errors.items(), MOST_ERRORS))
    if errors and len(errors) > MOST_ERRORS:
        body["detail"] = f"{detail} {len(errors) - MOST_ERRORS:,} more errors are not shown."
    return body | {"request_id": audit.request_id()}


def problem_response(exc: Exception, context: dict[str, Any]) -> HttpResponse | None:
    """DRF's exception handler; None lets Django log the crash and answer 500."""
    exc = _as_api_exception(exc)
    if isinstance(exc, ServiceUnavailable) and _is_browsable(context.get("request")):
        # The page of the browsable API would ask the database for the user.
        return page(exc.status_code, str(exc.detail), headers={"Retry-After": str(exc.wait)})
    response = exception_handler(exc, context)
    if response is None:
        return None
    errors: dict[str, list[str]] = getattr(exc, "errors", {})
    detail = _sentence(exc)
    if isinstance(exc, exceptions.ValidationError):
        errors = _flatten(exc.detail)
        general = errors.pop(GENERAL, [])
        detail = " ".join(general) or _summary(errors)
    body = problem(response.status_code, detail, errors)
    # The browsable API shows each error beside its field: it finds the form behind the data.
    serializer = getattr(getattr(exc, "detail", None), "serializer", None)
    response.data = ReturnDict(body, serializer=serializer) if serializer is not None else body
    return response


def _is_browsable(request: Any) -> bool:
    return getattr(getattr(request, "accepted_renderer", None), "format", "") == "api"


def _sentence(exc: Exception) -> str:
    detail = getattr(exc, "detail", None)
    if isinstance(exc, exceptions.MethodNotAllowed) or not isinstance(detail, (list, dict)):
        return str(detail if detail is not None else exc) or "Not found."
    return exc.__class__.__name__


def _summary(errors: dict[str, list[str]]) -> str:
    if len(errors) > 1:
        named = ", ".join(islice(errors, MOST_ERRORS))
        return f"{len(errors):,} fields are at fault: {named}{', …' if len(errors) > MOST_ERRORS else '.'}"
    [(name, [message, *_])] = errors.items()
    return message if f"'{name}'" in message else f"{name}: {message}"


def _flatten(detail: Any, name: str = "") -> dict[str, list[str]]:
    """Nested errors under dotted names: `{"prices": {"AAPL": […]}}` becomes `{"prices.AAPL": […]}`."""
    if isinstance(detail, dict):
        flat: dict[str, list[str]] = {}
        for key, value in detail.items():
            # A fault of a nested whole is a fault of the field that holds it.
            own = shown(str(key), LONGEST_TEXT)
            path = name if key == GENERAL and name else f"{name}.{own}" if name else own
            flat |= _flatten(value, path)
        return flat
    if isinstance(detail, list):
        texts = [_text(item) for item in islice(detail, MOST_ERRORS) if not isinstance(item, (dict, list))]
        flat = {name or GENERAL: texts} if texts else {}
        for index, item in enumerate(detail):
            if isinstance(item, (dict, list)):
                flat |= _flatten(item, f"{name}.{index}" if name else str(index))
        return flat
    return {name or GENERAL: [_text(detail)]}


def _text(detail: Any) -> str:
    text = str(detail)
    # A lone surrogate cannot be sent back.
    return text[:LONGEST_TEXT].encode("utf-8", "replace").decode() + ("…" if len(text) > LONGEST_TEXT else "")


def _as_api_exception(exc: Exception) -> Exception:
    if isinstance(exc, ModelValidationError):
        details = exc.message_dict if hasattr(exc, "error_dict") else {GENERAL: exc.messages}
        return exceptions.ValidationError({GENERAL if key == "__all__" else key: text for key, text in details.items()})
    if isinstance(exc, RequestDataTooBig):
        return PayloadTooLarge()
    if isinstance(exc, (TooManyFieldsSent, TooManyFilesSent)):
        return exceptions.ParseError("The form has too many fields.")
    if isinstance(exc, (SuspiciousOperation, UnreadablePostError)):
        return exceptions.ParseError("The request could not be read.")
    if isinstance(exc, (RedisError, sqlite3.Error)):  # Django wraps the errors of its own databases
        logger.error("Cache unavailable: %s", exc)
        return ServiceUnavailable("The cache cannot be reached at the moment. Please try again.")
    if isinstance(exc, Error):
        return _from_database(exc)
    return exc


def _from_database(exc: Error) -> Exception:
    if isinstance(exc, models.ProtectedError):
        return Conflict(exc.args[0])
    if isinstance(exc, IntegrityError):
        return from_constraint(exc)
    if isinstance(exc, DataError):
        return exceptions.ValidationError("A value is out of the range that can be stored.")
    state = sqlstate(exc)
    if state.startswith("54"):
        return exceptions.ValidationError("A value is too long, or the request too complex, for the database.")
    if detail := next((UNAVAILABLE[state[:length]] for length in (5, 2) if state[:length] in UNAVAILABLE), None):
        # These two may be faults of the code as well: their stack trace tells.
        trace = exc if state.startswith(("42", "XX")) else None
        logger.error("Database unavailable (%s): %s", state, str(exc).strip().splitlines()[:1], exc_info=trace)
        return ServiceUnavailable(detail)
    return exc


def from_constraint(exc: IntegrityError) -> exceptions.ValidationError:
    """The answer that the check before the write would have given, had it not lost the race."""
    model, constraint = _constraints().get(_violated_name(exc), (None, None))
    if constraint is None:
        return exceptions.ValidationError("This conflicts with what is stored.")
    names = [model._meta.get_field(name) for name in constraint_fields(constraint)[:1]]
    shown = [api_names(model).get(field.attname, field.name) for field in names] or [GENERAL]
    return exceptions.ValidationError({shown[0]: [str(constraint.get_violation_error_message())]})


def _violated_name(exc: IntegrityError) -> str:
    diagnostics = getattr(exc.__cause__, "diag", None)
    if diagnostics is not None:
        return diagnostics.constraint_name or ""
    # SQLite: "CHECK constraint failed: NAME", "UNIQUE constraint failed: index 'NAME'".
    match = re.search(r"constraint failed: (?:index ')?(\w+)", str(exc))
    return match[1] if match else ""


@cache
def _constraints() -> dict[str, tuple[Any, Any]]:
    """Name → model and constraint."""
    return {each.name: (model, each) for model in apps.get_models() for each in model._meta.constraints}


def answer(request: HttpRequest, status: int, detail: str, headers: dict[str, str] | None = None) -> HttpResponse:
    """A problem, as a page for a browser outside of the API."""
    if request.path.startswith("/api/v") or "text/html" not in request.META.get("HTTP_ACCEPT", ""):
        body = json.dumps(problem(status, detail))
        return HttpResponse(body, status=status, content_type=PROBLEM_TYPE, headers=headers)
    return page(status, detail, headers=headers)


def page(status: int, detail: str, *, title: str = "", headers: dict[str, str] | None = None) -> HttpResponse:
    """A problem for a person."""
    context = problem(status, detail)
    text = render_to_string("error.html", context | {"title": title or context["title"]})
    return HttpResponse(text, status=status, headers=headers)


class ProblemMiddleware:
    """What goes wrong before and beside the API's views."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        charset = (request.content_params or {}).get("charset", "utf-8")
        has_body = request.META.get("CONTENT_LENGTH") not in {None, "", "0"}
        if has_body and charset.lower() not in {"utf-8", "utf8", "us-ascii", "ascii"}:
            return answer(request, 415, "Text must be sent in UTF-8.")
        return self.get_response(request)

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        """Answer for views outside of the API, such as the admin's, that meet a throttle or a database that is down."""
        exception = _unavailable(exception) or exception
        if not isinstance(exception, (exceptions.Throttled, ServiceUnavailable)):
            return None
        headers = {"Retry-After": str(getattr(exception, "wait", "")), "Cache-Control": "no-store"}
        return answer(request, exception.status_code, str(exception.detail), headers)


def _unavailable(error: BaseException | None) -> ServiceUnavailable | None:
    """Return the 503 that a database error stands for, None for any other error."""
    mapped = _from_database(error) if isinstance(error, Error) else None
    return mapped if isinstance(mapped, ServiceUnavailable) else None


def _django_handler(status: int, detail: str) -> Callable[..., HttpResponse]:
    """A handler for what never reaches a DRF view: a bad Host header, a crash, an unknown page."""

    def handle(request: HttpRequest, exception: Exception | None = None, reason: str = "") -> HttpResponse:
        if status == HTTPStatus.INTERNAL_SERVER_ERROR and (error := _unavailable(sys.exc_info()[1])):
            headers = {"Retry-After": str(error.wait), "Cache-Control": "no-store"}
            return answer(request, error.status_code, str(error.detail), headers)
        return answer(request, status, detail, {"Allow": "GET, HEAD"} if status == 405 else {})

    return handle


csrf_failure = _django_handler(403, "The CSRF token is missing or wrong: reload the page and try again.")
bad_request = _django_handler(400, "The request could not be understood.")
permission_denied = _django_handler(403, "This is not allowed.")
page_not_found = _django_handler(404, "There is nothing at this address.")
method_not_allowed = _django_handler(405, "This address can only be read.")
server_error = _django_handler(500, "Something went wrong on our side. The request id tells us what.")
