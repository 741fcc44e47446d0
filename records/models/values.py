"""Conversion of column values to and from JSON."""

import json
import math
from datetime import UTC, date, datetime, time, timedelta
from decimal import ROUND_HALF_UP, Context, Decimal
from typing import Any

from django.db import models
from django.utils.duration import duration_iso_string

from records.models.relations import Column

BIGINT_MIN, BIGINT_MAX = -(2**63), 2**63 - 1
#: The database refuses numbers with too many digits, not Python.
ANY_PRECISION = Context(prec=10_000)
#: Doubles hold every integer below this exactly.
EXACT_DOUBLES = 2**53


def as_json(value: Any) -> Any:
    """Return a JSON value from which `from_json` restores the value of a column exactly."""
    match value:
        case int() if not isinstance(value, bool) and not BIGINT_MIN <= value <= BIGINT_MAX:
            return str(value)  # JSON has no integers of more than 64 bits
        case None | bool() | int() | str() | float() | dict() | list():
            return value
        case Decimal():
            return _decimal_as_json(value)
        case datetime() if value.tzinfo:
            return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
        case date() | time():
            return value.isoformat()
        case timedelta():
            return duration_iso_string(value)
    return str(value)


def _decimal_as_json(value: Decimal) -> int | float | str:
    """Return a number if a double holds the value exactly, else a string."""
    number = float(value)
    if not math.isfinite(number) or Decimal(repr(number)) != value:
        return str(value)
    return int(number) if number.is_integer() and abs(number) < EXACT_DOUBLES else number


def from_json(field: Column, value: Any) -> Any:
    """Return the value of a column from what `as_json` returned for it."""
    if isinstance(value, float) and isinstance(field, models.DecimalField):
        return Decimal(repr(value))
    return field.to_python(value)


def as_stored(field: Column, value: Any) -> Any:
    """Return the value that the database stores for an assigned one: "aapl" becomes "AAPL", "175.5" a decimal."""
    if isinstance(value, models.Model):
        value = value.pk
    if isinstance(field, models.JSONField):
        return json.loads(json.dumps(value, cls=field.encoder), cls=field.decoder)
    value = field.to_python(field.get_prep_value(value))
    if isinstance(field, models.DecimalField) and isinstance(value, Decimal) and value.is_finite():
        return value.quantize(Decimal(1).scaleb(-field.decimal_places), ROUND_HALF_UP, ANY_PRECISION)
    return value


def is_same_moment(moment: datetime | None, stored: datetime) -> bool:
    """Return True if the times are equal, or `moment` is the stored time cut to milliseconds, as older fixtures are."""
    return moment in (stored, stored.replace(microsecond=stored.microsecond // 1000 * 1000))
