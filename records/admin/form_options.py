"""Options that the forms of a model and of its inlines share."""

from typing import Any, ClassVar

from django.contrib.admin.options import BaseModelAdmin
from django.contrib.admin.widgets import ForeignKeyRawIdWidget
from django.db import models
from django.http import HttpRequest

from records.admin.forms import RecordForm, form_class_kwargs, preserve_empty_values
from records.models import SoftDeletable


class FormOptions(BaseModelAdmin):  # type: ignore[type-arg]
    """Use forms that leave untouched fields unchanged and refuse to overwrite the changes of others."""

    form: Any = RecordForm

    def formfield_for_dbfield(self, db_field: Any, request: Any, **kwargs: Any) -> Any:
        field = super().formfield_for_dbfield(db_field, request, **form_class_kwargs(db_field) | kwargs)
        return preserve_empty_values(db_field, field)


class RecordOptions(FormOptions):
    """Display the columns of every record, and offer rows of other tables by search."""

    formfield_overrides: ClassVar[Any] = {models.URLField: {"assume_scheme": "https"}}
    record_fields: tuple[str, ...] = ("created_at", "updated_at", "version")
    deletion_fields: tuple[str, ...] = ("deleted_at", "deleted_by", "deletion_reason")

    @property
    def is_soft(self) -> bool:
        return issubclass(self.model, SoftDeletable)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        fields = self.record_fields + (self.deletion_fields if self.is_soft else ())
        return (*super().get_readonly_fields(request, obj), *fields)

    def get_autocomplete_fields(self, request: HttpRequest) -> Any:
        """Return every searchable foreign key: a select element would contain all rows of the other table."""
        names = super().get_autocomplete_fields(request)
        keys = [field for field in self.opts.concrete_fields if isinstance(field, models.ForeignKey)]
        return (*names, *(key.name for key in keys if self._is_searchable(key) and key.name not in names))

    def formfield_for_foreignkey(self, db_field: Any, request: Any, **kwargs: Any) -> Any:
        if not self._is_searchable(db_field):
            kwargs["widget"] = ForeignKeyRawIdWidget(db_field.remote_field, self.admin_site)
        return super().formfield_for_foreignkey(db_field, request, **kwargs)

    def _is_searchable(self, key: Any) -> bool:
        target: Any = self.admin_site._registry.get(key.related_model)
        return target is not None and bool(target.search_fields)
