"""Errors of the domain, which know no HTTP: `records.rest.errors` maps each to a status.

Two of Django's belong to them: `PermissionDenied` and `ValidationError`.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple


class FieldError(NamedTuple):
    """An error about a column. `row` names the row if an operation concerns several: "stocks.17"."""

    model: Any
    field: str
    message: str
    row: str = ""


class DomainError(Exception):
    """An operation was refused. The message is for the user."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class ConflictError(DomainError):
    """An operation conflicts with what is stored. Nothing was changed."""

    def __init__(self, message: str, errors: Sequence[FieldError] = ()) -> None:
        super().__init__(message)
        self.errors = list(errors)


class TooManyAttemptsError(DomainError):
    """An operation was attempted too often. `wait` is the number of seconds until it may be tried again."""

    def __init__(self, message: str, wait: int) -> None:
        super().__init__(message)
        self.wait = wait


class UnavailableError(DomainError):
    """An operation is impossible at the moment. `wait` is the number of seconds after which to try again."""

    def __init__(self, message: str, wait: int) -> None:
        super().__init__(message)
        self.wait = wait
