"""Forms of the admin that change only the fields that the user edited."""

from collections.abc import Hashable
from typing import Any, ClassVar

from django import forms
from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import Q
from django.utils.functional import cached_property

from records.admin.form_values import displayed_value, newlines_as_lf, submitted_value
from records.admin.versions import VersionedForm
from records.models import SoftDeletable


class JSONField(forms.JSONField):
    """Accept every JSON value, including empty objects, lists and strings."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.empty_values = [None]

    def to_python(self, value: Any) -> Any:
        is_blank = isinstance(value, str) and not value
        return None if is_blank else super().to_python(value)


def form_class_kwargs(db_field: "models.Field[Any, Any]") -> dict[str, Any]:
    """Return the `form_class` argument for a column whose default form field would refuse valid values."""
    return {"form_class": JSONField} if isinstance(db_field, models.JSONField) else {}


def preserve_empty_values(db_field: "models.Field[Any, Any]", field: Any) -> Any:
    """Store null for an empty input of a nullable text column. Django does so for CharField, not for TextField."""
    if isinstance(field, forms.CharField) and db_field.null:
        field.empty_value = None
    return field


class RecordForm(VersionedForm):
    """A form that leaves untouched fields exactly as they are stored.

    A page cannot represent every value: browsers normalize line breaks, and inputs drop microseconds. A field counts as
    touched only if the submitted value differs from the displayed one.
    """

    #: Messages of the database by field, after another request won a race. Used if the repeated validation finds no
    #: error.
    conflict: ClassVar[dict[str, list[str]] | None] = None
    #: Fields that the validation of the model skips.
    _untouched_names: frozenset[str] | set[str] = frozenset()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name, field in self.fields.items():
            if isinstance(field, forms.ModelChoiceField) and isinstance(key := self.initial.get(name), Hashable):
                self._offer_current_choice(field, key)

    def _offer_current_choice(self, field: Any, key: Any) -> None:
        """Add the referenced row to the choices even if it is deleted."""
        model = field.queryset.model
        if key is not None and issubclass(model, SoftDeletable) and not self.instance._state.adding:
            field.queryset = model.all_objects.filter(Q(deleted_at=None) | Q(pk=key))

    def full_clean(self) -> None:
        if self.is_bound:
            self._normalize_newlines()
        super().full_clean()

    @cached_property
    def changed_data(self) -> list[str]:
        changed = [name for name in super().changed_data if not self._is_untouched(name)]
        return [name for name in changed if self.is_edited(name)] if self.is_stale else changed

    def _post_clean(self) -> None:
        if self.refuse_if_stale():
            return
        untouched = {} if self.instance._state.adding else self._untouched_values()
        self.cleaned_data |= untouched
        self._untouched_names = set(untouched)
        super()._post_clean()  # type: ignore[misc]
        for name, value in untouched.items():
            setattr(self.instance, name, value)  # the model's clean() may have normalized it
        if self.conflict and not self.errors and self.has_changed():
            for name, texts in self.conflict.items():
                self.add_error(name if name in self.fields else None, texts)

    def _get_validation_exclusions(self) -> set[str]:
        # An untouched value may be older than a rule that it violates. Django refuses {} and [] in required JSON
        # columns.
        json_names = {name for name, field in self.fields.items() if isinstance(field, JSONField)}
        submitted = json_names & self.cleaned_data.keys()
        empty = {name for name in submitted if self.cleaned_data[name] in ({}, [], "")}
        exclusions: set[str] = super()._get_validation_exclusions()  # type: ignore[misc]
        return exclusions | self._untouched_names | empty

    def validate_unique(self) -> None:
        self._untouched_names = set()  # a constraint may combine touched and untouched fields
        super().validate_unique()

    def _untouched_values(self) -> dict[str, Any]:
        """Return the stored values of the untouched columns by field name."""
        columns = {field.name for field in self.instance._meta.concrete_fields if not field.is_relation}
        names = columns & self.cleaned_data.keys() & self.initial.keys() - set(self.changed_data)
        return {name: self.initial[name] for name in names}

    def _is_untouched(self, name: str) -> bool:
        field = self.fields[name]
        if self.instance._state.adding or name not in self.initial or isinstance(field, forms.ModelChoiceField):
            return False
        try:
            return bool(submitted_value(self[name]) == displayed_value(field, self.initial[name]))
        except ValidationError:
            return False

    def _normalize_newlines(self) -> None:
        """Replace the CRLF that browsers submit by LF, before the length of the text is checked."""
        data: Any = self.data.copy()  # type: ignore[attr-defined]
        for name, field in self.fields.items():
            key = self.add_prefix(name)
            if isinstance(field.widget, forms.Textarea) and (text := data.get(key)):
                data[key] = newlines_as_lf(text)
        self.data = data
