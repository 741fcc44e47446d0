"""The admin site: one transaction per unsafe request, and 400 or 409 instead of a crash.

This module stays outside of the package `records.admin`: Django imports it while it creates the default site, which
that package needs.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from http import HTTPStatus
from typing import Any

from django.contrib import admin
from django.contrib.admin.views.autocomplete import AutocompleteJsonView
from django.core.exceptions import BadRequest, PermissionDenied, ValidationError
from django.db import DataError, IntegrityError, OperationalError, models, transaction
from django.http import HttpRequest

from records.db.availability import sqlstate
from records.http.problems import problem_page
from records.models.record import RowGoneError
from records.rest.errors import from_constraint

logger = logging.getLogger(__name__)

#: Errors of a write whose validation passed before another request changed the data.
WRITE_CONFLICTS = (IntegrityError, RowGoneError, ValidationError)
#: Each repetition of a query parameter is a condition of the query.
MAX_REPETITIONS = 20
SAFE_METHODS = {"GET", "HEAD", "OPTIONS", "TRACE"}


def messages_by_field(error: Exception) -> dict[str, list[str]]:
    """Return the messages of a write conflict by field. The key "" holds those about the whole row."""
    messages: dict[str, Any]
    if isinstance(error, ValidationError):
        messages = error.message_dict if hasattr(error, "error_dict") else {"": error.messages}
    elif isinstance(error, models.ProtectedError) or not isinstance(error, IntegrityError):
        messages = {"": [str(error.args[0])]}
    else:
        detail: Any = from_constraint(error).detail
        messages = detail if isinstance(detail, dict) else {"": detail}
    return {name: [str(text) for text in texts] for name, texts in messages.items()}


def conflict_text(error: Exception) -> str:
    return " ".join(text for texts in messages_by_field(error).values() for text in texts)


def remember_conflict(request: Any, error: Exception) -> None:
    """Store the messages of a write conflict for the repeated page."""
    request._conflict_messages = messages_by_field(error)


def conflict_messages(request: Any) -> dict[str, list[str]] | None:
    """Return the messages that `remember_conflict` stored, if any."""
    messages: dict[str, list[str]] | None = getattr(request, "_conflict_messages", None)
    return messages


@contextmanager
def refuse_bad_values() -> Iterator[None]:
    """Raise BadRequest for values that the database refuses: Django's admin passes ids and filters on unchecked."""
    try:
        yield
    except (ValueError, ArithmeticError, ValidationError, DataError) as error:
        raise _bad_request(error) from error
    except OperationalError as error:
        # SQLite reports an exception in one of Django's functions so, such as REGEXP with an invalid expression.
        # Class 54 contains statements that are too complex.
        if "user-defined function raised exception" not in str(error) and not sqlstate(error).startswith("54"):
            raise
        raise _bad_request(error) from error


def _bad_request(error: Exception) -> BadRequest:
    # A bug may raise the same errors: log them so that it can be found.
    logger.warning("The admin refused a value: %s: %r", type(error).__name__, str(error)[:200])
    return BadRequest("The request contains a value that the database cannot store.")


def _guard(view: Callable[..., Any]) -> Callable[..., Any]:
    """Run each unsafe request in one transaction. Answer 400 to unstorable values and 409 to lost races."""

    @wraps(view)
    def guarded_view(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        # PostgreSQL cannot store NUL and SQLite can: refuse it on both.
        if any("\0" in text for name, texts in request.GET.lists() for text in (name, *texts)):
            raise BadRequest("A parameter contains a NUL character.")
        if any(len(texts) > MAX_REPETITIONS for _, texts in request.GET.lists()):
            raise BadRequest("A parameter is repeated too often.")
        try:
            with refuse_bad_values():
                if request.method in SAFE_METHODS:
                    return _render(view(request, *args, **kwargs))
                with transaction.atomic():
                    return _render(view(request, *args, **kwargs))
        except (IntegrityError, RowGoneError) as error:
            return problem_page(HTTPStatus.CONFLICT, conflict_text(error))

    return guarded_view


def _render(response: Any) -> Any:
    """Render a template response now: Django renders it later, outside of the error handling here."""
    return response.render() if hasattr(response, "render") else response


class RecordAutocompleteView(AutocompleteJsonView):
    def process_request(self, request: HttpRequest) -> Any:
        result = super().process_request(request)
        if result[2].auto_created:
            raise PermissionDenied  # Django crashes on a reverse relation, which has no choices
        return result


class RecordAdminSite(admin.AdminSite):
    """Django's admin site with views that succeed or fail as a whole."""

    def admin_view(self, view: Any, cacheable: bool = False) -> Any:
        return super().admin_view(_guard(view), cacheable)

    def autocomplete_view(self, request: HttpRequest) -> Any:
        return RecordAutocompleteView.as_view(admin_site=self)(request)
