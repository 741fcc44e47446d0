"""Forms of the admin that change what was typed, and nothing else."""

import re
from collections.abc import Hashable
from datetime import datetime, time
from typing import Any, ClassVar

from django import forms
from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import Q
from django.forms.widgets import Input
from django.utils.functional import cached_property

from records.models import SoftDeletable


class JSONField(forms.JSONField):
    """A field for any JSON: empty objects, lists and texts are values too."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.empty_values = [None]

    def to_python(self, value: Any) -> Any:
        is_blank = isinstance(value, str) and not value
        return None if is_blank else super().to_python(value)


def form_class_of(db_field: models.Field) -> dict[str, Any]:
    """Return the form field of a column as a keyword argument, if Django's own would not take every value of it."""
    return {"form_class": JSONField} if isinstance(db_field, models.JSONField) else {}


def adapted(db_field: models.Field, field: Any) -> Any:
    """Adapt the form field of a column, where it would not keep every value of it."""
    if isinstance(field, forms.CharField) and db_field.null:
        field.empty_value = None  # as Django has it for CharField, but not for TextField
    return field


def _newlines(text: str) -> str:
    return re.sub(r"\r\n?", "\n", text)


class RecordForm(forms.ModelForm):
    """A form whose untouched fields keep exactly what is stored.

    A page cannot hold every value: browsers send other line breaks than they were given, and inputs have no
    microseconds. A field counts as touched only if it was sent otherwise than its stored value is shown.
    """

    #: Why the database refused what was sent, by field: shown where the checks still find nothing wrong.
    refusal: ClassVar[dict[str, list[str]] | None] = None
    _kept: frozenset[str] | set[str] = frozenset()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name, field in self.fields.items():
            if isinstance(field, forms.ModelChoiceField) and isinstance(key := self.initial.get(name), Hashable):
                self._keep_choice(field, key)

    def _keep_choice(self, field: Any, key: Any) -> None:
        """Leave a row that is deleted among the choices of the one that refers to it."""
        model = field.queryset.model
        if key is not None and issubclass(model, SoftDeletable) and not self.instance._state.adding:
            field.queryset = model.all_objects.filter(Q(deleted_at=None) | Q(pk=key))

    def full_clean(self) -> None:
        if self.is_bound:
            self._normalize_newlines()
        super().full_clean()

    @cached_property
    def changed_data(self) -> list[str]:  # type: ignore[override]
        return [name for name in super().changed_data if not self._is_untouched(name)]

    def _post_clean(self) -> None:
        untouched = {} if self.instance._state.adding else self._untouched()
        self.cleaned_data |= untouched
        self._kept = set(untouched)
        super()._post_clean()  # type: ignore[misc]
        for name, stored in untouched.items():
            setattr(self.instance, name, stored)  # also where the model's clean() has a better spelling for it
        if self.refusal and not self.errors and self.has_changed():
            for name, texts in self.refusal.items():
                self.add_error(name if name in self.fields else None, texts)  # type: ignore[arg-type]

    def _get_validation_exclusions(self) -> set[str]:
        # A rule may be younger than a row, and what nobody touched is not for this form to mend.
        # And a required column of Django's refuses {} and [].
        json = {name for name, field in self.fields.items() if isinstance(field, JSONField)}
        empty = {name for name in json & self.cleaned_data.keys() if self.cleaned_data[name] in ({}, [], "")}
        return super()._get_validation_exclusions() | self._kept | empty  # type: ignore[misc]

    def validate_unique(self) -> None:
        self._kept = set()  # a constraint may be about touched and untouched fields together
        super().validate_unique()

    def _untouched(self) -> dict[str, Any]:
        """Field → stored value, of the columns that nobody touched."""
        columns = {field.name for field in self.instance._meta.concrete_fields if not field.is_relation}
        names = columns & self.cleaned_data.keys() & self.initial.keys() - set(self.changed_data)
        return {name: self.initial[name] for name in names}

    def _is_untouched(self, name: str) -> bool:
        field = self.fields[name]
        if self.instance._state.adding or name not in self.initial or isinstance(field, forms.ModelChoiceField):
            return False
        try:
            sent = field.clean(self[name].data)
            return _flat(field, sent) == _flat(field, _shown(field, self.initial[name]))
        except ValidationError:
            return False

    def _normalize_newlines(self) -> None:
        """Take back what browsers do to a line break; a text is not longer for it than it was."""
        data: Any = self.data.copy()  # type: ignore[attr-defined]
        for name, field in self.fields.items():
            key = self.add_prefix(name)
            if isinstance(field.widget, forms.Textarea) and (text := data.get(key)):
                data[key] = _newlines(text)
        self.data = data


def _shown(field: forms.Field, stored: Any) -> Any:
    """Return what the page's input for a stored value means when it comes back as it is."""
    value = field.prepare_value(stored)
    if isinstance(value, (datetime, time)) and not field.widget.supports_microseconds:
        return value.replace(microsecond=0)
    return field.to_python(_newlines(value) if isinstance(value, str) else value)


def _flat(field: forms.Field, value: Any) -> Any:
    """Return the value as an input of one line can hold it: browsers take line breaks out of it."""
    is_line = isinstance(value, str) and isinstance(field.widget, Input)
    return re.sub(r"[\r\n]", "", value).strip() if is_line else value
