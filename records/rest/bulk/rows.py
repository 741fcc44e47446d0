"""The rows of a bulk request: what was sent, and what became of each."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from django.conf import settings
from django.db import models
from rest_framework.exceptions import APIException, ErrorDetail, ParseError, ValidationError

from records.http.hints import MAX_HINTS, did_you_mean, excerpt
from records.rest.errors import GENERAL, flatten
from records.rest.fields import BigIntegerField, UUIDField
from records.rest.strict import object_expected

MAX_ROWS = 1_000
#: Keys of an item that name the row and its expected version.
ROW_KEYS = ("id", "version")


@dataclass
class Row:
    """One item of the request."""

    index: int
    data: Any
    key: Any = None
    version: int | None = None
    #: The row as it was locked; None for a creation.
    stored: Any = None
    #: The row as it was written.
    written: Any = None
    attrs: dict[str, Any] = field(default_factory=dict)
    candidate: Any = None
    #: Status and messages by field if the row is refused.
    status: int = HTTPStatus.OK
    errors: dict[str, list[str]] = field(default_factory=dict)

    def is_object(self) -> bool:
        """Return True if an object was sent; refuse the row otherwise."""
        if not isinstance(self.data, dict):
            self.refuse({GENERAL: [object_expected(self.data)]})
        return not self.errors

    def refuse(self, error: APIException | dict[str, Any]) -> None:
        """Add the errors of an exception, or those of fields. The first error decides the status."""
        if isinstance(error, APIException) and not isinstance(error.detail, dict | list):
            name = GENERAL if isinstance(error, ValidationError) else "id"
            status, errors = error.status_code, {name: [str(error.detail)]}
        else:
            status = getattr(error, "status_code", HTTPStatus.BAD_REQUEST)
            errors = flatten(getattr(error, "detail", error))
        self.status = self.status if self.errors else status
        for name, messages in errors.items():
            self.errors.setdefault(name, []).extend(messages)


class InvalidRows(APIException):
    """Rows of a request of which all or none are stored."""

    status_code = HTTPStatus.BAD_REQUEST
    #: The number of rows is limited, so that all errors are shown.
    max_errors = None

    def __init__(self, rows: list[Row], count: int) -> None:
        verb = "is" if len(rows) == 1 else "are"
        super().__init__(f"{len(rows):,} of {count:,} rows {verb} at fault: nothing was stored.")
        self.errors = {
            str(row.index) if name == GENERAL else f"{row.index}.{name}": messages
            for row in rows
            for name, messages in row.errors.items()
        }


class Batch:
    """All rows of a request."""

    def __init__(self, data: Any, *, is_atomic: bool) -> None:
        if not isinstance(data, list):
            raise ParseError("Expected an array of rows in the request body.")
        if not 0 < len(data) <= MAX_ROWS:
            raise ParseError(f"Expected 1 to {MAX_ROWS:,} rows, got {len(data):,}.")
        self.rows = [Row(index, item) for index, item in enumerate(data)]
        self.is_atomic = is_atomic

    def __iter__(self) -> Iterator[Row]:
        """Yield the rows that have no error so far."""
        return iter([row for row in self.rows if not row.errors])

    def limit(self, field_limits: dict[str, int]) -> None:
        """Refuse rows that send a field which enough rows before have sent already."""
        for name, limit in field_limits.items():
            sent = [row for row in self.rows if isinstance(row.data, dict) and name in row.data]
            for row in sent[limit:]:
                row.refuse({name: [f"At most {limit} rows of a request may have a {name}."]})

    def read_keys(self, model: type[models.Model], *, allow_bare: bool) -> None:
        """Take id and version out of the items. With `allow_bare`, an item may be an id, and has nothing else."""
        fields = {
            "id": UUIDField() if isinstance(model._meta.pk, models.UUIDField) else BigIntegerField(),
            "version": BigIntegerField(required=False),
        }
        for row in self:
            if allow_bare and not isinstance(row.data, dict):
                row.data = {"id": row.data}
            if not row.is_object():
                continue
            _read_key(row, fields)
            if allow_bare:
                _refuse_others(row)
        self._refuse_repeated_keys()

    def _refuse_repeated_keys(self) -> None:
        first: dict[Any, int] = {}
        repeated = []
        for row in self.rows:
            if row.key is not None and first.setdefault(row.key, row.index) != row.index:
                row.refuse({"id": [f"Row {first[row.key]} has the same id."]})
                repeated.append(row)
        if repeated and not self.is_atomic:
            raise InvalidRows(repeated, len(self.rows))

    def forbidden_keys(self) -> list[Any]:
        """Return the keys of the rows that the user may see but not write."""
        return [row.key for row in self.rows if row.status == HTTPStatus.FORBIDDEN]

    def raise_if_refused(self) -> None:
        """Raise the errors of all rows if one of them prevents all from being stored."""
        refused = [row for row in self.rows if row.errors]
        if refused and self.is_atomic:
            raise InvalidRows(refused, len(self.rows))


def _read_key(row: Row, fields: dict[str, Any]) -> None:
    values, errors = {}, {}
    for name, declared in fields.items():
        try:
            if name in row.data:
                values[name] = declared.run_validation(row.data[name])
            elif declared.required:
                declared.fail("required")
        except ValidationError as error:
            errors[name] = error.detail
    if errors:
        row.refuse(errors)
    row.key, row.version = values.get("id"), values.get("version")
    row.data = {name: value for name, value in row.data.items() if name not in ROW_KEYS}


def _refuse_others(row: Row) -> None:
    has_hints = row.index < MAX_HINTS
    unknown = {
        excerpt(name): [ErrorDetail(f"Unknown field.{did_you_mean(name, ROW_KEYS) if has_hints else ''}")]
        for name in row.data
    }
    if unknown:
        row.refuse(unknown)


def precondition_error(row: Row) -> APIException | None:
    """Return the error of a row whose version is not the expected one, or is not named although it must be."""
    if row.version is None:
        is_required = getattr(settings, "REQUIRE_IF_MATCH", False)
        return _version_error(HTTPStatus.PRECONDITION_REQUIRED, "This field is required.") if is_required else None
    current = row.stored.version
    if row.version == current:
        return None
    return _version_error(HTTPStatus.PRECONDITION_FAILED, f"Expected {row.version}, found {current}.")


def _version_error(status: HTTPStatus, message: str) -> APIException:
    error = APIException({"version": [message]})
    error.status_code = status
    return error
