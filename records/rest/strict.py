"""Serializers that accept only the fields that they declare, and only the JSON types that they describe."""

from decimal import Decimal
from typing import Any

from rest_framework import serializers
from rest_framework.exceptions import ErrorDetail, ValidationError
from rest_framework.settings import api_settings
from rest_framework.utils import html

from records.http.hints import MAX_ERRORS, MAX_HINTS, did_you_mean, excerpt

#: Fields that Django's own form adds to every submission.
FORM_FIELDS = {"csrfmiddlewaretoken"}
NON_FIELD_ERRORS_KEY = api_settings.NON_FIELD_ERRORS_KEY

#: JSON type of fields for which DRF would convert other types.
_JSON_TYPES: dict[type[serializers.Field[Any, Any, Any, Any]], type] = {
    serializers.CharField: str,
    serializers.BooleanField: bool,
}
_JSON_TYPE_NAMES = {
    list: "a list",
    str: "a text",
    bool: "a truth value",
    int: "a number",
    Decimal: "a number",
    type(None): "null",
}


def object_expected(data: Any) -> str:
    """Return the message for a JSON value where an object is required."""
    return f"An object is expected, not {_JSON_TYPE_NAMES.get(type(data), 'something else')}."


class StrictFieldsMixin:
    """Refuse unknown fields, read-only fields and wrong JSON types, together with all other errors."""

    def to_internal_value(self, data: Any) -> Any:
        if not isinstance(data, dict):
            raise ValidationError({NON_FIELD_ERRORS_KEY: [object_expected(data)]})
        errors = self._unexpected_fields(data) | self._wrong_types(data)
        try:
            value = super().to_internal_value(data)  # type: ignore[misc]
        except ValidationError as error:
            raise ValidationError(errors | error.detail) from None  # type: ignore[operator]
        if errors:
            raise ValidationError(errors)
        return value

    def _wrong_types(self, data: dict[str, Any]) -> dict[str, list[Any]]:
        """Return errors for values of other JSON types: DRF would accept 0 as false and a number as a string."""
        if html.is_html_input(data):
            return {}  # forms have strings only
        errors: dict[str, Any] = {}
        for name, field in self.fields.items():  # type: ignore[attr-defined]
            json_type = next((kind for base, kind in _JSON_TYPES.items() if isinstance(field, base)), None)
            value = data.get(name)
            if json_type is None or value is None or field.read_only or isinstance(value, json_type):
                continue
            try:
                field.fail("invalid", input=value)
            except ValidationError as error:
                errors[name] = error.detail
        return errors

    def _unexpected_fields(self, data: dict[str, Any]) -> dict[str, list[ErrorDetail]]:
        fields: dict[str, Any] = self.fields  # type: ignore[attr-defined]
        writable = {name for name, field in fields.items() if not field.read_only}
        unexpected = [name for name in data if name not in writable and name not in FORM_FIELDS]
        errors = {}
        for name in unexpected[:MAX_ERRORS]:
            if name in fields:
                errors[name] = [ErrorDetail("This field is read-only.", code="read_only")]
            else:
                text = f"Unknown field.{self._hint(str(name), writable)}"
                errors[excerpt(str(name))] = [ErrorDetail(text, code="unknown")]
        if len(unexpected) > MAX_ERRORS:
            text = f"{len(unexpected):,} fields are unknown or read-only; the first {MAX_ERRORS} are listed."
            errors[NON_FIELD_ERRORS_KEY] = [ErrorDetail(text, code="unknown")]
        return errors

    def _hint(self, name: str, known: set[str]) -> str:
        """Return a suggestion for an unknown name, for the first MAX_HINTS names of all rows that are validated."""
        hints: dict[str, str] = self.__dict__.setdefault("_hints", {})
        if name not in hints and len(hints) < MAX_HINTS:
            hints[name] = did_you_mean(name, known)
        return hints.get(name, "")


class StrictSerializer(StrictFieldsMixin, serializers.Serializer[Any]):
    """A request body that is not a stored row."""
