"""The admin of records: soft deletion, restoring, and the history from the audit log."""

from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.utils import model_ngettext, unquote
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.functional import SimpleLazyObject

from records.admin.audit_log import audit_log_url, render_changes
from records.admin.change_lists import DeletedFilter
from records.admin.form_options import RecordOptions
from records.admin.large_tables import LargeTableAdmin
from records.admin.log_text import with_usernames
from records.admin.selections import iter_batches
from records.audit.models import AuditEntry
from records.models import SoftDeletable
from records.models.relations import cascades_delete

#: Audit entries on the history page of a row.
HISTORY_LENGTH = 100


class RecordAdmin(RecordOptions, LargeTableAdmin):
    """Delete rows as their model does: softly and reversibly where the model is SoftDeletable."""

    list_display: Any = ("__str__", "created_at")
    ordering = ("-id",)
    actions = ("restore_selected",)
    object_history_template = "records/history.html"

    # Lists

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        queryset: QuerySet[Any] = self.model.all_objects.all() if self.is_soft else super().get_queryset(request)
        return queryset.order_by(*self.get_ordering(request))

    def get_list_filter(self, request: HttpRequest) -> Any:
        filters = tuple(super().get_list_filter(request))
        return (*filters, DeletedFilter) if self.is_soft else filters

    def get_search_results(self, request: HttpRequest, queryset: Any, search_term: str) -> tuple[Any, bool]:
        # A relation must not offer deleted rows. The list has a filter for them.
        if self.is_soft and request.path.endswith("/autocomplete/"):
            queryset = queryset.live()
        return super().get_search_results(request, queryset, search_term)

    # Forms

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        if change:
            # A different spelling of the stored value, such as a symbol in lower case, is no change to log.
            changed = {field.name for field in obj.changed_fields()}
            unchanged = {field.name for field in self.opts.concrete_fields} - changed
            form.changed_data = [name for name in form.changed_data if name not in unchanged]
        super().save_model(request, obj, form, change)

    # Deletion and restoring

    def get_actions(self, request: HttpRequest, action_location: Any = None) -> dict[str, Any]:
        actions = super().get_actions(request, action_location)
        if not self.is_soft or not self.has_change_permission(request):
            actions.pop("restore_selected", None)
        return actions

    def deletable_rows(self, rows: Any) -> Any:
        return rows.live() if self.is_soft else rows

    def count_dependents(self, rows: Any) -> dict[Any, int]:
        counts = {}
        for relation in self.opts.related_objects:
            model: Any = relation.related_model
            if cascades_delete(relation.field) and (not self.is_soft or issubclass(model, SoftDeletable)):
                dependents = model.objects.filter(**{f"{relation.field.name}__in": rows.order_by().values("pk")})
                counts[model._meta.verbose_name_plural] = dependents.count()
        return counts

    def deletion_obstacles(self, rows: Any) -> list[str]:
        keys = rows.order_by().values_list("pk", flat=True)
        obstacles: list[str] = self.model.all_objects.all().protecting_rows(keys, permanently=not self.is_soft)
        return obstacles

    @admin.action(description="Restore selected %(verbose_name_plural)s")
    def restore_selected(self, request: HttpRequest, queryset: Any) -> None:
        if not self.may_manage(request, queryset):
            raise PermissionDenied
        restored = sum(batch.restore() for batch in iter_batches(queryset))
        self.message_user(request, f"Restored {restored:,} {model_ngettext(self.opts, restored)}.", messages.SUCCESS)

    # History

    def history_view(self, request: HttpRequest, object_id: str, extra_context: Any = None) -> Any:
        """Display the row's audit entries, including changes made outside of the admin."""
        entries = with_usernames(AuditEntry.objects.of_row(self.model, unquote(object_id))).order_by("-id")
        user: Any = request.user
        history = {
            # Lazy: Django first checks that the row exists.
            "entries": SimpleLazyObject(
                lambda: [
                    {**vars(entry), "pk": entry.pk, "table": render_changes(entry)}
                    for entry in entries[:HISTORY_LENGTH]
                ]
            ),
            "may_view_audit_log": user.may("view", AuditEntry),
            "audit_log_url": audit_log_url(object_type=self.opts.db_table, object_id=unquote(object_id)),
        }
        return super().history_view(request, object_id, history | (extra_context or {}))
