"""Base classes for tables of any size: no page counts or loads all rows."""

from typing import Any, ClassVar

from django.contrib import admin, messages
from django.contrib.admin.options import TO_FIELD_VAR
from django.contrib.admin.utils import unquote
from django.core.exceptions import FieldDoesNotExist, ValidationError
from django.db import connection
from django.db.models import QuerySet
from django.http import HttpRequest

from records.admin.change_lists import BoundedChangeListMixin
from records.admin.form_options import FormOptions
from records.admin.forms import RecordForm
from records.admin.formsets import VersionedFormSet
from records.admin.selections import SelectionMixin
from records.admin_site import WRITE_CONFLICTS, conflict_messages, remember_conflict


class FormMixin(FormOptions, admin.ModelAdmin):  # type: ignore[type-arg]
    """Use forms that report a lost race and leave untouched fields unchanged."""

    change_form_template = "records/change_form.html"

    class Media:
        css: ClassVar[Any] = {"all": ("records/admin.css",)}

    def changeform_view(self, request: HttpRequest, object_id: str | None = None, *args: Any, **kwargs: Any) -> Any:
        if request.method == "POST" and object_id is not None:
            self._lock_row(request, object_id)
        try:
            return super().changeform_view(request, object_id, *args, **kwargs)
        except WRITE_CONFLICTS as error:
            if request.method != "POST":
                raise
            # Another request wrote after the validation. Validate again: the form now sees the values of that request.
            remember_conflict(request, error)
            return super().changeform_view(request, object_id, *args, **kwargs)

    def _lock_row(self, request: HttpRequest, object_id: str) -> None:
        """Lock the row of the form before it is read, so that nobody changes it between its check and its write."""
        name = request.POST.get(TO_FIELD_VAR) or request.GET.get(TO_FIELD_VAR) or self.opts.pk.name
        try:
            field: Any = self.opts.get_field(name)
            rows = self.model._base_manager.filter(**{field.name: field.to_python(unquote(object_id))})
        except (FieldDoesNotExist, AttributeError, ValidationError, ValueError):
            return  # the view reports it
        # In the order of keys, so that concurrent requests wait instead of deadlocking.
        locked = self.rows_to_lock(rows).order_by("pk").select_for_update(no_key=True, of=("self",))
        len(locked.values_list("pk"))

    def rows_to_lock(self, rows: QuerySet[Any]) -> QuerySet[Any]:
        """Return the rows to lock while these rows are changed."""
        return rows

    def get_object(self, request: Any, object_id: str, from_field: str | None = None) -> Any:
        return super().get_object(request, object_id, from_field or None)  # `_to_field=` is empty

    def get_form(self, request: Any, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        return _with_conflict(super().get_form(request, obj, change=change, **kwargs), request)

    def get_changelist_form(self, request: Any, **kwargs: Any) -> Any:
        return _with_conflict(super().get_changelist_form(request, **{"form": RecordForm, **kwargs}), request)

    def get_changelist_formset(self, request: Any, **kwargs: Any) -> Any:
        return super().get_changelist_formset(request, **{"formset": VersionedFormSet, **kwargs})

    def render_change_form(self, request: Any, context: Any, *args: Any, **kwargs: Any) -> Any:
        form = context["adminform"].form
        formsets = [inline.formset for inline in context["inline_admin_formsets"]]
        context["concurrent_change"] = form.concurrent_change
        if (
            form.concurrent_change
            and not form.has_other_errors
            and not any(set_.total_error_count() for set_ in formsets)
        ):
            context["errors"] = ()  # the form says more than "Please correct the errors below"
        return super().render_change_form(request, context, *args, **kwargs)

    def save_related(self, request: Any, form: Any, formsets: Any, change: bool) -> None:
        super().save_related(request, form, formsets, change)
        if connection.vendor == "postgresql":
            # PostgreSQL checks foreign keys at the end of the transaction, too late to display the form again.
            connection.check_constraints()

    def log_change(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        """Log a change unless no field has changed."""
        request._is_unchanged = not message  # type: ignore[attr-defined]
        return super().log_change(request, obj, message) if message else None

    def response_change(self, request: HttpRequest, obj: Any) -> Any:
        request._has_no_changes = getattr(request, "_is_unchanged", False)  # type: ignore[attr-defined]
        return super().response_change(request, obj)

    def message_user(
        self, request: HttpRequest, message: Any, level: Any = messages.INFO, *args: Any, **kwargs: Any
    ) -> None:
        if level == messages.SUCCESS and getattr(request, "_has_no_changes", False):
            message, level = f"No changes were made to the {self.opts.verbose_name}.", messages.INFO
        super().message_user(request, message, level, *args, **kwargs)


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
