"""Rows of another model within the form of the row that they belong to."""

from typing import Any

from django.contrib import admin
from django.contrib.admin.options import InlineModelAdmin
from django.db.models import QuerySet
from django.http import HttpRequest

from records.admin.form_options import RecordOptions
from records.admin.formsets import VersionedInlineFormSet


class RecordInline(RecordOptions, InlineModelAdmin):  # type: ignore[type-arg]
    """Base of inlines: each row is checked for changes by others, like the form that contains it."""

    formset = VersionedInlineFormSet
    extra = 0
    record_fields = ()
    deletion_fields = ()

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        rows: QuerySet[Any] = super().get_queryset(request)
        if request.method == "POST" and self.is_soft and self.has_view_or_change_permission(request):
            # A row that was deleted meanwhile is reported as such. The page displays live rows only.
            return self.model.all_objects.order_by(*self.get_ordering(request))  # type: ignore[no-any-return]
        return rows


class RecordTabularInline(RecordInline, admin.TabularInline):  # type: ignore[type-arg]
    pass


class RecordStackedInline(RecordInline, admin.StackedInline):  # type: ignore[type-arg]
    pass
