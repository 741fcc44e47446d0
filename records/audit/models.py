"""The audit log: its entries and how they are written."""

from collections.abc import Iterable
from typing import Any, ClassVar, Self

import orjson
from django.conf import settings
from django.contrib.admin.models import LogEntry
from django.db import connections, models, router
from django.db.models import Q
from django.utils import timezone

from records import context
from records.db.compiled import CompilableQuerySet
from records.db.compiled.writes import SQL, WRITTEN_ROW
from records.db.expressions import AnyOf
from records.models.changes import Change


class AuditEntryQuerySet(CompilableQuerySet["AuditEntry"]):
    _db: str | None

    #: One statement inserts any number of entries, which are passed as one parameter.
    INSERT = """
        INSERT INTO audit_log (at, action, outcome, user_id, object_type, ip, request_id, object_id, owner_id, changes)
        SELECT %s, %s, %s, CAST(COALESCE(%s, {user_id}) AS bigint), %s, %s, %s, {rows}
    """
    #: Vendor → the owner of an entry, and the columns of all entries.
    ROWS = {
        "postgresql": (
            "(entry->>1)::bigint",
            "entry->>0, (entry->>1)::bigint, entry->2 FROM jsonb_array_elements(%s::jsonb) AS entry",
        ),
        "sqlite": (
            "json_extract(value, '$[1]')",
            "json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]') FROM json_each(%s)",
        ),
    }

    #: Actions that `context.record_as` may rename. All others keep their name.
    RENAMABLE_ACTIONS = frozenset({"create", "update", "delete", "restore", "login", "password_change"})

    def record(
        self,
        model: type[models.Model],
        action: str,
        changes: Iterable[Change],
        *,
        outcome: str = "success",
        user_id: int | None = None,
    ) -> None:
        """Write entries about rows of `model`, in the current transaction. `user_id` defaults to the current user."""
        rows = [[_as_text(change.object_id), change.owner_id, change.changes] for change in changes]
        if not rows:
            return
        connection = connections[self._db or router.db_for_write(self.model)]
        owner, values = self.ROWS[connection.vendor]
        sql, params = self._statement(model, action, owner, values, outcome=outcome, user_id=user_id)
        with connection.cursor() as cursor:
            cursor.execute(sql, [*params, orjson.dumps(rows).decode()])

    record.alters_data = True  # type: ignore[attr-defined]

    def statement_of_row(self, model: Any, action: str, change: Change) -> SQL:
        """Return the statement that writes an entry as a part of the one that writes its row, on PostgreSQL."""
        key = f'{WRITTEN_ROW}."{model._meta.pk.column}"'
        owner = f'{WRITTEN_ROW}."{model._meta.get_field(model.owned_by).column}"' if model.owned_by else "NULL"
        rows = f"CAST({key} AS text), CAST({owner} AS bigint), CAST(%s AS jsonb) FROM {WRITTEN_ROW}"
        sql, params = self._statement(model, action, owner, rows)
        return sql, [*params, orjson.dumps(change.changes).decode()]

    def _statement(
        self, model: Any, action: str, owner: str, rows: str, *, outcome: str = "success", user_id: int | None = None
    ) -> tuple[str, list[Any]]:
        """Return the INSERT of entries, and its parameters without those of `rows`."""
        recorded = context.recorded_action()
        connection = connections[self._db or router.db_for_write(self.model)]
        sql = self.INSERT.format(user_id=owner if recorded and recorded.by_owner else "NULL", rows=rows)
        return sql, [
            connection.ops.adapt_datetimefield_value(timezone.now()),
            recorded.action if recorded and action in self.RENAMABLE_ACTIONS else action,
            outcome,
            user_id if user_id is not None else context.actor_id(),
            model._meta.db_table,
            context.client_address(),
            context.request_id(),
        ]

    def of_row(self, model: type[models.Model], object_id: Any) -> Self:
        return self.filter(object_type=model._meta.db_table, object_id=str(object_id))

    def visible_to(self, user: Any) -> Self:
        return self if user.may("view", AuditEntry) else self.none()

    def erase_personal_data(self, model: type[models.Model], ids: list[Any]) -> None:
        """Erase the values of purged rows: action, time, user id and row stay.

        If the rows are users, the values of what they owned and their IP addresses are erased too. The triggers of
        `append_only` permit no other change, and this one only if an entry records the purge and the row is gone.
        """
        about = self.filter(AnyOf("object_id", map(str, ids)), object_type=model._meta.db_table)
        about.exclude(changes={}).update(changes={})
        if model._meta.label == settings.AUTH_USER_MODEL:
            self.filter(AnyOf("owner_id", ids)).exclude(changes={}).update(changes={})
            self.filter(AnyOf("user_id", ids)).exclude(ip=None).update(ip=None)
        # Django's admin has its own log, with the names of rows.
        content_type = {"content_type__app_label": model._meta.app_label, "content_type__model": model._meta.model_name}
        LogEntry.objects.filter(AnyOf("object_id", map(str, ids)), **content_type).update(
            object_repr="", change_message=""
        )

    erase_personal_data.alters_data = True  # type: ignore[attr-defined]


