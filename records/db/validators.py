"""Validators of values that both databases store alike."""

import math
from decimal import Decimal
from typing import Any

from django.core.exceptions import ValidationError
from django.core.validators import BaseValidator
from django.utils.deconstruct import deconstructible

BIGINT_MAX = 2**63 - 1

DEEPEST_JSON = 50


@deconstructible
class GreaterThanValidator(BaseValidator):
    """Django's MinValueValidator includes its limit; a price of 0 is not a price."""

    message = "Ensure this value is greater than %(limit_value)s."
    code = "greater_than"

    def compare(self, a: Any, b: Any) -> bool:
        return a <= b


def plain_json(value: Any, depth: int = DEEPEST_JSON) -> Any:
    """A validator of JSON: both databases keep it so, and every client can read it.

    Returns the value with its Decimals as the doubles that JSON has for them.
    """
    if depth == 0 and isinstance(value, (dict, list)):
        raise ValidationError(f"Ensure this value is nested no deeper than {DEEPEST_JSON} levels.", code="depth")
    match value:
        case dict():
            return {plain_json(key): plain_json(each, depth - 1) for key, each in value.items()}
        case list():
            return [plain_json(each, depth - 1) for each in value]
        case str():
            if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
                raise ValidationError("Ensure its texts have no NUL and no lone surrogates.", code="text")
        case bool():
            return value
        case int() | float() | Decimal():
            # PostgreSQL writes 1e30 with all its digits, and no whole number of more than 64 bits is read everywhere.
            number: Any = value
            if not math.isfinite(number) or abs(number) > BIGINT_MAX:
                raise ValidationError(f"Ensure its numbers are from -{BIGINT_MAX} to {BIGINT_MAX}.", code="number")
            return float(number) if isinstance(number, Decimal) else number
    return value
