"""The types of fields of a resource."""

import datetime as dt
import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.db import models

from records.db.text import LineField, LinesField
from records.db.validators import plain_json

#: Columns that are not Django's.
COLUMNS: dict[str, Any] = {"LineField": LineField, "LinesField": LinesField}


def _number_reader(pattern: str, convert: Callable[[str], Any]) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        if not re.fullmatch(pattern, text, re.ASCII):
            raise ValueError(text)
        return convert(text)

    return read


def _read_float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


def _read_bool(text: str) -> bool:
    if text not in {"true", "false"}:
        raise ValueError(text)
    return text == "true"


def _read_datetime(text: str) -> Any:
    if text == "now":
        return Code("timezone.now")
    instant = dt.datetime.fromisoformat(text)
    return instant if instant.tzinfo else instant.replace(tzinfo=dt.UTC)


def _read_date(text: str) -> Any:
    return Code("timezone.localdate") if text == "today" else dt.date.fromisoformat(text)


def _read_uuid(text: str) -> Any:
    return Code("uuid4") if text == "random" else UUID(text)


class Code(str):
    """A Python expression, as opposed to a value."""

    __slots__ = ()


def source(value: Any) -> str:
    """Return the Python source of a value or of a list of functions."""
    match value:
        case Code():
            return str(value)
        case Decimal() | UUID():
            return f'{type(value).__name__}("{value}")'
        case dt.datetime() | dt.date():
            return f'dt.{type(value).__name__}.fromisoformat("{value.isoformat()}")'
        case list() if all(callable(item) for item in value):
            return f"[{', '.join(item.__name__ for item in value)}]"
    return repr(value)


@dataclass(frozen=True)
class Kind:
    """A type of field."""

    name: str
    #: The class of the column, and its arguments.
    column: str
    arguments: dict[str, Any] = field(default_factory=dict)
    hint: str = ""
    filter: str = ""
    #: Reads a default value; raises ValueError if it is invalid.
    read: Callable[[str], Any] = str
    #: Lookups of range filters.
    comparisons: tuple[str, ...] = ()
    is_searched: bool = False
    #: Whether the values are short enough for an index.
    is_indexed: bool = True
    #: Whether the column has a filter even without --searchable.
    is_always_filtered: bool = False
    #: Python source of values for tests: a lesser and a greater one, one with a `number`, and invalid ones.
    samples: tuple[str, str] = ("", "")
    sample: str = ""
    invalid: tuple[str, ...] = ()

    @property
    def column_class(self) -> Any:
        return COLUMNS.get(self.column) or getattr(models, self.column)

    @property
    def constructor(self) -> str:
        return self.column if self.column in COLUMNS else f"models.{self.column}"

    @property
    def can_be_unique(self) -> bool:
        return self.is_indexed and self.name not in {"bool", "choice", "user"}


_ORDER = ("gt", "gte", "lt", "lte")
_RANGE = ("gte", "lte")
_FLOAT = r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,3})?"

KINDS = {
    kind.name: kind
    for kind in (
        Kind("str", "LineField", {"max_length": 255}, "up to 255 characters", "TextFilter", is_searched=True,
             samples=('"Alpha"', '"Beta"'), sample='f"LABEL {number}"', invalid=('"x" * 256', "[]")),
        Kind("text", "LinesField", {}, "a text of any length", is_searched=True, is_indexed=False,
             samples=('"Alpha"', '"Beta"'), sample='f"LABEL {number}"', invalid=("{}", r'"\0"')),
        Kind("int", "BigIntegerField", {}, "a whole number", "IntegerFilter",
             _number_reader("[+-]?[0-9]{1,30}", int), _ORDER,
             samples=("1", "2"), sample="number", invalid=('"many"', "2**63", "True")),
        Kind("float", "FloatField", {}, "a number", "FloatFilter", _number_reader(_FLOAT, _read_float), _ORDER,
             samples=("0.5", "1.5"), sample="number + 0.5", invalid=('"nan"', '"1e400"', "True")),
        Kind("decimal", "DecimalField", {"max_digits": 15, "decimal_places": 4},
             "an exact number with up to 4 digits after the point", "DecimalFilter",
             _number_reader("[+-]?[0-9]{1,30}([.][0-9]{0,30})?", Decimal), _ORDER,
             samples=("0.5", "1.25"), sample="number + 0.25", invalid=('"nan"', "0.00001", "10**11", "True")),
        Kind("bool", "BooleanField", {}, "true or false", "BooleanFilter", _read_bool, is_always_filtered=True,
             samples=("False", "True"), sample="True", invalid=('"maybe"', "[]")),
        Kind("datetime", "DateTimeField", {}, "a time, in UTC unless it has a time zone", "InstantFilter",
             _read_datetime, _RANGE, samples=('"2026-01-02T03:04:05Z"', '"2026-02-03T04:05:06Z"'),
             sample='f"{2000 + number}-01-02T03:04:05Z"', invalid=('"yesterday"', "1", '"2026-02-30T00:00:00Z"')),
        Kind("date", "DateField", {}, "a day", "DateFilter", _read_date, _ORDER,
             samples=('"2026-01-02"', '"2026-02-03"'), sample='f"{2000 + number}-01-02"',
             invalid=('"yesterday"', "1", '"2026-02-30"')),
        Kind("uuid", "UUIDField", {}, "a UUID", "UUIDFilter", _read_uuid, is_always_filtered=True,
             samples=('"00000000-0000-4000-8000-000000000001"', '"00000000-0000-4000-8000-000000000002"'),
             sample='f"00000000-0000-4000-8000-{number:012}"', invalid=('"not-a-uuid"', "1")),
        Kind("json", "JSONField", {"validators": [plain_json]}, "any JSON", read=json.loads, is_indexed=False,
             sample='{"number": [number, None, "text"]}', invalid=("10**30", r'{"a": "\0"}')),
        Kind("email", "EmailField", {}, "an e-mail address", "TextFilter", is_searched=True,
             samples=('"a@example.com"', '"b@example.com"'), sample='f"person{number}@example.com"',
             invalid=('"nobody"', "1")),
        Kind("url", "URLField", {"max_length": 500}, "a web address", "TextFilter", is_searched=True,
             samples=('"https://example.com/a"', '"https://example.com/b"'),
             sample='f"https://example.com/{number}"', invalid=('"nowhere"', '"javascript:alert(1)"')),
        Kind("choice", "CharField", filter="ChoiceFilter", is_always_filtered=True, invalid=('"none of them"', "[]")),
        Kind("fk", "ForeignKey", is_always_filtered=True),
        Kind("user", "ForeignKey", is_always_filtered=True),
    )
}  # fmt: skip
#: The column that --slug adds.
SLUG = Kind("slug", "SlugField", {}, "letters, digits, - and _", "TextFilter", samples=('"alpha"', '"beta"'))
WITH_ARGUMENTS = {"choice": "choice(a,b)", "fk": "fk(app.Model)"}