def _as_text(object_id: Any) -> str | None:
    return None if object_id is None else str(object_id)


class AuditEntry(models.Model):
    """An event: a change of a row, a login, a failure. It has no foreign keys, because it outlives its rows."""

    class Outcome(models.TextChoices):
        SUCCESS = "success"
        FAILURE = "failure"

    ACTIONS = (
        "create", "update", "delete", "restore", "purge", "undo", "register", "login", "logout", "password_change",
        "password_reset", "email_verify", "deletion_request", "deletion_confirm", "deletion_cancel", "oauth_login",
        "view",
    )  # fmt: skip

    id = models.BigAutoField(primary_key=True, help_text="Number of the entry; later ones are higher.")
    at = models.DateTimeField(help_text="Time of the action.")
    action = models.CharField(max_length=20, choices=[(name, name) for name in ACTIONS], help_text="The action.")
    outcome = models.CharField(max_length=7, choices=Outcome.choices, help_text="Result of the action.")
    user_id = models.BigIntegerField(
        null=True, help_text="Id of the user who acted, or whose login failed; null for commands and unknown users."
    )
    object_type = models.CharField(max_length=63, help_text="Table of the row: `users`, `stocks`, …")
    object_id = models.CharField(max_length=64, null=True, help_text="Id of the row; null if there is none.")
    owner_id = models.BigIntegerField(null=True, help_text="Id of the user who owns the row.")
    changes = models.JSONField(
        default=dict, help_text='Changed fields with their old and new value: `{"price": [175.5, 190.25]}`.'
    )
    ip = models.GenericIPAddressField("IP address", null=True, help_text="Address of the client; null for commands.")
    request_id = models.CharField(
        max_length=64, null=True, help_text="`X-Request-ID` of the response, or the id of the command's run."
    )

    # Owners do not see the audit log; `HistoryViewSet` shows them the entries of their rows.
    owned_by: ClassVar[str | None] = None
    objects = AuditEntryQuerySet.as_manager()

    class Meta:
        db_table = "audit_log"
        verbose_name = "audit entry"
        verbose_name_plural = "audit entries"
        default_permissions = ("view", "change")  # "change" permits undoing; entries never change
        indexes = [
            # Each ends with `id`, because every list is sorted by it.
            models.Index(fields=["user_id", "id"], name="audit_log_user", condition=Q(user_id__isnull=False)),
            models.Index(fields=["object_id", "object_type", "id"], name="audit_log_object"),
            models.Index(fields=["owner_id", "id"], name="audit_log_owner", condition=Q(owner_id__isnull=False)),
            models.Index(fields=["request_id", "id"], name="audit_log_request", condition=Q(request_id__isnull=False)),
            models.Index(fields=["object_type", "id"], name="audit_log_object_type"),
            models.Index(fields=["action", "id"], name="audit_log_action"),
            models.Index(fields=["outcome", "id"], name="audit_log_failures", condition=Q(outcome="failure")),
            models.Index(fields=["at", "id"], name="audit_log_at"),
            # The triggers look up a purge for every entry that is erased.
            models.Index(fields=["object_id", "object_type"], name="audit_log_purges", condition=Q(action="purge")),
        ]

    def __str__(self) -> str:
        return f"{self.action} {self.object_type} {self.object_id or ''}".strip()
