"""Examples of field values."""

from typing import Any, TypeAlias

from rest_framework import exceptions, serializers

from records.rest.schema.keywords import describe_bounds

Field: TypeAlias = "serializers.Field[Any, Any, Any, Any]"

_TYPICAL: list[tuple[type[Field], Any]] = [
    (serializers.BooleanField, True),
    (serializers.UUIDField, "0199a8b2-6c1e-7d0a-9b3f-5f0c8e7d6a42"),
    (serializers.DateTimeField, "2026-10-01T12:00:00Z"),
    (serializers.DateField, "2026-10-01"),
    (serializers.EmailField, "jane@example.com"),
    (serializers.URLField, "https://example.com/"),
    (serializers.IPAddressField, "192.0.2.1"),
]


def example_of(field: Field) -> Any:
    """Return a value that the field accepts, or None if none can be derived."""
    if isinstance(field, serializers.ChoiceField):
        return next((value for value in field.choices if value not in ("", None)), None)
    for kind, value in _TYPICAL:
        if isinstance(field, kind):
            return value
    if isinstance(field, (serializers.IntegerField, serializers.DecimalField, serializers.FloatField)):
        return _example_number(field)
    if isinstance(field, serializers.CharField):
        return _example_text(field)
    return None


def _first_accepted(field: Any, candidates: list[Any]) -> Any:
    for candidate in candidates:
        try:
            field.run_validators(field.to_internal_value(candidate))
        except (exceptions.ValidationError, TypeError):
            continue
        return candidate
    return None


def _example_number(field: Any) -> Any:
    schema = {"type": "integer" if isinstance(field, serializers.IntegerField) else "number"}
    describe_bounds(schema, field)
    limits = [schema[key] for key in ("maximum", "minimum") if key in schema]
    return _first_accepted(field, [1, 10, 100, *limits, 0])


def _example_text(field: Any) -> Any:
    return _first_accepted(field, ["Example", "example", "EXAMPLE", "Ex", "EX", "E", "e", "1", "12345678"])
