"""Actions on selected rows, and deletion with a confirmation page of bounded size."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import chain
from typing import Any, cast

from django import forms
from django.contrib import admin, messages
from django.contrib.admin import helpers
from django.contrib.admin.models import DELETION, LogEntry
from django.contrib.admin.options import get_content_type_for_model
from django.contrib.admin.utils import model_ngettext
from django.core.exceptions import BadRequest, PermissionDenied
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest
from django.template.response import TemplateResponse

from records.admin.change_lists import is_comparable
from records.admin_site import WRITE_CONFLICTS, conflict_messages, conflict_text, remember_conflict
from records.audit.undo import MAX_ENTRIES
from records.db.expressions import AnyOf

#: Rows that a confirmation page names and that Django's log lists one by one.
SAMPLE_SIZE = 100
#: Rows that one action may change: the largest number that one undo restores.
MAX_SELECTION = MAX_ENTRIES
BATCH_SIZE = 10_000


def iter_batches(rows: Any) -> Iterator[Any]:
    """Yield query sets of at most BATCH_SIZE rows, so that no statement reaches the statement timeout."""
    keys = list(rows.order_by().values_list("pk", flat=True))
    for start in range(0, len(keys), BATCH_SIZE):
        yield type(rows)(rows.model, using=rows.db).filter(AnyOf("pk", keys[start : start + BATCH_SIZE]))


def is_across(request: HttpRequest) -> bool:
    """Return True if the request selects every row of the list, parsed as Django's action form does."""
    return bool(forms.BooleanField(required=False).to_python(request.POST.get("select_across")))


