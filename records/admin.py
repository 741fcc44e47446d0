"""How every record is managed. Usable with a million rows: nothing here counts or loads them all."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.utils import model_ngettext
from django.core.exceptions import BadRequest, ValidationError
from django.core.paginator import Paginator
from django.db import DataError
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.functional import cached_property

from records.models import SoftDeletable
from records.rest.pagination import DEEPEST_OFFSET, EXACT_UP_TO, can_estimate, estimated_count


@contextmanager
def _bad_values_refused() -> Iterator[None]:
    """Django's admin passes ids and filters from requests to the database as they come."""
    try:
        yield
    except (ValueError, OverflowError, DataError) as error:
        raise BadRequest("A value of this request is not one that the database can hold.") from error


def _rendered(response: Any) -> Any:
    return response.render() if hasattr(response, "render") else response


class BoundedPaginator(Paginator):
    """Counts no more rows than the API does; past that, PostgreSQL guesses and SQLite says how far it counted."""

    @cached_property
    def count(self) -> int:
        queryset: Any = self.object_list
        most = EXACT_UP_TO if can_estimate(queryset) else DEEPEST_OFFSET
        counted = queryset.order_by()[: most + 1].count()
        if counted <= most:
            return counted
        return max(counted, estimated_count(queryset)) if can_estimate(queryset) else most


class DeletedFilter(admin.SimpleListFilter):
    title = "deletion"
    parameter_name = "deleted"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("1", "Deleted")]

    def choices(self, changelist: Any) -> Any:
        live, *others = super().choices(changelist)
        return [{**live, "display": "Not deleted"}, *others]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        return queryset.deleted() if self.value() == "1" else queryset.live()


class LargeTableAdmin(admin.ModelAdmin):
    """Lists without full counts, and bad values refused."""

    paginator = BoundedPaginator
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER  # each would count the whole table
    list_per_page = 50

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> Any:
        with _bad_values_refused():
            return _rendered(super().changelist_view(request, extra_context))

    def changeform_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        with _bad_values_refused():
            return _rendered(super().changeform_view(request, *args, **kwargs))


class ReadOnlyAdmin(LargeTableAdmin):
    """What the service writes itself, to be looked at."""

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class RecordAdmin(LargeTableAdmin):
    """Deletes as the model does, which for most is a state that can be taken back."""

    ordering = ("-id",)
    actions = ("restore_selected",)
    record_fields = ("created_at", "updated_at", "version")
    deletion_fields = ("deleted_at", "deleted_by", "deletion_reason")

    @property
    def is_soft(self) -> bool:
        return issubclass(self.model, SoftDeletable)

    def get_queryset(self, request: HttpRequest) -> QuerySet:
        queryset = self.model.all_objects.all() if self.is_soft else super().get_queryset(request)
        return queryset.order_by(*self.get_ordering(request))

    def get_list_filter(self, request: HttpRequest) -> Any:
        own = tuple(super().get_list_filter(request))
        return (*own, DeletedFilter) if self.is_soft else own

    def get_search_results(self, request: HttpRequest, queryset: Any, search_term: str) -> tuple[Any, bool]:
        # What is picked for a relation must not be deleted; the list has a filter for that.
        if self.is_soft and request.path.endswith("/autocomplete/"):
            queryset = queryset.live()
        return super().get_search_results(request, queryset, search_term)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        fixed = self.record_fields + (self.deletion_fields if self.is_soft else ())
        return (*super().get_readonly_fields(request, obj), *fixed)

    def get_actions(self, request: HttpRequest) -> dict:
        actions = super().get_actions(request)
        if not self.is_soft or not self.has_change_permission(request):
            actions.pop("restore_selected", None)
        return actions

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """What the confirmation page shows: the rows asked for; what goes with them is counted, not loaded."""
        rows = list(objs)
        counts = {self.opts.verbose_name_plural: len(rows)}
        for relation in self.opts.related_objects if self.is_soft else ():
            if issubclass(relation.related_model, SoftDeletable):
                name = relation.related_model._meta.verbose_name_plural
                counts[name] = relation.related_model.objects.filter(**{f"{relation.field.name}__in": rows}).count()
        lacking = set() if self.has_delete_permission(request) else {self.opts.verbose_name}
        return [str(row) for row in rows], counts, lacking, self.protected(rows)

    def protected(self, rows: list[Any]) -> list[str]:
        """Why these rows cannot be deleted; empty if they can."""
        return []

    @admin.action(description="Restore selected %(verbose_name_plural)s")
    def restore_selected(self, request: HttpRequest, queryset: Any) -> None:
        try:
            restored = queryset.restore()
        except ValidationError as error:
            self.message_user(request, error.messages[0], messages.ERROR)
        else:
            self.message_user(request, f"Restored {restored} {model_ngettext(self.opts, restored)}.", messages.SUCCESS)
