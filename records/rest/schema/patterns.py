"""Regular expressions of text fields, as `pattern` in JSON Schema."""

import re
from typing import Any

from django.core import validators
from rest_framework import serializers

from records.db.text import DocumentedValidator
from records.rest.schema.keywords import NUL, describe_lengths


def _ecma(regex: str) -> str:
    return regex.replace(r"\Z", "$").replace(r"\A", "^")


def _is_whole(regex: str) -> bool:
    """Return True if the regex matches whole texts only."""
    return regex.startswith("^") and regex.endswith("$") and "|" not in re.sub(r"\[[^]]*\]|\([^()]*\)", "", regex)


def _regexes(field: Any) -> tuple[list[str], str, list[str]]:
    """Return the regexes that a text must match, its forbidden characters, and the regexes that it must not match."""
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
        elif character_class := re.fullmatch(r"\[([^\]^](?:[^\]\\]|\\.)*)\]", regex):
            characters += character_class[1]
        else:
            forbidden.append(regex)
    return list(dict.fromkeys(required)), characters, forbidden


def _documents_more(validator: Any, other: Any) -> bool:
    """Return True if `validator` refines `other`, whose class it inherits from."""
    is_derived = type(validator) is not type(other) and isinstance(validator, type(other))
    return is_derived and isinstance(other, DocumentedValidator)


def pattern(field: Any, *, may_be_blank: bool = True) -> str:
    """Return one regex for everything that the validators of a field require and forbid."""
    required, characters, forbidden = _regexes(field)
    main = next((regex for regex in required if _is_whole(regex)), None)
    others = [regex for regex in required if regex != main]
    if main is None:
        main = _any_text(characters + NUL, may_be_blank=may_be_blank)
    elif characters:
        forbidden.append(f"[{characters}]")
    ahead = [f"(?={regex[1:]})" if _is_whole(regex) else rf"(?=[\s\S]*(?:{regex}))" for regex in others]
    ahead += [rf"(?![\s\S]*(?:{regex}))" for regex in forbidden]
    return f"^{''.join(ahead)}{main[1:]}"


def _any_text(refused: str, *, may_be_blank: bool) -> str:
    # Trimmed texts must contain a character that is not blank. Some languages count control characters as blank.
    return f"^[^{refused}]*$" if may_be_blank else rf"^[^{refused}]*[^\s{refused}][^{refused}]*$"


def describe_text(schema: dict[str, Any], field: Any, *, is_request: bool) -> None:
    """Add what a text field accepts, except for the blanks that it trims."""
    describe_lengths(schema, field)
    if not is_request:
        return
    may_be_blank = getattr(field, "allow_blank", True)
    trims = getattr(field, "trim_whitespace", False)
    is_described = _regexes(field) != ([], "", [])
    if not is_described and schema.get("format"):
        return
    regex = pattern(field, may_be_blank=may_be_blank or not trims)
    if may_be_blank and isinstance(field, serializers.CharField) and (is_described or "minLength" in schema):
        shortest = schema.pop("minLength", 0)
        regex = f"^$|{regex}" if shortest < 2 else rf"^$|^(?=[\s\S]{{{shortest},}}){regex[1:]}"
    schema["pattern"] = regex
