"""Conversion of column values to and from JSON."""

import math
from datetime import UTC, date, datetime, time, timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from django.db import models
from django.utils.duration import duration_iso_string


def as_json(value: Any) -> Any:
    """A value of a column so that JSON keeps it exactly: `from_json` gives it back."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, Decimal):
        number = float(value)
        # A double holds 15 digits; what has more is written in letters.
        if not math.isfinite(number) or Decimal(repr(number)) != value:
            return str(value)
        return int(number) if number.is_integer() and abs(number) < 2**53 else number
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z") if value.tzinfo else value.isoformat()
    if isinstance(value, (date, time)):
        return value.isoformat()
    if isinstance(value, timedelta):
        return duration_iso_string(value)
    return value if isinstance(value, (float, dict, list)) else str(value)


def from_json(field: models.Field, value: Any) -> Any:
    """The value of this column that `as_json` wrote."""
    if isinstance(value, float) and isinstance(field, models.DecimalField):
        return Decimal(repr(value))
    return field.to_python(value)


def as_stored(field: models.Field, value: Any) -> Any:
    """What the database makes of a value that was assigned: "aapl" becomes AAPL, "175.5" a decimal."""
    if isinstance(value, models.Model):
        value = value.pk
    value = field.to_python(field.get_prep_value(value))
    if isinstance(field, models.DecimalField) and isinstance(value, Decimal):
        return value.quantize(Decimal(1).scaleb(-field.decimal_places), ROUND_HALF_UP)
    return value


def is_same_moment(given: datetime | None, stored: datetime) -> bool:
    """Return True if `given` is `stored`, or is it cut to milliseconds."""
    return given in (stored, stored.replace(microsecond=stored.microsecond // 1000 * 1000))
