"""JSON Schema keywords and examples of serializer, form and filter fields, derived from the fields themselves.

OpenAPI 3.0 uses the keywords of draft 5: `exclusiveMinimum` and `exclusiveMaximum` are booleans.
"""

from decimal import Decimal
from typing import Any

from django.core import validators

from records.db.validators import BIGINT_MAX, GreaterThanValidator

INT32_MAX = 2**31 - 1

INT64 = {"type": "integer", "format": "int64"}

#: Characters that no text may contain: PostgreSQL cannot store NUL.
NUL = r"\u0000"

#: Invalid UTF-8 in a query string is decoded as U+FFFD and refused.
NOT_IN_QUERIES = NUL + r"\ufffd"


def id_schema(model: Any) -> dict[str, Any]:
    """Return the schema of the ids of `model`."""
    if model._meta.pk.get_internal_type() == "UUIDField":
        return {"type": "string", "format": "uuid"}
    return INT64 | {"minimum": 1}


def describe_bounds(schema: dict[str, Any], field: Any) -> None:
    """Add the bounds of a number that its field and validators accept."""
    is_integer = schema.get("type") == "integer"
    for key in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"):
        schema.pop(key, None)
    low, high = _bounds(field, is_integer=is_integer)
    if low:
        limit, is_exclusive = max(low)
        schema |= {"minimum": _number(limit)} | ({"exclusiveMinimum": True} if is_exclusive else {})
    if high:
        limit, is_exclusive = min(high, key=lambda bound: (bound[0], not bound[1]))
        schema |= {"maximum": _number(limit)} | ({"exclusiveMaximum": True} if is_exclusive else {})
    if (places := getattr(field, "decimal_places", None)) is not None:
        schema["multipleOf"] = _number(Decimal(1).scaleb(-places))


#: A limit, and whether it is exclusive.
Bound = tuple[Any, bool]


def _bounds(field: Any, *, is_integer: bool) -> tuple[list[Bound], list[Bound]]:
    """Return all lower and all upper bounds of a number."""
    low: list[Bound] = [(field.min_value, False)] if getattr(field, "min_value", None) is not None else []
    high: list[Bound] = [(field.max_value, False)] if getattr(field, "max_value", None) is not None else []
    for validator in field.validators:
        limit: Any = getattr(validator, "limit_value", None)
        limit = limit() if callable(limit) else limit
        if isinstance(validator, GreaterThanValidator):
            low.append((limit + 1, False) if is_integer else (limit, True))
        elif isinstance(validator, validators.MinValueValidator):
            low.append((limit, False))
        elif isinstance(validator, validators.MaxValueValidator):
            high.append((limit, False))
    if (bound := _digits_bound(field)) is not None:
        high.append((bound, True))
        low.append((-bound, True))
    return low, high


def _digits_bound(field: Any) -> int | None:
    """Return the exclusive bound of a decimal field: clients represent a power of ten exactly, not 99999999999.9999."""
    digits, places = getattr(field, "max_digits", None), getattr(field, "decimal_places", None)
    if digits is None or places is None:
        return None
    bound: int = 10 ** (digits - places)
    return bound


def _number(limit: Any) -> int | float:
    return int(limit) if limit == int(limit) else float(limit)


def relax_for_responses(schema: dict[str, Any]) -> None:
    """Remove keywords that do not help to read a number.

    Validators that divide doubles find that 0.0003 is not a multiple of 0.0001. The bounds of int64 are implied.
    """
    schema.pop("multipleOf", None)
    if schema.get("type") != "integer":
        return
    if schema.get("minimum", -BIGINT_MAX) < -INT32_MAX:
        schema.pop("minimum", None)
    if schema.get("maximum", BIGINT_MAX) > INT32_MAX:
        schema.pop("maximum", None)


def add_integer_format(schema: dict[str, Any]) -> None:
    """Add the format int64 to integers that may not fit into 32 bits."""
    if schema.get("type") == "integer":
        is_small = schema.get("minimum", -BIGINT_MAX) >= -INT32_MAX and schema.get("maximum", BIGINT_MAX) <= INT32_MAX
        schema.pop("format", None)
        schema |= {} if is_small else {"format": "int64"}


def describe_lengths(schema: dict[str, Any], field: Any) -> None:
    """Add the shortest and longest text that the field accepts."""
    for validator in field.validators:
        limit: Any = getattr(validator, "limit_value", None)
        if isinstance(validator, validators.MaxLengthValidator):
            schema["maxLength"] = min(limit, schema.get("maxLength", limit))
        elif isinstance(validator, validators.MinLengthValidator):
            schema["minLength"] = max(limit, schema.get("minLength", limit))


def describe_size(schema: dict[str, Any], field: Any) -> None:
    """Add the number of items or properties that the field accepts."""
    noun = "Items" if schema["type"] == "array" else "Properties"
    for validator in field.validators:
        if isinstance(validator, validators.MaxLengthValidator):
            schema[f"max{noun}"] = validator.limit_value
        elif isinstance(validator, validators.MinLengthValidator):
            schema[f"min{noun}"] = validator.limit_value
    if getattr(field, "allow_empty", True) is False:
        schema[f"min{noun}"] = max(1, schema.get(f"min{noun}", 1))


def filter_schema(declared: Any) -> dict[str, Any]:
    """Return the schema of the query parameter of a filter, from its form field."""
    field: Any = declared.field
    schema = dict(getattr(declared, "schema", {"type": "string"}))
    if "choices" in declared.extra:
        return schema | {"enum": [value for value, _ in declared.extra["choices"]]}
    if schema["type"] in {"integer", "number"}:
        describe_bounds(schema, field)
    elif schema["type"] == "string" and "format" not in schema:
        describe_lengths(schema, field)
        schema |= {"minLength": 1, "pattern": f"^[^{NOT_IN_QUERIES}]*$"}
    add_integer_format(schema)
    return schema
