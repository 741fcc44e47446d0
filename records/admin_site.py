"""The admin site: what holds for every page of it, whichever model it shows."""

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

#: What a write raises that lost to another one after its checks had passed.
LOST = (IntegrityError, RowGoneError, ValidationError)
#: How often one parameter may be given; each is a condition of the query.
MOST_REPETITIONS = 20
SAFE_METHODS = {"GET", "HEAD", "OPTIONS", "TRACE"}


def reason(error: Exception) -> dict[str, list[str]]:
    """Return the messages of an error in LOST by field; those about the whole row are under ""."""
    if isinstance(error, ValidationError):
        found = error.message_dict if hasattr(error, "error_dict") else {"": error.messages}
    elif isinstance(error, models.ProtectedError) or not isinstance(error, IntegrityError):
        found = {"": [str(error.args[0])]}
    else:
        detail: Any = from_constraint(error).detail
        found = detail if isinstance(detail, dict) else {"": detail}
    return {name: [str(text) for text in texts] for name, texts in found.items()}


def sentence(error: Exception) -> str:
    return " ".join(text for texts in reason(error).values() for text in texts)


@contextmanager
def bad_values_refused() -> Iterator[None]:
    """Answer 400 to values that reach the database unchecked: Django's admin passes ids and filters on as they come."""
    try:
        yield
    except (ValueError, ArithmeticError, ValidationError, DataError) as error:
        raise _refused(error) from error
    except OperationalError as error:
        # SQLite's word for an exception in a function of Django's, such as REGEXP with half an expression; and
        # statements that are too complex (class 54).
        if "user-defined function raised exception" not in str(error) and not sqlstate(error).startswith("54"):
            raise
        raise _refused(error) from error


def _refused(error: Exception) -> BadRequest:
    # A fault of the code would look the same: the log tells where to look.
    logger.warning("A value was refused in the admin: %s: %r", type(error).__name__, str(error)[:200])
    return BadRequest("A value of this request is not one that the database can hold.")


def _guarded(view: Callable[..., Any]) -> Callable[..., Any]:
    """Make each unsafe request one transaction, and answer values that cannot be stored by 400, lost races by 409."""

    @wraps(view)
    def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        # PostgreSQL cannot store a NUL, and SQLite can: refused alike.
        if any("\0" in text for name, texts in request.GET.lists() for text in (name, *texts)):
            raise BadRequest("A parameter contains a NUL character.")
        if any(len(texts) > MOST_REPETITIONS for _, texts in request.GET.lists()):
            raise BadRequest("A parameter is repeated too often.")
        try:
            with bad_values_refused():
                if request.method in SAFE_METHODS:
                    return _rendered(view(request, *args, **kwargs))
                with transaction.atomic():
                    return _rendered(view(request, *args, **kwargs))
        except (IntegrityError, RowGoneError) as error:
            return problem_page(HTTPStatus.CONFLICT, sentence(error))

    return guarded


def _rendered(response: Any) -> Any:
    """Render now what Django would render later, when nobody would catch its errors."""
    return response.render() if hasattr(response, "render") else response


class RecordAutocompleteView(AutocompleteJsonView):
    def process_request(self, request: HttpRequest) -> Any:
        found = super().process_request(request)
        if found[2].auto_created:
            raise PermissionDenied  # the far end of a relation has no choices, and Django would fail on it
        return found


class RecordAdminSite(admin.AdminSite):
    """Django's site, with requests that are refused or undone as a whole instead of failing half way."""

    def admin_view(self, view: Any, cacheable: bool = False) -> Any:
        return super().admin_view(_guarded(view), cacheable)

    def autocomplete_view(self, request: HttpRequest) -> Any:
        return RecordAutocompleteView.as_view(admin_site=self)(request)
