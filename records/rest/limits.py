"""JSON Schema keywords and examples of serializer, form and filter fields, derived from the fields themselves.

OpenAPI 3.0 takes JSON Schema's keywords from draft 5: `exclusiveMinimum` and `exclusiveMaximum` are booleans.
"""

import re
from decimal import Decimal
from typing import Any

from django.core import validators
from rest_framework import exceptions, serializers

from records.db.text import DocumentedValidator
from records.db.validators import BIGINT_MAX, GreaterThanValidator

INT32_MAX = 2**31 - 1
INT64 = {"type": "integer", "format": "int64"}
#: Characters that no text of a request may have: PostgreSQL stores no NUL.
NUL = r"\u0000"
#: In a query, a byte sequence that is not UTF-8 arrives as U+FFFD and is refused.
NOT_IN_QUERIES = NUL + r"\ufffd"


def row_id(model: Any) -> dict[str, Any]:
    """Return the schema of the ids of `model`."""
    if model._meta.pk.get_internal_type() == "UUIDField":
        return {"type": "string", "format": "uuid"}
    return INT64 | {"minimum": 1}


# Numbers


def bounds(schema: dict[str, Any], field: Any) -> None:
    """Add to the schema of a number what its field and the validators of that accept."""
    is_integer = schema.get("type") == "integer"
    for key in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"):
        schema.pop(key, None)
    low: list[tuple[Any, bool]] = [(field.min_value, False)] if getattr(field, "min_value", None) is not None else []
    high: list[tuple[Any, bool]] = [(field.max_value, False)] if getattr(field, "max_value", None) is not None else []
    for validator in field.validators:
        limit: Any = getattr(validator, "limit_value", None)
        limit = limit() if callable(limit) else limit
        if isinstance(validator, GreaterThanValidator):
            low.append((limit + 1, False) if is_integer else (limit, True))
        elif isinstance(validator, validators.MinValueValidator):
            low.append((limit, False))
        elif isinstance(validator, validators.MaxValueValidator):
            high.append((limit, False))
    digits, places = getattr(field, "max_digits", None), getattr(field, "decimal_places", None)
    if digits is not None and places is not None:
        # A power of ten is exact in every client, which 99999999999.9999 is not.
        high.append((10 ** (digits - places), True))
        low.append((-(10 ** (digits - places)), True))
    if low:
        limit, is_exclusive = max(low)
        schema |= {"minimum": _number(limit)} | ({"exclusiveMinimum": True} if is_exclusive else {})
    if high:
        limit, is_exclusive = min(high, key=lambda bound: (bound[0], not bound[1]))
        schema |= {"maximum": _number(limit)} | ({"exclusiveMaximum": True} if is_exclusive else {})
    if places is not None:
        schema["multipleOf"] = _number(Decimal(1).scaleb(-places))


def _number(limit: Any) -> int | float:
    return int(limit) if limit == int(limit) else float(limit)


def as_answer(schema: dict[str, Any]) -> None:
    """Keep of a number's limits what helps to read it.

    Naive validators divide doubles: they find that 0.0003 is no multiple of 0.0001. And the bounds of an int64 go
    without saying.
    """
    schema.pop("multipleOf", None)
    if schema.get("type") != "integer":
        return
    if schema.get("minimum", -BIGINT_MAX) < -INT32_MAX:
        schema.pop("minimum", None)
    if schema.get("maximum", BIGINT_MAX) > INT32_MAX:
        schema.pop("maximum", None)


def with_format(schema: dict[str, Any]) -> None:
    """Call integers int64 that may not fit into 32 bits."""
    if schema.get("type") == "integer":
        is_small = schema.get("minimum", -BIGINT_MAX) >= -INT32_MAX and schema.get("maximum", BIGINT_MAX) <= INT32_MAX
        schema.pop("format", None)
        schema |= {} if is_small else {"format": "int64"}


# Texts


def _ecma(regex: str) -> str:
    return regex.replace(r"\Z", "$").replace(r"\A", "^")


def _is_whole(regex: str) -> bool:
    """Return whether the regex describes the text from its first character to its last."""
    return regex.startswith("^") and regex.endswith("$") and "|" not in re.sub(r"\[[^]]*\]|\([^()]*\)", "", regex)


def _regexes(field: Any) -> tuple[list[str], str, list[str]]:
    """Return what a field's texts match, the characters that they may not have, and what else they may not match."""
    required, characters, forbidden = [], "", []
    for validator in field.validators:
        if any(_documents_more(other, validator) for other in field.validators):
            continue
        if not isinstance(validator, validators.RegexValidator) or isinstance(validator, validators.URLValidator):
            continue
        compiled: Any = validator.regex
        regex = _ecma(compiled.pattern)
        if not validator.inverse_match:
            required.append(regex)
        elif one_of := re.fullmatch(r"\[([^\]^](?:[^\]\\]|\\.)*)\]", regex):
            characters += one_of[1]
        else:
            forbidden.append(regex)
    return list(dict.fromkeys(required)), characters, forbidden


