"""Serializer fields that accept exactly what the database stores."""

import json
import math
from typing import Any

from rest_framework import serializers
from rest_framework.exceptions import ValidationError

from records.db.text import normalize_text
from records.db.validators import BIGINT_MAX, plain_json


class AsciiDigitsMixin:
    """Refuse `1_0` and `١٠`, which Python reads as 10."""

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, str) and ("_" in data or not data.isascii()):
            self.fail("invalid")  # type: ignore[attr-defined]
        return super().to_internal_value(data)  # type: ignore[misc]


class IntegerField(AsciiDigitsMixin, serializers.IntegerField):
    pass


class DecimalField(AsciiDigitsMixin, serializers.DecimalField):
    pass


class BigIntegerField(IntegerField):
    """An integer that fits into a 64-bit column."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"min_value": -BIGINT_MAX - 1, "max_value": BIGINT_MAX} | options)


class FloatField(AsciiDigitsMixin, serializers.FloatField):
    """A finite number; DRF would accept `true` as 1.0."""

    def to_internal_value(self, data: Any) -> float:
        number: float = math.nan if isinstance(data, bool) else super().to_internal_value(data)
        if not math.isfinite(number):
            self.fail("invalid")
        return number


class UUIDField(serializers.UUIDField):
    """A UUID as a string; DRF would accept a number too."""

    def to_internal_value(self, data: Any) -> Any:
        if not isinstance(data, str):
            self.fail("invalid", value=data)
        return super().to_internal_value(data)


class TextField(serializers.CharField):
    """Text, converted to NFC as it is stored."""

    def to_internal_value(self, data: Any) -> Any:
        return normalize_text(super().to_internal_value(data))


class JSONField(serializers.JSONField):
    def to_internal_value(self, data: Any) -> Any:
        if getattr(data, "is_json_string", False):  # from an HTML form
            try:
                data = json.loads(data)
            except (ValueError, RecursionError):
                self.fail("invalid")
        return plain_json(data)


class DictField(serializers.DictField):
    """A mapping whose size is checked before its values."""

    def __init__(self, *, max_length: int, **options: Any) -> None:
        self.max_length = max_length
        super().__init__(**options)

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, dict) and len(data) > self.max_length:
            raise ValidationError(f"Ensure there are no more than {self.max_length:,} entries.")
        return super().to_internal_value(data)
