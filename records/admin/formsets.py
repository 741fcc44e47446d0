"""Rows that are edited together, in a list or in an inline: each is checked for changes by others."""

from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.forms.models import BaseInlineFormSet, BaseModelFormSet
from django.utils.functional import cached_property
from django.utils.html import format_html
from django.utils.safestring import SafeString

from records.admin.versions import CONFLICT, OPENED, LogPosition
from records.models import Record

REFUSED = (
    "Nothing was saved, because {count} {rows} below {verb} changed after the page was opened. Your input is kept. "
    'Save again to overwrite what is stored now, or <a href="">discard your input</a>.'
)


class VersionedFormSet(BaseModelFormSet):  # type: ignore[type-arg]
    """Save all rows or none: none if one of the edited rows has changed since the page was opened."""

    model: Any
    initial_forms: Any

    @cached_property
    def log_position(self) -> LogPosition:
        return LogPosition()

    def get_queryset(self) -> Any:
        if self.is_bound and not hasattr(self, "_queryset"):
            self.queryset = self._submitted_rows()
        return super().get_queryset()

    def _submitted_rows(self) -> QuerySet[Any]:
        """Return the rows that the request names, locked until its transaction ends."""
        key = self.model._meta.pk
        names = (f"{self.add_prefix(index)}-{key.name}" for index in range(self.initial_form_count()))
        keys = {self._key(self.data[name]) for name in names if name in self.data}
        base: Any = self.queryset if self.queryset is not None else self.model._default_manager.all()
        rows: QuerySet[Any] = base.filter(pk__in=keys - {None})
        # In the order of keys, so that concurrent requests wait instead of deadlocking.
        len(rows.order_by("pk").select_for_update(no_key=True, of=("self",)).values_list("pk"))
        return rows

    def _key(self, text: Any) -> Any:
        try:
            return self._get_to_python(self.model._meta.pk)(text)  # type: ignore[attr-defined]
        except ValidationError:
            return None

    def add_fields(self, form: Any, index: int | None) -> None:
        super().add_fields(form, index)
        form.is_row = True
        form.log_position = self.log_position
        key = form.fields[self.model._meta.pk.name]
        if issubclass(self.model, Record) and isinstance(key, forms.ModelChoiceField):
            key.queryset = self.model._base_manager.all()  # deleted rows can be edited too
        if OPENED in form.fields:
            key.widget = KeyAndVersionInput(form)
        elif index is not None and index < self.initial_form_count():
            form.is_gone = True

    def clean(self) -> None:
        super().clean()
        count = sum(form.concurrent_change is not None for form in self.initial_forms)
        if count:
            words = {"rows": "rows", "verb": "were"} if count > 1 else {"rows": "row", "verb": "was"}
            raise ValidationError(format_html(REFUSED, count=count, **words), code=CONFLICT)


class VersionedInlineFormSet(VersionedFormSet, BaseInlineFormSet):  # type: ignore[type-arg]
    """The rows of an inline."""


class KeyAndVersionInput(forms.HiddenInput):
    """The hidden fields of a row: templates of lists and inlines render its key, and no other hidden field."""

    def __init__(self, form: Any) -> None:
        super().__init__()
        self.form = form

    def render(self, name: str, value: Any, attrs: Any = None, renderer: Any = None) -> SafeString:
        return super().render(name, value, attrs, renderer) + SafeString(self.form[OPENED])
