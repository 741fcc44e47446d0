"""Validators that admit only values which both databases store alike."""

import math
from decimal import Decimal
from typing import Any

from django.core.exceptions import ValidationError
from django.core.validators import BaseValidator
from django.utils.deconstruct import deconstructible

BIGINT_MAX = 2**63 - 1

MAX_JSON_DEPTH = 50


@deconstructible
class GreaterThanValidator(BaseValidator):
    """Require a value greater than the limit. Django's MinValueValidator accepts the limit itself."""

    message = "Ensure this value is greater than %(limit_value)s."
    code = "greater_than"

    def compare(self, a: Any, b: Any) -> bool:
        return bool(a <= b)


def plain_json(value: Any, depth: int = MAX_JSON_DEPTH) -> Any:
    """Validate that both databases store the JSON value unchanged and that every client can parse it.

    Return the value with Decimals converted to floats.
    """
    if depth == 0 and isinstance(value, (dict, list)):
        raise ValidationError(f"Ensure this value is nested no deeper than {MAX_JSON_DEPTH} levels.", code="depth")
    match value:
        case dict():
            return {plain_json(key): plain_json(item, depth - 1) for key, item in value.items()}
        case list():
            return [plain_json(item, depth - 1) for item in value]
        case str():
            _refuse_unstorable_text(value)
        case bool():
            return value
        case int() | float() | Decimal():
            return _json_number(value)
    return value


def _refuse_unstorable_text(text: str) -> None:
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise ValidationError("Ensure its texts have no NUL and no lone surrogates.", code="text")


def _json_number(number: Any) -> int | float:
    # PostgreSQL returns 1e30 as an integer with all its digits, and many clients read only 64 bits.
    if not math.isfinite(number) or abs(number) > BIGINT_MAX:
        raise ValidationError(f"Ensure its numbers are from -{BIGINT_MAX} to {BIGINT_MAX}.", code="number")
    return float(number) if isinstance(number, Decimal) else number
