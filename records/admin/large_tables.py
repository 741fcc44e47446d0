"""Base classes for tables of any size: no page counts or loads all rows."""

from typing import Any

from django.contrib import admin
from django.db import connection
from django.http import HttpRequest

from records.admin.change_lists import BoundedChangeListMixin
from records.admin.forms import RecordForm, form_class_kwargs, preserve_empty_values
from records.admin.selections import SelectionMixin
from records.admin_site import WRITE_CONFLICTS, conflict_messages, remember_conflict


class FormMixin(admin.ModelAdmin):  # type: ignore[type-arg]
    """Use forms that report a lost race and leave untouched fields unchanged."""

    form = RecordForm

    def changeform_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().changeform_view(request, *args, **kwargs)
        except WRITE_CONFLICTS as error:
            if request.method != "POST":
                raise
            # Another request wrote after the validation. Validate again: the form now sees the values of that request.
            remember_conflict(request, error)
            return super().changeform_view(request, *args, **kwargs)

    def get_object(self, request: Any, object_id: str, from_field: str | None = None) -> Any:
        return super().get_object(request, object_id, from_field or None)  # `_to_field=` is empty

    def get_form(self, request: Any, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        return _with_conflict(super().get_form(request, obj, change=change, **kwargs), request)

    def get_changelist_form(self, request: Any, **kwargs: Any) -> Any:
        return _with_conflict(super().get_changelist_form(request, **{"form": RecordForm, **kwargs}), request)

    def formfield_for_dbfield(self, db_field: Any, request: Any, **kwargs: Any) -> Any:
        field = super().formfield_for_dbfield(db_field, request, **form_class_kwargs(db_field) | kwargs)
        return preserve_empty_values(db_field, field)

    def save_related(self, request: Any, form: Any, formsets: Any, change: bool) -> None:
        super().save_related(request, form, formsets, change)
        if connection.vendor == "postgresql":
            # PostgreSQL checks foreign keys at the end of the transaction, too late to display the form again.
            connection.check_constraints()

    def log_change(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        """Log a change unless no field has changed."""
        return super().log_change(request, obj, message) if message else None


def _with_conflict(form_class: Any, request: HttpRequest) -> Any:
    return type(form_class.__name__, (form_class,), {"conflict": conflict_messages(request)})


class LargeTableAdmin(BoundedChangeListMixin, SelectionMixin, FormMixin):
    """Manage a table of any size: bounded counts and pages, and forms that are safe against concurrent changes."""


class ReadOnlyAdmin(LargeTableAdmin):
    """Display rows that only the service itself writes."""

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False
