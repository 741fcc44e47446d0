"""The admin of the audit log: read entries and undo changes."""

from collections import defaultdict
from functools import reduce
from operator import or_
from typing import Any
from urllib.parse import urlencode

from django.contrib import admin, messages
from django.contrib.auth import get_user_model
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils.html import format_html
from django.utils.text import Truncator

from records.admin.change_lists import refuse_long_search
from records.admin.large_tables import ReadOnlyAdmin
from records.admin.log_text import with_usernames
from records.audit.models import AuditEntry
from records.audit.reversal import record_models
from records.audit.undo import undo
from records.db.expressions import AnyOf
from records.exceptions import ConflictError
from records.rest.audit_log.names import api_names_of_type
from records.rest.errors import ConflictResponse

#: Digits of the largest number that is certainly a bigint.
MAX_ID_DIGITS = 18


def readable_changes(entry: AuditEntry) -> list[tuple[str, str, str]]:
    """Return the name, the old and the new value of each changed field as text."""
    names = api_names_of_type(entry.object_type)
    return [(names.get(name, name), _text(old), _text(new)) for name, (old, new) in entry.changes.items()]


def _text(value: Any) -> str:
    return "–" if value is None or value == "" else str(value)


def render_changes(entry: AuditEntry) -> str:
    return render_to_string("records/changes.html", {"rows": readable_changes(entry)})


def audit_log_url(**values: Any) -> str:
    """Return the URL of the change list with the entries that have these values."""
    query = urlencode({f"{name}__exact": value for name, value in values.items()})
    return f"{reverse('admin:records_auditentry_changelist')}?{query}"


def _admin_link(model: Any, key: Any, text: Any) -> str:
    """Return a link to the row's admin page, or the plain text if it has none."""
    if model is None or key is None or not admin.site.is_registered(model):
        return str(text)
    url = reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_change", args=[key])
    return format_html('<a href="{}">{}</a>', url, text)


class ObjectTypeFilter(admin.SimpleListFilter):
    """Offer every audited model. Selecting the distinct types of the entries would read the whole audit log."""

    title = "object type"
    parameter_name = "object_type__exact"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(name, str(model._meta.verbose_name_plural).capitalize()) for name, model in record_models().items()]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(object_type=self.value()) if self.value() else queryset


@admin.register(AuditEntry)
class AuditEntryAdmin(ReadOnlyAdmin):
    """Display audit entries and undo changes."""

    list_display = ("time", "action_label", "row", "actor", "summary", "request")
    list_filter = ("action", "outcome", ObjectTypeFilter, "at")
    search_fields = ("request_id",)
    search_help_text = "Search by username, user id, row id or request id."
    ordering = ("-id",)
    actions = ("undo_entries", "undo_requests")
    fields = ("time", "action_label", "row", "owner", "actor", "ip", "request", "changes_table")
    change_form_template = "records/audit_entry.html"

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_undo_permission(self, request: HttpRequest) -> bool:
        user: Any = request.user
        return bool(user.may("change", AuditEntry))

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return with_usernames(super().get_queryset(request))

    def get_search_results(self, request: HttpRequest, queryset: Any, search_term: str) -> tuple[Any, bool]:
        """Return the entries that match every word as a whole: an index serves whole words only."""
        refuse_long_search(search_term)
        user_model: Any = get_user_model()
        for word in search_term.split():
            by_username = {f"{user_model.USERNAME_FIELD}__lower": word.lower()}
            user_ids = list(user_model.all_objects.filter(**by_username).values_list("pk", flat=True))
            if word.isdecimal() and len(word) <= MAX_ID_DIGITS:
                user_ids.append(int(word))
            of_users = Q(user_id__in=user_ids) | Q(owner_id__in=user_ids) if user_ids else Q()
            queryset = queryset.filter(Q(request_id=word) | Q(object_id=word) | of_users)
        return queryset, False

    def change_view(self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None) -> Any:
        context = {"may_undo": self.has_undo_permission(request), "show_close": True}
        return super().change_view(request, object_id, form_url, context | (extra_context or {}))

    # Columns

    @admin.display(description="time (UTC)", ordering="id")
    def time(self, entry: AuditEntry) -> str:
        return f"{entry.at:%Y-%m-%d %H:%M:%S}"

    @admin.display(description="action", ordering="action")
    def action_label(self, entry: AuditEntry) -> str:
        return f"{entry.action}{' (failed)' if entry.outcome == AuditEntry.Outcome.FAILURE else ''}"

    @admin.display(description="row")
    def row(self, entry: AuditEntry) -> str:
        text = f"{entry.object_type} {entry.object_id or ''}"
        return _admin_link(record_models().get(entry.object_type), entry.object_id, text)

    @admin.display(description="owner")
    def owner(self, entry: AuditEntry) -> str:
        return _admin_link(get_user_model(), entry.owner_id, f"users {entry.owner_id}") if entry.owner_id else "–"

    @admin.display(description="user")
    def actor(self, entry: Any) -> str:
        return _admin_link(get_user_model(), entry.user_id, entry.username or entry.user_id) if entry.user_id else "–"

    @admin.display(description="changes")
    def summary(self, entry: AuditEntry) -> str:
        texts = [f"{name}: {old} → {new}" for name, old, new in readable_changes(entry)]
        return Truncator(", ".join(texts) or "–").chars(120)

    @admin.display(description="changes")
    def changes_table(self, entry: AuditEntry) -> str:
        return render_changes(entry)

    @admin.display(description="request")
    def request(self, entry: AuditEntry) -> str:
        if not entry.request_id:
            return "–"
        text = Truncator(entry.request_id).chars(12)
        return format_html('<a href="{}">{}</a>', audit_log_url(request_id=entry.request_id), text)

    # Actions

    @admin.action(description="Undo the selected changes", permissions=["undo"])
    def undo_entries(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        self._undo(request, queryset)

    @admin.action(description="Undo every change of the selected entries' requests", permissions=["undo"])
    def undo_requests(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        # Clients choose their request ids: match the user too, so that a reused id selects no other user's changes.
        request_ids: dict[int | None, set[str]] = defaultdict(set)
        for request_id, user_id in queryset.exclude(request_id=None).values_list("request_id", "user_id"):
            request_ids[user_id].add(request_id)
        of_users = [Q(AnyOf("request_id", ids), user_id=user_id) for user_id, ids in request_ids.items()]
        self._undo(request, AuditEntry.objects.filter(reduce(or_, of_users, Q(pk=None))))

    def _undo(self, request: HttpRequest, entries: QuerySet[Any]) -> None:
        try:
            count = undo(entries, request.user)
        except ConflictError as conflict:
            reasons = [f"{name}: {' '.join(texts)}" for name, texts in ConflictResponse(conflict).errors.items()]
            self.message_user(request, " ".join([conflict.message, *reasons]), messages.ERROR)
        else:
            self.message_user(request, f"Reverted {count} row{'s' * (count != 1)}.", messages.SUCCESS)
