"""The values of form fields, in a form in which a displayed and a submitted value can be compared."""

import json
import re
from datetime import datetime, time
from hashlib import blake2b
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.forms.widgets import Input

from records.models.values import as_json

DIGEST_SIZE = 9


def newlines_as_lf(text: str) -> str:
    return re.sub(r"\r\n?", "\n", text)


def displayed_value(field: forms.Field, stored: Any) -> Any:
    """Return the value that an unedited input submits for a stored value; ValidationError if it submits none."""
    if isinstance(field, forms.ModelChoiceField):
        return _keys(field, stored)
    value = field.prepare_value(stored)
    if isinstance(value, (datetime, time)) and not field.widget.supports_microseconds:
        return value.replace(microsecond=0)
    return _as_single_line(field, field.to_python(newlines_as_lf(value) if isinstance(value, str) else value))


def submitted_value(bound_field: Any) -> Any:
    """Return the value that was submitted for a field; ValidationError if it is invalid."""
    field = bound_field.field
    if isinstance(field, forms.ModelChoiceField):
        return _keys(field, bound_field.data)
    return _as_single_line(field, field.clean(bound_field.data))


def digest(value: Any) -> str:
    """Return a short text that differs for different values."""
    text = json.dumps(as_json(value), sort_keys=True, default=str)
    return blake2b(text.encode(), digest_size=DIGEST_SIZE).hexdigest()


def digest_of_stored(field: forms.Field, stored: Any) -> str:
    try:
        return digest(displayed_value(field, stored))
    except ValidationError:
        return ""


def _keys(field: Any, value: Any) -> Any:
    """Return the keys of the chosen rows as text: comparing them needs no query."""
    prepared = field.prepare_value(value)
    if isinstance(field, forms.ModelMultipleChoiceField):
        return sorted(str(key) for key in prepared or ())
    return "" if prepared is None else str(prepared)


def _as_single_line(field: forms.Field, value: Any) -> Any:
    """Remove the line breaks from the value of a single-line input, as browsers do."""
    is_single_line = isinstance(value, str) and isinstance(field.widget, Input)
    return re.sub(r"[\r\n]", "", value).strip() if is_single_line else value
