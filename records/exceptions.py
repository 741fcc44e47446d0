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


class ConflictError(Exception):
    """An operation conflicts with what is stored. Nothing was changed."""

    def __init__(self, message: str, errors: Sequence[FieldError] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.errors = list(errors)
