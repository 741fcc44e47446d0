"""How every record is managed. Usable with a million rows: nothing here counts or loads them all."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import reduce
from operator import or_
from typing import Any, ClassVar
from urllib.parse import urlencode

from django.contrib import admin, messages
from django.contrib.admin.utils import model_ngettext, unquote
from django.contrib.admin.widgets import ForeignKeyRawIdWidget
from django.contrib.auth import get_user_model
from django.core.exceptions import BadRequest, PermissionDenied, ValidationError
from django.core.paginator import Paginator
from django.db import DataError, models
from django.db.models import OuterRef, Q, QuerySet, Subquery
from django.http import HttpRequest
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils.functional import cached_property
from django.utils.html import format_html
from django.utils.text import Truncator
from rest_framework.exceptions import APIException
from rest_framework.exceptions import PermissionDenied as RefusedByAPI

from records.expressions import AnyOf
from records.history import AuditEntry
from records.models import SoftDeletable, goes_with
from records.rest.pagination import DEEPEST_OFFSET, EXACT_UP_TO, can_estimate, estimated_count
from records.undo import kinds, resource_names, undo

MOST_WORDS = 20


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

    def get_search_results(self, request: HttpRequest, queryset: Any, search_term: str) -> tuple[Any, bool]:
        if len(search_term.split()) > MOST_WORDS:  # each is a condition of the query, for each search field
            raise BadRequest(f"A search has at most {MOST_WORDS} words.")
        return super().get_search_results(request, queryset, search_term)


class ReadOnlyAdmin(LargeTableAdmin):
    """What the service writes itself, to be looked at."""

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class RecordAdmin(LargeTableAdmin):
    """Deletes as the model does, which for most is a state that can be taken back."""

    list_display: Any = ("__str__", "created_at")
    ordering = ("-id",)
    actions = ("restore_selected",)
    formfield_overrides: ClassVar[Any] = {models.URLField: {"assume_scheme": "https"}}
    object_history_template = "records/history.html"
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

    def get_autocomplete_fields(self, request: HttpRequest) -> Any:
        """Whatever refers to another table: a list to choose from would hold all of its rows."""
        own = super().get_autocomplete_fields(request)
        keys = [field for field in self.opts.concrete_fields if isinstance(field, models.ForeignKey)]
        return (*own, *(key.name for key in keys if self._can_be_searched(key) and key.name not in own))

    def formfield_for_foreignkey(self, db_field: Any, request: Any, **kwargs: Any) -> Any:
        if not self._can_be_searched(db_field):
            kwargs["widget"] = ForeignKeyRawIdWidget(db_field.remote_field, self.admin_site)
        return super().formfield_for_foreignkey(db_field, request, **kwargs)

    def _can_be_searched(self, key: Any) -> bool:
        other: Any = self.admin_site._registry.get(key.related_model)
        return other is not None and bool(other.search_fields)

    def get_actions(self, request: HttpRequest) -> dict:
        actions = super().get_actions(request)
        if not self.is_soft or not self.has_change_permission(request):
            actions.pop("restore_selected", None)
        return actions

    def history_view(self, request: HttpRequest, object_id: str, extra_context: Any = None) -> Any:
        """What the audit log knows of the row, whichever way it was changed."""
        with _bad_values_refused():
            entries = with_usernames(AuditEntry.objects.of_row(self.model, unquote(object_id))).order_by("-id")
            user: Any = request.user
            history = {
                "entries": [{**vars(entry), "pk": entry.pk, "table": differences(entry)} for entry in entries[:100]],
                "may_see_log": user.may("view", AuditEntry),
                "log": log_of(object_type=self.opts.db_table, object_id=unquote(object_id)),
            }
            return _rendered(super().history_view(request, object_id, history | (extra_context or {})))

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """What the confirmation page shows: the rows asked for; what goes with them is counted, not loaded."""
        rows = list(objs)
        counts = {self.opts.verbose_name_plural: len(rows)}
        for relation in self.opts.related_objects:
            kind: Any = relation.related_model
            if goes_with(relation.field) and (not self.is_soft or issubclass(kind, SoftDeletable)):
                dependents = kind.objects.filter(**{f"{relation.field.name}__in": rows})
                counts[kind._meta.verbose_name_plural] = dependents.count()
        may = self.has_delete_permission(request) and self.is_open(request, rows)
        lacking = set() if may else {self.opts.verbose_name}
        return [str(row) for row in rows], counts, lacking, self.protected(rows)

    def is_open(self, request: HttpRequest, rows: Iterable[Any]) -> bool:
        """Return False if the caller may not delete or restore one of these rows."""
        return True

    def protected(self, rows: list[Any]) -> list[str]:
        """Why these rows cannot be deleted; empty if they can."""
        model: Any = self.model
        return model.all_objects.all().held_by([row.pk for row in rows], for_good=not self.is_soft)

    @admin.action(description="Restore selected %(verbose_name_plural)s")
    def restore_selected(self, request: HttpRequest, queryset: Any) -> None:
        if not self.is_open(request, queryset):
            raise PermissionDenied
        try:
            restored = queryset.restore()
        except ValidationError as error:
            self.message_user(request, error.messages[0], messages.ERROR)
        else:
            self.message_user(request, f"Restored {restored} {model_ngettext(self.opts, restored)}.", messages.SUCCESS)


# The audit log


def with_usernames(entries: QuerySet) -> QuerySet:
    """Each with the `username` of who did it, where they are still known."""
    people: Any = get_user_model()
    names = people.all_objects.filter(pk=OuterRef("user_id")).values(people.USERNAME_FIELD)
    return entries.annotate(username=Subquery(names[:1]))


def _changes(entry: AuditEntry) -> list[tuple[str, str, str]]:
    names = resource_names(entry.object_type)
    return [(names.get(name, name), _shown(old), _shown(new)) for name, (old, new) in entry.changes.items()]


def differences(entry: AuditEntry) -> str:
    return render_to_string("records/differences.html", {"rows": _changes(entry)})


def _shown(value: Any) -> str:
    return "–" if value is None or value == "" else str(value)


def log_of(**conditions: Any) -> str:
    """Where the admin lists the entries with these values."""
    query = urlencode({f"{name}__exact": value for name, value in conditions.items()})
    return f"{reverse('admin:records_auditentry_changelist')}?{query}"


class ObjectTypeFilter(admin.SimpleListFilter):
    """The kinds of rows that there are; looking which of them the log knows would read all of it."""

    title = "kind of row"
    parameter_name = "object_type__exact"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(name, str(model._meta.verbose_name_plural).capitalize()) for name, model in kinds().items()]

    def queryset(self, request: HttpRequest, queryset: QuerySet) -> QuerySet:
        return queryset.filter(object_type=self.value()) if self.value() else queryset


@admin.register(AuditEntry)
class AuditEntryAdmin(ReadOnlyAdmin):
    """What was done, by whom; to be read, and to undo."""

    list_display = ("when", "what", "row", "who", "summary", "request")
    list_filter = ("action", "outcome", ObjectTypeFilter, "at")
    search_fields = ("request_id",)
    search_help_text = "A username, or the id of a user, of a row or of a request."
    ordering = ("-id",)
    actions = ("undo_entries", "undo_requests")
    fields = ("when", "what", "row", "owner", "who", "ip", "request", "differences")
    change_form_template = "records/entry.html"

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_undo_permission(self, request: HttpRequest) -> bool:
        user: Any = request.user
        return user.may("change", AuditEntry)

    def get_queryset(self, request: HttpRequest) -> QuerySet:
        return with_usernames(super().get_queryset(request))

    def get_search_results(self, request: HttpRequest, queryset: Any, search_term: str) -> tuple[Any, bool]:
        """Whole words only: each meets an index, where a part of one would have to look at every entry."""
        people: Any = get_user_model()
        for word in search_term.split():
            by_name = {f"{people.USERNAME_FIELD}__lower": word.lower()}
            named = list(people.all_objects.filter(**by_name).values_list("pk", flat=True))
            numbers = named + ([int(word)] if word.isdecimal() and len(word) < 19 else [])
            whom = Q(user_id__in=numbers) | Q(owner_id__in=numbers) if numbers else Q()
            queryset = queryset.filter(Q(request_id=word) | Q(object_id=word) | whom)
        return queryset, False

    def change_view(self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None) -> Any:
        own = {"may_undo": self.has_undo_permission(request), "show_close": True}
        return super().change_view(request, object_id, form_url, own | (extra_context or {}))

    # Columns

    @admin.display(description="when (UTC)", ordering="id")
    def when(self, entry: AuditEntry) -> str:
        return f"{entry.at:%Y-%m-%d %H:%M:%S}"

    @admin.display(description="what", ordering="action")
    def what(self, entry: AuditEntry) -> str:
        return f"{entry.action}{' (failed)' if entry.outcome == AuditEntry.Outcome.FAILURE else ''}"

    @admin.display(description="row")
    def row(self, entry: AuditEntry) -> str:
        text = f"{entry.object_type} {entry.object_id or ''}"
        return _link(kinds().get(entry.object_type), entry.object_id, text)

    @admin.display(description="owner")
    def owner(self, entry: AuditEntry) -> str:
        return _link(get_user_model(), entry.owner_id, f"users {entry.owner_id}") if entry.owner_id else "–"

    @admin.display(description="who")
    def who(self, entry: Any) -> str:
        return _link(get_user_model(), entry.user_id, entry.username or entry.user_id) if entry.user_id else "–"

    @admin.display(description="differences")
    def summary(self, entry: AuditEntry) -> str:
        texts = [f"{name}: {old} → {new}" for name, old, new in _changes(entry)]
        return Truncator(", ".join(texts) or "–").chars(120)

    @admin.display(description="differences")
    def differences(self, entry: AuditEntry) -> str:
        return differences(entry)

    @admin.display(description="request")
    def request(self, entry: AuditEntry) -> str:
        if not entry.request_id:
            return "–"
        text = Truncator(entry.request_id).chars(12)
        return format_html('<a href="{}">{}</a>', log_of(request_id=entry.request_id), text)

    # Actions

    @admin.action(description="Undo the selected changes", permissions=["undo"])
    def undo_entries(self, request: HttpRequest, queryset: QuerySet) -> None:
        self._undo(request, queryset)

    @admin.action(description="Undo all that the selected entries' requests did", permissions=["undo"])
    def undo_requests(self, request: HttpRequest, queryset: QuerySet) -> None:
        # Anybody may call their request what they like: only what the same person did goes with it.
        requests: dict[int | None, set[str]] = defaultdict(set)
        for request_id, user_id in queryset.exclude(request_id=None).values_list("request_id", "user_id"):
            requests[user_id].add(request_id)
        of_each = [Q(AnyOf("request_id", ids), user_id=user_id) for user_id, ids in requests.items()]
        self._undo(request, AuditEntry.objects.filter(reduce(or_, of_each, Q(pk=None))))

    def _undo(self, request: HttpRequest, entries: QuerySet) -> None:
        try:
            count = undo(entries, request.user)
        except RefusedByAPI as error:
            raise PermissionDenied(str(error.detail)) from None
        except APIException as error:
            reasons = [f"{name}: {' '.join(texts)}" for name, texts in getattr(error, "errors", {}).items()]
            self.message_user(request, " ".join([str(error.detail), *reasons]), messages.ERROR)
        else:
            self.message_user(request, f"Put back {count} row{'s' * (count != 1)}.", messages.SUCCESS)


def _link(model: Any, key: Any, text: Any) -> str:
    """To the row's page in the admin, where it has one."""
    if model is None or key is None or not admin.site.is_registered(model):
        return str(text)
    url = reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_change", args=[key])
    return format_html('<a href="{}">{}</a>', url, text)
