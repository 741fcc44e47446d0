"""The mapping of errors to HTTP statuses and problem details (RFC 9457)."""

import logging
from collections.abc import Callable
from http import HTTPStatus
from itertools import islice
from typing import Any

from django.core.exceptions import RequestDataTooBig, SuspiciousOperation, TooManyFieldsSent, TooManyFilesSent
from django.core.exceptions import ValidationError as ModelValidationError
from django.db import DataError, Error, IntegrityError, models
from django.http import HttpResponse, UnreadablePostError
from rest_framework import exceptions
from rest_framework.settings import api_settings
from rest_framework.utils.serializer_helpers import ReturnDict
from rest_framework.views import exception_handler

from records.db.availability import UNAVAILABLE, sqlstate, unavailability
from records.db.constraints import violation_of
from records.exceptions import ConflictError, FieldError, TooManyAttemptsError, UnavailableError
from records.http.hints import MAX_ERRORS, excerpt
from records.http.problems import RETRY_AFTER_SECONDS, problem_body, problem_page
from records.rest.columns import api_names
from records.rest.parsers import PayloadTooLarge
from records.rest.throttles import is_redis_error

logger = logging.getLogger(__name__)

#: Key of errors that concern the whole request; they become the `detail` of the problem.
GENERAL = api_settings.NON_FIELD_ERRORS_KEY

#: Characters of a message or the name of a field, which may quote the request.
MAX_TEXT_LENGTH = 500


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
    """Handle exceptions for DRF. Return None for crashes, which Django logs and answers by 500."""
    exc = _as_api_exception(exc)
    if isinstance(exc, ServiceUnavailable) and _is_browsable(context.get("request")):
        # The page of the browsable API would query the database for the user.
        return problem_page(exc.status_code, str(exc.detail), headers={"Retry-After": str(exc.wait)})
    response = exception_handler(exc, context)
    if response is None:
        return None
    errors: dict[str, list[str]] = getattr(exc, "errors", {})
    detail = _detail(exc)
    if isinstance(exc, exceptions.ValidationError):
        errors = flatten(exc.detail)
        general = errors.pop(GENERAL, [])
        detail = " ".join(general) or _summary(errors)
    for name, value in getattr(exc, "headers", {}).items():
        response.headers[name] = value
    body = problem_body(response.status_code, detail, errors, getattr(exc, "max_errors", MAX_ERRORS))
    # The browsable API displays each error beside its field, and finds the form through the data.
    serializer = getattr(getattr(exc, "detail", None), "serializer", None)
    response.data = ReturnDict(body, serializer=serializer) if serializer is not None else body
    return response


def _is_browsable(request: Any) -> bool:
    return getattr(getattr(request, "accepted_renderer", None), "format", "") == "api"


def _detail(exc: Exception) -> str:
    detail = getattr(exc, "detail", None)
    if isinstance(exc, exceptions.MethodNotAllowed) or not isinstance(detail, (list, dict)):
        return str(detail if detail is not None else exc) or "Not found."
    return exc.__class__.__name__


def _summary(errors: dict[str, list[str]]) -> str:
    if len(errors) > 1:
        named = ", ".join(islice(errors, MAX_ERRORS))
        return f"{len(errors):,} fields are at fault: {named}{', …' if len(errors) > MAX_ERRORS else '.'}"
    [(name, [message, *_])] = errors.items()
    return message if f"'{name}'" in message else f"{name}: {message}"


def flatten(detail: Any, name: str = "") -> dict[str, list[str]]:
    """Return nested errors under dotted names: `{"prices": {"AAPL": […]}}` becomes `{"prices.AAPL": […]}`."""
    if isinstance(detail, dict):
        flat: dict[str, list[str]] = {}
        for key, value in detail.items():
            flat |= flatten(value, _dotted(name, excerpt(str(key), MAX_TEXT_LENGTH)))
        return flat
    if isinstance(detail, list):
        return _flatten_list(detail, name)
    return {name or GENERAL: [_text(detail)]}


def _flatten_list(details: list[Any], name: str) -> dict[str, list[str]]:
    texts = [_text(item) for item in islice(details, MAX_ERRORS) if not isinstance(item, (dict, list))]
    flat = {name or GENERAL: texts} if texts else {}
    for index, item in enumerate(details):
        if isinstance(item, (dict, list)):
            flat |= flatten(item, _dotted(name, str(index)))
    return flat


def _dotted(name: str, key: str) -> str:
    if key == GENERAL and name:
        return name  # an error of a nested object belongs to the field that contains it
    return f"{name}.{key}" if name else key


def _text(detail: Any) -> str:
    text = str(detail)
    # Lone surrogates cannot be encoded.
    return text[:MAX_TEXT_LENGTH].encode("utf-8", "replace").decode() + ("…" if len(text) > MAX_TEXT_LENGTH else "")


def _from_model_validation(exc: ModelValidationError) -> exceptions.ValidationError:
    details = exc.message_dict if hasattr(exc, "error_dict") else {GENERAL: exc.messages}
    return exceptions.ValidationError(
        {GENERAL if name == "__all__" else name: messages for name, messages in details.items()}
    )


def _from_cache(exc: Exception) -> ServiceUnavailable:
    logger.error("Cache unavailable: %s", exc)
    return ServiceUnavailable("The cache cannot be reached at the moment. Please try again.")


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


#: Errors outside of DRF → the DRF exception that carries their status. The first match wins.
_CONVERSIONS: list[tuple[tuple[type[Exception], ...], Callable[[Any], Exception]]] = [
    ((ConflictError,), ConflictResponse),
    ((TooManyAttemptsError,), Throttled),
    ((UnavailableError,), lambda exc: ServiceUnavailable(exc.message, exc.wait)),
    ((ModelValidationError,), _from_model_validation),
    ((RequestDataTooBig,), lambda exc: PayloadTooLarge()),
    ((TooManyFieldsSent, TooManyFilesSent), lambda exc: exceptions.ParseError("The form has too many fields.")),
    ((SuspiciousOperation, UnreadablePostError), lambda exc: exceptions.ParseError("The request could not be read.")),
    ((Error,), _from_database),
]


def _as_api_exception(exc: Exception) -> Exception:
    for types, convert in _CONVERSIONS:
        if isinstance(exc, types):
            return convert(exc)
    return _from_cache(exc) if is_redis_error(exc) else exc
