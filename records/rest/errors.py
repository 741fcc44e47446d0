"""Every error as a problem detail (RFC 9457), from whichever source."""

import logging
import sqlite3
from http import HTTPStatus
from itertools import islice
from typing import Any

from django.core.exceptions import RequestDataTooBig, SuspiciousOperation, TooManyFieldsSent, TooManyFilesSent
from django.core.exceptions import ValidationError as ModelValidationError
from django.db import DataError, Error, IntegrityError, models
from django.http import HttpResponse, UnreadablePostError
from redis.exceptions import RedisError
from rest_framework import exceptions
from rest_framework.settings import api_settings
from rest_framework.utils.serializer_helpers import ReturnDict
from rest_framework.views import exception_handler

from records.db.availability import UNAVAILABLE, sqlstate, unavailability
from records.db.constraints import violation_of
from records.exceptions import ConflictError, FieldError, TooManyAttemptsError, UnavailableError
from records.http.hints import MOST_ERRORS, excerpt
from records.http.problems import RETRY_AFTER_SECONDS, problem_body, problem_page
from records.rest.parsers import PayloadTooLarge
from records.rest.serializers import api_names

logger = logging.getLogger(__name__)

#: Faults of the request as a whole; they become the problem's `detail`.
GENERAL = api_settings.NON_FIELD_ERRORS_KEY

#: A message or a field's name may quote what was sent.
LONGEST_TEXT = 500


class ConflictResponse(exceptions.APIException):
    status_code = HTTPStatus.CONFLICT

    def __init__(self, conflict: ConflictError) -> None:
        super().__init__(conflict.message)
        self.errors = {_error_name(error): [error.message] for error in conflict.errors}


def _error_name(error: FieldError) -> str:
    """Return the name of a column in the API, after the name of its row if there is one."""
    name = api_names(error.model).get(error.field, error.field)
    return f"{error.row}.{name}" if error.row else name


class ServiceUnavailable(exceptions.APIException):
    status_code = HTTPStatus.SERVICE_UNAVAILABLE
    default_detail = UNAVAILABLE["08"]

    def __init__(self, detail: str | None = None, wait: int = RETRY_AFTER_SECONDS) -> None:
        super().__init__(detail)
        self.wait = wait


class Throttled(exceptions.Throttled):
    """DRF's exception without the text that it appends."""

    def __init__(self, error: TooManyAttemptsError) -> None:
        super().__init__(error.wait)
        self.detail = error.message  # type: ignore[assignment]


def problem_from_exception(exc: Exception, context: dict[str, Any]) -> HttpResponse | None:
    """DRF's exception handler; None lets Django log the crash and answer 500."""
    exc = _as_api_exception(exc)
    if isinstance(exc, ServiceUnavailable) and _is_browsable(context.get("request")):
        # The page of the browsable API would ask the database for the user.
        return problem_page(exc.status_code, str(exc.detail), headers={"Retry-After": str(exc.wait)})
    response = exception_handler(exc, context)
    if response is None:
        return None
    errors: dict[str, list[str]] = getattr(exc, "errors", {})
    detail = _sentence(exc)
    if isinstance(exc, exceptions.ValidationError):
        errors = _flatten(exc.detail)
        general = errors.pop(GENERAL, [])
        detail = " ".join(general) or _summary(errors)
    body = problem_body(response.status_code, detail, errors)
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
            own = excerpt(str(key), LONGEST_TEXT)
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
    if isinstance(exc, ConflictError):
        return ConflictResponse(exc)
    if isinstance(exc, TooManyAttemptsError):
        return Throttled(exc)
    if isinstance(exc, UnavailableError):
        return ServiceUnavailable(exc.message, exc.wait)
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
        return ConflictResponse(ConflictError(exc.args[0]))
    if isinstance(exc, IntegrityError):
        return from_constraint(exc)
    if isinstance(exc, DataError):
        return exceptions.ValidationError("A value is out of the range that can be stored.")
    state = sqlstate(exc)
    if state.startswith("54"):
        return exceptions.ValidationError("A value is too long, or the request too complex, for the database.")
    if message := unavailability(exc):
        return ServiceUnavailable(message)
    return exc


def from_constraint(exc: IntegrityError) -> exceptions.ValidationError:
    """Return the error that the validation before the write would have raised, had it not lost the race."""
    violation = violation_of(exc)
    if violation is None:
        return exceptions.ValidationError("This conflicts with what is stored.")
    name = api_names(violation.model).get(violation.field, violation.field) or GENERAL
    return exceptions.ValidationError({name: [violation.message]})
