"""How every record is managed. Usable with a million rows: nothing here counts or loads them all."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import UTC
from functools import reduce
from operator import or_
from typing import Any, ClassVar, cast
from urllib.parse import urlencode

from django import forms
from django.contrib import admin, messages
from django.contrib.admin import helpers
from django.contrib.admin.models import DELETION, LogEntry
from django.contrib.admin.options import get_content_type_for_model
from django.contrib.admin.utils import model_ngettext, unquote
from django.contrib.admin.widgets import ForeignKeyRawIdWidget
from django.contrib.auth import get_user_model
from django.core.exceptions import BadRequest, FieldDoesNotExist, PermissionDenied, ValidationError
from django.core.paginator import Paginator
from django.db import connection, models, transaction
from django.db.models import OuterRef, Q, QuerySet, Subquery
from django.http import HttpRequest
from django.template.loader import render_to_string
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.functional import SimpleLazyObject, cached_property
from django.utils.html import format_html
from django.utils.text import Truncator

from records.admin_site import LOST, reason, sentence
from records.audit.models import AuditEntry
from records.audit.reversal import record_models
from records.audit.undo import MAX_ENTRIES, undo
from records.db.expressions import AnyOf
from records.db.validators import BIGINT_MAX
from records.exceptions import ConflictError
from records.forms import RecordForm, adapted, form_class_of
from records.models import SoftDeletable
from records.models.relations import cascades_delete
from records.rest.audit_log.names import api_names_of_type
from records.rest.errors import ConflictResponse
from records.rest.pagination.counting import MAX_EXACT_COUNT, can_estimate, estimated_count
from records.rest.pagination.parameters import MAX_OFFSET

#: How many rows a confirmation page names, and how many are logged one by one.
SAMPLE = 100
#: How many rows one action changes: an undo takes back no more.
LARGEST_SELECTION = MAX_ENTRIES
BATCH = 10_000
#: How many words a search may have; each is a condition of the query.
MOST_WORDS = 20
#: The lookups that an address may filter by, beside those of the list's own filters: an index serves each of them,
#: and none runs for long, as a regular expression may.
LOOKUPS = {"exact", "in", "gt", "gte", "lt", "lte", "isnull", "isempty"}


class BoundedPaginator(Paginator):
    """Counts no more rows than the API does; past that, PostgreSQL guesses and SQLite says how far it counted."""

    @cached_property
    def count(self) -> int:
        queryset: Any = self.object_list
        most = MAX_EXACT_COUNT if can_estimate(queryset) else MAX_OFFSET
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


def _is_comparable(field: Any, text: str, *, is_strict: bool = False) -> bool:
    """Return True if both databases can compare the column with this value.

    A text that means no value of the column passes unless `is_strict`: Django shows the whole list for such a filter.
    """
    if "\0" in text:
        return False
    target = field.target_field if field.is_relation else field
    try:
        value = target.to_python(text)
        if isinstance(target, models.IntegerField):
            return abs(int(value)) <= BIGINT_MAX
        if isinstance(target, models.DecimalField):
            return abs(value) < 10 ** (target.max_digits - target.decimal_places)
        if isinstance(target, models.DateTimeField):
            value.astimezone(UTC)
        if isinstance(target, models.GenericIPAddressField):
            target.run_validators(value)
    except OverflowError:
        return False
    except (ValueError, TypeError, AttributeError, ValidationError):
        return not is_strict and not isinstance(target, models.GenericIPAddressField)
    return True


def in_batches(rows: Any) -> Iterator[Any]:
    """Yield the rows in query sets of at most BATCH rows, so that no statement for very many runs into a timeout."""
    keys = list(rows.order_by().values_list("pk", flat=True))
    for start in range(0, len(keys), BATCH):
        yield type(rows)(rows.model, using=rows.db).filter(AnyOf("pk", keys[start : start + BATCH]))


def refuse_long_search(search_term: str) -> None:
    if len(search_term.split()) > MOST_WORDS:
        raise BadRequest(f"A search has at most {MOST_WORDS} words.")


class LargeTableAdmin(admin.ModelAdmin):
    """A list without full counts, deletion in a bounded page, and forms that lose no race and touch nothing else."""

    form = RecordForm
    paginator = BoundedPaginator
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER  # each would count the whole table
    list_per_page = 50

    # Lists

    def lookup_allowed(self, lookup: str, value: Any, request: Any = None) -> bool:
        if not super().lookup_allowed(lookup, value, request):
            return False
        own = {getattr(each, "parameter_name", None) for each in self.get_list_filter(request)}
        opts: Any = self.opts
        field: Any = None
        rest = lookup.split("__")
        while lookup not in own and opts is not None and rest:
            try:
                field = opts.get_field(rest[0])
            except FieldDoesNotExist:
                break
            opts, rest = getattr(field.related_model, "_meta", None), rest[1:]
        if field is None:
            return True  # of a filter, or the name of nothing, for which Django shows the whole list
        [name, *more] = rest or ["exact"]
        values = value.split(",") if name == "in" else [value]
        compares = name not in {"isnull", "isempty"}
        is_hidden = field.name in (self.exclude or ())
        return (
            name in LOOKUPS
            and not more
            and not is_hidden
            and not (compares and not all(_is_comparable(field, each) for each in values))
        )

    def get_search_results(self, request: HttpRequest, queryset: Any, search_term: str) -> tuple[Any, bool]:
        refuse_long_search(search_term)
        return super().get_search_results(request, queryset, search_term)

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> Any:
        try:
            return super().changelist_view(request, extra_context)
        except LOST as error:
            if "_save" not in request.POST:
                raise
            _remember(request, error)
            return super().changelist_view(request, extra_context)

    # Actions

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        actions: dict[str, Any] = super().get_actions(request)
        if found := actions.get("delete_selected"):
            actions["delete_selected"] = (type(self).delete_selected, *found[1:])
        return actions

    def response_action(self, request: HttpRequest, queryset: QuerySet) -> Any:  # type: ignore[override]
        """Run an action on the selected rows, all or nothing."""
        keys = request.POST.getlist(helpers.ACTION_CHECKBOX_NAME)
        if not all(_is_comparable(self.opts.pk, key, is_strict=True) for key in keys):
            raise BadRequest("A selected row is none that there can be.")
        if _is_across(request) and queryset[: LARGEST_SELECTION + 1].count() > LARGEST_SELECTION:
            text = f"At most {LARGEST_SELECTION:,} rows can be selected at once: please filter the list first."
            self.message_user(request, text, messages.ERROR)
            return None
        try:
            with transaction.atomic():
                return super().response_action(request, queryset)
        except LOST as error:
            self.message_user(request, sentence(error), messages.ERROR)
            return None

    def delete_selected(self, request: HttpRequest, queryset: QuerySet) -> TemplateResponse | None:
        """Delete the selected rows, after a page that asks for confirmation.

        The page names a sample of the rows, however many they are. Its form does not list the rows of "select all": it
        repeats that selection, with the count to be confirmed.
        """
        rows = self.deletable(queryset)
        sample, counts, lacking, protected = self.get_deleted_objects(rows, request)
        count = counts[self.opts.verbose_name_plural]
        is_confirmed = request.POST.get("confirmed_count", str(count)) == str(count)
        if request.POST.get("post") and is_confirmed and not protected:
            if lacking:
                raise PermissionDenied
            removed = self.remove_and_log(request, rows)
            text = f"Successfully deleted {removed:,} {model_ngettext(self.opts, removed)}."
            self.message_user(request, text, messages.SUCCESS)
            return None
        if not is_confirmed:
            self.message_user(request, "The selection has changed: please confirm it again.", messages.WARNING)
        is_across = _is_across(request)
        name = model_ngettext(self.opts, count)
        context = {
            **self.admin_site.each_context(request),
            "title": f"Cannot delete {name}" if lacking or protected else f"Delete {count:,} {name}?",
            "objects_name": name,
            "sample": sample,
            "count": count,
            "model_count": counts.items(),
            # One key stands for "select all": Django runs no action without any.
            "keys": request.POST.getlist(helpers.ACTION_CHECKBOX_NAME)[: 1 if is_across else None],
            "select_across": int(is_across),
            "perms_lacking": lacking,
            "protected": protected,
            "opts": self.opts,
            "action_checkbox_name": helpers.ACTION_CHECKBOX_NAME,
            "media": self.media,
        }
        request.current_app = self.admin_site.name  # type: ignore[attr-defined]
        return TemplateResponse(request, "records/delete_selected.html", context)

    # Deletion

    def deletable(self, rows: QuerySet) -> QuerySet:
        """Return those of the rows that a deletion changes."""
        return rows

    def remove(self, rows: Any) -> int:
        """Delete the rows; return how many there were."""
        return sum(batch.delete()[1].get(self.opts.label, 0) for batch in in_batches(rows))

    def remove_and_log(self, request: HttpRequest, rows: Any) -> int:
        """Delete the rows; return how many there were. Django's log gets a line for each, or one for very many."""
        sample: Any = list(rows[: SAMPLE + 1])
        removed = self.remove(rows)
        if removed == len(sample) <= SAMPLE:
            super().log_deletions(request, sample)
        elif removed:
            LogEntry.objects.create(
                user_id=cast(Any, request.user).pk,
                content_type=get_content_type_for_model(self.model),
                object_repr=f"{removed:,} {model_ngettext(self.opts, removed)}",
                action_flag=DELETION,
                change_message="[]",
            )
        return removed

    def log_deletions(self, request: HttpRequest, queryset: Any) -> None:  # type: ignore[override]
        """Do nothing: Django asks before it deletes, and remove_and_log tells what was deleted."""

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        self.remove_and_log(request, self.deletable(self.get_queryset(request).filter(pk=obj.pk)))

    def delete_queryset(self, request: HttpRequest, queryset: Any) -> None:
        self.remove_and_log(request, self.deletable(queryset))

    def delete_view(self, request: HttpRequest, object_id: str, extra_context: Any = None) -> Any:
        try:
            return super().delete_view(request, object_id, extra_context)
        except LOST as error:
            if request.method != "POST":
                raise
            _remember(request, error)
            return super().delete_view(request, object_id, extra_context)

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """Return what a confirmation page shows: a sample of the rows, and how many rows of each kind go with them."""
        keys = [row.pk for row in objs] if isinstance(objs, list) else []
        rows = self.get_queryset(request).filter(pk__in=keys) if keys else objs
        counts = {self.opts.verbose_name_plural: rows.count(), **self.count_dependents(rows)}
        sample = [str(row) for row in rows[:SAMPLE]]
        if more := counts[self.opts.verbose_name_plural] - len(sample):
            sample.append(f"… and {more:,} more")
        may = self.has_delete_permission(request) and self.is_open(request, rows)
        lacking = set() if may else {self.opts.verbose_name}
        return sample, counts, lacking, [*self.protected(rows), *_remembered(request)]

    def is_open(self, request: HttpRequest, rows: Iterable[Any]) -> bool:
        """Return False if the caller may not delete or restore one of these rows."""
        return True

    def count_dependents(self, rows: QuerySet) -> dict[Any, int]:
        """Return how many rows of other kinds are deleted with these."""
        return {}

    def protected(self, rows: QuerySet) -> list[str]:
        """Return why these rows cannot be deleted; nothing if they can."""
        return []

    # Forms

    def changeform_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().changeform_view(request, *args, **kwargs)
        except LOST as error:
            if request.method != "POST":
                raise
            # Its checks had passed before another request wrote: asked again, they see what that one wrote.
            _remember(request, error)
            return super().changeform_view(request, *args, **kwargs)

    def get_object(self, request: Any, object_id: str, from_field: str | None = None) -> Any:
        return super().get_object(request, object_id, from_field or None)  # `_to_field=` names no field

    def get_form(self, request: Any, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        form = super().get_form(request, obj, change=change, **kwargs)
        return type(form.__name__, (form,), {"refusal": getattr(request, "_lost", None)})

    def get_changelist_form(self, request: Any, **kwargs: Any) -> Any:
        form = super().get_changelist_form(request, **{"form": RecordForm, **kwargs})
        return type(form.__name__, (form,), {"refusal": getattr(request, "_lost", None)})

    def formfield_for_dbfield(self, db_field: Any, request: Any, **kwargs: Any) -> Any:
        field = super().formfield_for_dbfield(db_field, request, **form_class_of(db_field) | kwargs)
        return adapted(db_field, field)

    def save_related(self, request: Any, form: Any, formsets: Any, change: bool) -> None:
        super().save_related(request, form, formsets, change)
        if connection.vendor == "postgresql":
            # Foreign keys are checked at the end of the transaction, when no form can be shown any more.
            connection.check_constraints()

    def log_change(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        """Log a change, if there was one."""
        return super().log_change(request, obj, message) if message else None


def _is_across(request: HttpRequest) -> bool:
    """Return True if all rows of the list are selected, not only those named, as Django's form of actions reads it."""
    return forms.BooleanField(required=False).to_python(request.POST.get("select_across"))


def _remember(request: Any, error: Exception) -> None:
    """Have the page, shown again, say why the write was refused."""
    request._lost = reason(error)


def _remembered(request: Any) -> list[str]:
    return [text for texts in getattr(request, "_lost", {}).values() for text in texts]


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
        entries = with_usernames(AuditEntry.objects.of_row(self.model, unquote(object_id))).order_by("-id")
        user: Any = request.user
        history = {
            # Read when the page is rendered: Django first checks that there is such a row.
            "entries": SimpleLazyObject(
                lambda: [{**vars(entry), "pk": entry.pk, "table": differences(entry)} for entry in entries[:100]]
            ),
            "may_see_log": user.may("view", AuditEntry),
            "log": log_of(object_type=self.opts.db_table, object_id=unquote(object_id)),
        }
        return super().history_view(request, object_id, history | (extra_context or {}))

    def deletable(self, rows: Any) -> Any:
        return rows.live() if self.is_soft else rows

    def count_dependents(self, rows: Any) -> dict[Any, int]:
        counts = {}
        for relation in self.opts.related_objects:
            kind: Any = relation.related_model
            if cascades_delete(relation.field) and (not self.is_soft or issubclass(kind, SoftDeletable)):
                dependents = kind.objects.filter(**{f"{relation.field.name}__in": rows.order_by().values("pk")})
                counts[kind._meta.verbose_name_plural] = dependents.count()
        return counts

    def protected(self, rows: Any) -> list[str]:
        keys = rows.order_by().values_list("pk", flat=True)
        return self.model.all_objects.all().protecting_rows(keys, permanently=not self.is_soft)

    @admin.action(description="Restore selected %(verbose_name_plural)s")
    def restore_selected(self, request: HttpRequest, queryset: Any) -> None:
        if not self.is_open(request, queryset):
            raise PermissionDenied
        restored = sum(batch.restore() for batch in in_batches(queryset))
        self.message_user(request, f"Restored {restored:,} {model_ngettext(self.opts, restored)}.", messages.SUCCESS)

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        if change:
            # What was typed otherwise and means the same, such as a symbol in lower case, is no change to log.
            same = {field.name for field in self.opts.concrete_fields} - {each.name for each in obj.changed_fields()}
            form.changed_data = [name for name in form.changed_data if name not in same]
        super().save_model(request, obj, form, change)


# The audit log


def with_usernames(entries: QuerySet) -> QuerySet:
    """Each with the `username` of who did it, where they are still known."""
    people: Any = get_user_model()
    names = people.all_objects.filter(pk=OuterRef("user_id")).values(people.USERNAME_FIELD)
    return entries.annotate(username=Subquery(names[:1]))


def _changes(entry: AuditEntry) -> list[tuple[str, str, str]]:
    names = api_names_of_type(entry.object_type)
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
        return [(name, str(model._meta.verbose_name_plural).capitalize()) for name, model in record_models().items()]

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
        refuse_long_search(search_term)
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
        return _link(record_models().get(entry.object_type), entry.object_id, text)

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
        except ConflictError as conflict:
            reasons = [f"{name}: {' '.join(texts)}" for name, texts in ConflictResponse(conflict).errors.items()]
            self.message_user(request, " ".join([conflict.message, *reasons]), messages.ERROR)
        else:
            self.message_user(request, f"Put back {count} row{'s' * (count != 1)}.", messages.SUCCESS)


def _link(model: Any, key: Any, text: Any) -> str:
    """To the row's page in the admin, where it has one."""
    if model is None or key is None or not admin.site.is_registered(model):
        return str(text)
    url = reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_change", args=[key])
    return format_html('<a href="{}">{}</a>', url, text)
