"""Failed attempts in the audit log."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from django.core.exceptions import ValidationError
from django.db import IntegrityError
from rest_framework.exceptions import APIException

from records import context
from records.exceptions import DomainError
from users.events import record_event


@contextmanager
def record_attempt(
    action: str, get_user_id: Callable[[], int | None] = lambda: None, *, by_owner: bool = False
) -> Iterator[None]:
    """Record changes made in this block under `action`, and a failure if the block fails.

    Use it outside of the transaction that the failure rolls back. `get_user_id` is called after a failure and returns
    the id of the account that the attempt concerned.
    """
    try:
        with context.record_as(action, by_owner=by_owner):
            yield
    except (APIException, DomainError, ValidationError, IntegrityError):
        record_event(action, get_user_id(), "failure")
        raise