class SelectionMixin(admin.ModelAdmin):  # type: ignore[type-arg]
    """Run actions on any number of rows, all or nothing, and ask for confirmation in a page of bounded size."""

    def get_actions(self, request: HttpRequest, action_location: Any = None) -> dict[str, Any]:
        """Return the actions, with a deletion of our own. Django 6.1 requires the parameter `action_location`."""
        options = {} if action_location is None else {"action_location": action_location}
        actions: dict[str, Any] = super().get_actions(request, **options)
        if action := actions.get("delete_selected"):
            actions["delete_selected"] = _with_function(action, type(self).delete_selected)
        return actions

    def response_action(self, request: HttpRequest, queryset: QuerySet[Any], **options: Any) -> Any:  # type: ignore[override]
        """Run an action on the selected rows, all or nothing."""
        keys = request.POST.getlist(helpers.ACTION_CHECKBOX_NAME)
        if not all(is_comparable(self.opts.pk, key, is_strict=True) for key in keys):
            raise BadRequest("The selection contains an invalid id.")
        if is_across(request) and queryset[: MAX_SELECTION + 1].count() > MAX_SELECTION:
            text = f"At most {MAX_SELECTION:,} rows can be selected at once. Filter the list first."
            self.message_user(request, text, messages.ERROR)
            return None
        try:
            with transaction.atomic():
                return super().response_action(request, queryset, **options)
        except WRITE_CONFLICTS as error:
            self.message_user(request, conflict_text(error), messages.ERROR)
            return None

    def delete_selected(self, request: HttpRequest, queryset: QuerySet[Any]) -> TemplateResponse | None:
        """Delete the selected rows after a confirmation page.

        The page names a sample of the rows. For "select all" its form repeats that selection with the count to
        confirm, and does not list the rows.
        """
        rows = self.deletable_rows(queryset)
        sample, counts, lacking, protected = self.get_deleted_objects(rows, request)
        count = counts[self.opts.verbose_name_plural]
        is_confirmed = request.POST.get("confirmed_count", str(count)) == str(count)
        if request.POST.get("post") and is_confirmed and not protected:
            if lacking:
                raise PermissionDenied
            deleted = self.delete_and_log(request, rows)
            text = f"Successfully deleted {deleted:,} {model_ngettext(self.opts, deleted)}."
            self.message_user(request, text, messages.SUCCESS)
            return None
        if not is_confirmed:
            self.message_user(request, "The selection has changed. Please confirm it again.", messages.WARNING)
        name = model_ngettext(self.opts, count)
        context = {
            **self.admin_site.each_context(request),
            "title": f"Cannot delete {name}" if lacking or protected else f"Delete {count:,} {name}?",
            "objects_name": name,
            "sample": sample,
            "count": count,
            "model_count": counts.items(),
            # Django runs no action without a key: one key stands for "select all".
            "keys": request.POST.getlist(helpers.ACTION_CHECKBOX_NAME)[: 1 if is_across(request) else None],
            "select_across": int(is_across(request)),
            "perms_lacking": lacking,
            "protected": protected,
            "delete_confirmation_max_display": None,  # of Django 6.1; the sample is bounded already
            "opts": self.opts,
            "action_checkbox_name": helpers.ACTION_CHECKBOX_NAME,
            "media": self.media,
        }
        request.current_app = self.admin_site.name
        return TemplateResponse(request, "records/delete_selected.html", context)

    # Hooks for subclasses

    def deletable_rows(self, rows: Any) -> Any:
        """Return the rows that a deletion would change."""
        return rows

    def delete_rows(self, rows: Any) -> int:
        """Delete the rows and return their number."""
        return sum(batch.delete()[1].get(self.opts.label, 0) for batch in iter_batches(rows))

    def may_manage(self, request: HttpRequest, rows: Iterable[Any]) -> bool:
        """Return False if the user may not delete or restore one of these rows."""
        return True

    def count_dependents(self, rows: Any) -> dict[Any, int]:
        """Return the number of rows that are deleted with these, by their model's plural name."""
        return {}

    def deletion_obstacles(self, rows: Any) -> list[str]:
        """Return the reasons why these rows cannot be deleted."""
        return []

    # Deletion

    def delete_and_log(self, request: HttpRequest, rows: Any) -> int:
        """Delete the rows and return their number.

        Django's log gets one entry per row, or a single entry for more than SAMPLE_SIZE rows.
        """
        sample: Any = list(rows[: SAMPLE_SIZE + 1])
        deleted = self.delete_rows(rows)
        if deleted == len(sample) <= SAMPLE_SIZE:
            super().log_deletions(request, sample)
        elif deleted:
            LogEntry.objects.create(
                user_id=cast(Any, request.user).pk,
                content_type=get_content_type_for_model(self.model),
                object_repr=f"{deleted:,} {model_ngettext(self.opts, deleted)}",
                action_flag=DELETION,
                change_message="[]",
            )
        return deleted

    def log_deletions(self, request: HttpRequest, queryset: Any) -> None:  # type: ignore[override]
        """Do nothing: Django calls this before the deletion, and delete_and_log logs what was deleted."""

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        self.delete_and_log(request, self.deletable_rows(self.get_queryset(request).filter(pk=obj.pk)))

    def delete_queryset(self, request: HttpRequest, queryset: Any) -> None:
        self.delete_and_log(request, self.deletable_rows(queryset))

    def delete_view(self, request: HttpRequest, object_id: str, extra_context: Any = None) -> Any:
        try:
            return super().delete_view(request, object_id, extra_context)
        except WRITE_CONFLICTS as error:
            if request.method != "POST":
                raise
            remember_conflict(request, error)
            return super().delete_view(request, object_id, extra_context)

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """Return the content of a confirmation page: a sample of the rows, and the number of rows by kind."""
        rows = objs
        if isinstance(objs, list):  # the delete view passes a list with one row
            rows = self.get_queryset(request).filter(pk__in=[row.pk for row in objs])
        counts = {self.opts.verbose_name_plural: rows.count(), **self.count_dependents(rows)}
        sample = [str(row) for row in rows[:SAMPLE_SIZE]]
        if remaining := counts[self.opts.verbose_name_plural] - len(sample):
            sample.append(f"… and {remaining:,} more")
        is_permitted = self.has_delete_permission(request) and self.may_manage(request, rows)
        lacking = set() if is_permitted else {self.opts.verbose_name}
        conflicts = (conflict_messages(request) or {}).values()
        return sample, counts, lacking, [*self.deletion_obstacles(rows), *chain.from_iterable(conflicts)]


def _with_function(action: Any, function: Callable[..., Any]) -> Any:
    """Return the action with another function: a tuple before Django 6.1, a dataclass since."""
    return (function, *action[1:]) if isinstance(action, tuple) else replace(action, func=function)