def _documents_more(validator: Any, other: Any) -> bool:
    """Return whether `validator` documents all that `other` does: its class is derived from that of the other."""
    is_derived = type(validator) is not type(other) and isinstance(validator, type(other))
    return is_derived and isinstance(other, DocumentedValidator)


def pattern(field: Any, *, may_be_blank: bool = True) -> str:
    """Return the one regex of all that the field's validators demand, and of what no text may have."""
    required, characters, forbidden = _regexes(field)
    main = next((regex for regex in required if _is_whole(regex)), None)
    others = [regex for regex in required if regex != main]
    if main is None:
        refused = characters + NUL
        # What is trimmed must have something that is not blank; control characters are blank to some languages.
        main = f"^[^{refused}]*$" if may_be_blank else rf"^[^{refused}]*[^\s{refused}][^{refused}]*$"
    elif characters:
        forbidden.append(f"[{characters}]")
    ahead = [f"(?={regex[1:]})" if _is_whole(regex) else rf"(?=[\s\S]*(?:{regex}))" for regex in others]
    ahead += [rf"(?![\s\S]*(?:{regex}))" for regex in forbidden]
    return f"^{''.join(ahead)}{main[1:]}"


def lengths(schema: dict[str, Any], field: Any) -> None:
    """Add how short and how long the field's text may be."""
    for validator in field.validators:
        limit: Any = getattr(validator, "limit_value", None)
        if isinstance(validator, validators.MaxLengthValidator):
            schema["maxLength"] = min(limit, schema.get("maxLength", limit))
        elif isinstance(validator, validators.MinLengthValidator):
            schema["minLength"] = max(limit, schema.get("minLength", limit))


def text(schema: dict[str, Any], field: Any, *, is_request: bool) -> None:
    """Add to the schema of a serializer's text field what it accepts, but for the blanks that it trims."""
    lengths(schema, field)
    if not is_request:
        return
    may_be_blank = getattr(field, "allow_blank", True)
    trims = getattr(field, "trim_whitespace", False)
    described = _regexes(field) != ([], "", [])
    if not described and schema.get("format"):
        return
    regex = pattern(field, may_be_blank=may_be_blank or not trims)
    if may_be_blank and isinstance(field, serializers.CharField) and (described or "minLength" in schema):
        shortest = schema.pop("minLength", 0)
        regex = f"^$|{regex}" if shortest < 2 else rf"^$|^(?=[\s\S]{{{shortest},}}){regex[1:]}"
    schema["pattern"] = regex


# Lists and objects


def sizes(schema: dict[str, Any], field: Any) -> None:
    """Add how many items or properties the field takes."""
    noun = "Items" if schema["type"] == "array" else "Properties"
    for validator in field.validators:
        if isinstance(validator, validators.MaxLengthValidator):
            schema[f"max{noun}"] = validator.limit_value
        elif isinstance(validator, validators.MinLengthValidator):
            schema[f"min{noun}"] = validator.limit_value
    if getattr(field, "allow_empty", True) is False:
        schema[f"min{noun}"] = max(1, schema.get(f"min{noun}", 1))


# Query parameters


def of_filter(each: Any) -> dict[str, Any]:
    """Return the schema of a filter's parameter, from its form field."""
    field: Any = each.field
    schema = dict(getattr(each, "schema", {"type": "string"}))
    if "choices" in each.extra:
        return schema | {"enum": [value for value, _ in each.extra["choices"]]}
    if schema["type"] in {"integer", "number"}:
        bounds(schema, field)
    elif schema["type"] == "string" and "format" not in schema:
        lengths(schema, field)
        schema |= {"minLength": 1, "pattern": f"^[^{NOT_IN_QUERIES}]*$"}
    with_format(schema)
    return schema


# Examples

_TYPICAL: list[tuple[type[serializers.Field], Any]] = [
    (serializers.BooleanField, True),
    (serializers.UUIDField, "0199a8b2-6c1e-7d0a-9b3f-5f0c8e7d6a42"),
    (serializers.DateTimeField, "2026-10-01T12:00:00Z"),
    (serializers.DateField, "2026-10-01"),
    (serializers.EmailField, "jane@example.com"),
    (serializers.URLField, "https://example.com/"),
    (serializers.IPAddressField, "192.0.2.1"),
]


def example(field: serializers.Field) -> Any:
    """Return a value that the field accepts, or None where only a person could say one."""
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
    bounds(schema, field)
    limits = [schema[key] for key in ("maximum", "minimum") if key in schema]
    return _first_accepted(field, [1, 10, 100, *limits, 0])


def _example_text(field: Any) -> Any:
    return _first_accepted(field, ["Example", "example", "EXAMPLE", "Ex", "EX", "E", "e", "1", "12345678"])
