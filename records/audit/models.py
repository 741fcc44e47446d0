"""The audit log: its entries and how they are written."""

from collections import Counter
from collections.abc import Iterable
from typing import Any, ClassVar, Self

import orjson
from django.conf import settings
from django.contrib.admin.models import LogEntry
from django.db import connections, models, router
from django.db.models import Q, QuerySet
from django.utils import timezone

from records import context
from records.audit.append_only import FIXED
from records.db.expressions import AnyOf
from records.models.changes import Change
from records.models.values import is_same_moment


class AuditEntryQuerySet(QuerySet["AuditEntry"]):
    _db: str | None

    #: One statement for any number of entries: they come as one parameter.
    INSERT = """
        INSERT INTO audit_log (at, action, outcome, user_id, object_type, ip, request_id, object_id, owner_id, changes)
        SELECT %s, %s, %s, CAST(COALESCE(%s, {by}) AS bigint), %s, %s, %s, {rows}
    """
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

    #: What `context.record_as` may call by another name; the rest is what it is, whatever it is a part of.
    RENAMED = frozenset({"create", "update", "delete", "restore", "login", "password_change"})

    def record(
        self,
        model: type[models.Model],
        action: str,
        changes: Iterable[Change],
        *,
        outcome: str = "success",
        user_id: int | None = None,
    ) -> None:
        """Write entries about rows of `model`, in the present transaction."""
        rows = [[_text(each.object_id), each.owner_id, each.changes] for each in changes]
        if not rows:
            return
        act = context.recorded_action()
        actor = user_id if user_id is not None else context.actor_id()
        connection = connections[self._db or router.db_for_write(self.model)]
        owner, values = self.ROWS[connection.vendor]
        sql = self.INSERT.format(by=owner if act and act.by_owner else "NULL", rows=values)
        shared = (
            connection.ops.adapt_datetimefield_value(timezone.now()),
            act.action if act and action in self.RENAMED else action,
            outcome,
            actor,
            model._meta.db_table,
            context.client_address(),
            context.request_id(),
        )
        with connection.cursor() as cursor:
            cursor.execute(sql, [*shared, orjson.dumps(rows).decode()])

    record.alters_data = True  # type: ignore[attr-defined]

    def of_row(self, model: type[models.Model], object_id: Any) -> Self:
        return self.filter(object_type=model._meta.db_table, object_id=str(object_id))

    def visible_to(self, user: Any) -> Self:
        return self if user.may("view", AuditEntry) else self.none()

    def erase_personal_data(self, model: type[models.Model], ids: list[Any]) -> None:
        """Empty the entries about rows that were purged: the values of their columns go; that something was done, when,
        to what and by which id, stays. Where the rows are people, the values of what they owned go too, and the
        addresses that they came from.

        This is the one way in which entries may be rewritten. The database refuses every other, and this one too
        where no entry tells that the row was purged.
        """
        about = self.filter(AnyOf("object_id", map(str, ids)), object_type=model._meta.db_table)
        about.exclude(changes={}).update(changes={})
        if model._meta.label == settings.AUTH_USER_MODEL:
            self.filter(AnyOf("owner_id", ids)).exclude(changes={}).update(changes={})
            self.filter(AnyOf("user_id", ids)).exclude(ip=None).update(ip=None)
        # The admin keeps names of rows in a log of its own.
        kind = {"content_type__app_label": model._meta.app_label, "content_type__model": model._meta.model_name}
        LogEntry.objects.filter(AnyOf("object_id", map(str, ids)), **kind).update(object_repr="", change_message="")

    erase_personal_data.alters_data = True  # type: ignore[attr-defined]

    def add_missing(self, entries: "list[AuditEntry]") -> None:
        """Insert the entries of a fixture, except those that are stored already.

        What is compared leaves out `changes` and `ip`: a purge may have emptied them here. An entry keeps its id
        where that is free, and gets the next one where another entry has it.
        """
        if not entries:
            return
        stored: dict[int, Any] = {row.pk: row for row in self.filter(AnyOf("id", [entry.pk for entry in entries]))}
        missing = [entry for entry in entries if not _is_same(entry, stored.get(entry.pk))]
        here = Counter(map(_identity, self.filter(AnyOf("at", {entry.at for entry in missing})) if missing else ()))
        # Entries that were found under their own id answer for no other.
        here -= Counter(_identity(stored[entry.pk]) for entry in entries if _is_same(entry, stored.get(entry.pk)))
        kept: list[Any] = []
        renumbered: list[Any] = []
        for entry in missing:
            if here[_identity(entry)] > 0:
                here[_identity(entry)] -= 1
            elif entry.pk is not None and entry.pk not in stored:
                stored[entry.pk] = entry
                kept.append(entry)
            else:
                entry.pk = None
                renumbered.append(entry)
        self.bulk_create(kept)
        connection = connections[self._db or router.db_for_write(self.model)]
        if connection.vendor == "postgresql":
            # Ids that were given do not move the sequence on; and it must not go back behind ids that others took.
            with connection.cursor() as cursor:
                cursor.execute(
                    "SELECT setval(name, GREATEST(MAX(id), pg_sequence_last_value(name))) "
                    "FROM audit_log, CAST(pg_get_serial_sequence('audit_log', 'id') AS regclass) AS name GROUP BY name"
                )
        self.bulk_create(renumbered)

    add_missing.alters_data = True  # type: ignore[attr-defined]


def _identity(entry: "AuditEntry") -> tuple[Any, ...]:
    return tuple(getattr(entry, name) for name in FIXED if name != "id")


def _is_same(entry: "AuditEntry", stored: "AuditEntry | None") -> bool:
    """Return True if `stored` is the entry; older fixtures have milliseconds only."""
    if stored is None:
        return False
    at = stored.at if is_same_moment(entry.at, stored.at) else entry.at
    return _identity(stored) == tuple(at if name == "at" else getattr(entry, name) for name in FIXED if name != "id")


def _text(object_id: Any) -> str | None:
    return None if object_id is None else str(object_id)


class AuditEntry(models.Model):
    """Something that was done, or failed. Plain ids, no foreign keys: it outlives what it tells of."""

    class Outcome(models.TextChoices):
        SUCCESS = "success"
        FAILURE = "failure"

    ACTIONS = (
        "create", "update", "delete", "restore", "purge", "undo", "register", "login", "logout", "password_change",
        "password_reset", "email_verify", "deletion_request", "deletion_confirm", "deletion_cancel", "oauth_login",
        "view",
    )  # fmt: skip

    id = models.BigAutoField(primary_key=True, help_text="Number of the entry; later ones are higher.")
    at = models.DateTimeField(help_text="When it was done.")
    action = models.CharField(max_length=20, choices=[(name, name) for name in ACTIONS], help_text="What was done.")
    outcome = models.CharField(max_length=7, choices=Outcome.choices, help_text="Whether it succeeded.")
    user_id = models.BigIntegerField(
        null=True, help_text="Who did it, or on whose account it was tried; null if unknown, or done by a command."
    )
    object_type = models.CharField(max_length=63, help_text="What kind of row: `users`, `stocks`, …")
    object_id = models.CharField(max_length=64, null=True, help_text="Id of the row; null if there is none.")
    owner_id = models.BigIntegerField(null=True, help_text="Id of the user whose row it is.")
    changes = models.JSONField(
        default=dict, help_text='Changed fields with their old and new value: `{"price": [175.5, 190.25]}`.'
    )
    ip = models.GenericIPAddressField("IP address", null=True, help_text="Address it was done from; null for commands.")
    request_id = models.CharField(
        max_length=64, null=True, help_text="`X-Request-ID` of the answer, or the id of a command's run."
    )

    # To whom an entry is shown is not a matter of whose row it is about.
    owned_by: ClassVar[str | None] = None
    objects = AuditEntryQuerySet.as_manager()

    class Meta:
        db_table = "audit_log"
        verbose_name = "audit entry"
        verbose_name_plural = "audit entries"
        default_permissions = ("view", "change")
        indexes = [
            # `id` behind each: newest first, page by page, whatever is filtered by.
            models.Index(fields=["user_id", "id"], name="audit_log_user", condition=Q(user_id__isnull=False)),
            models.Index(fields=["object_id", "object_type", "id"], name="audit_log_object"),
            models.Index(fields=["owner_id", "id"], name="audit_log_owner", condition=Q(owner_id__isnull=False)),
            models.Index(fields=["request_id", "id"], name="audit_log_request", condition=Q(request_id__isnull=False)),
            models.Index(fields=["object_type", "id"], name="audit_log_object_type"),
            models.Index(fields=["action", "id"], name="audit_log_action"),
            models.Index(fields=["outcome", "id"], name="audit_log_failures", condition=Q(outcome="failure")),
            models.Index(fields=["at", "id"], name="audit_log_at"),
            # Asked by the triggers, for every entry that is emptied.
            models.Index(fields=["object_id", "object_type"], name="audit_log_purges", condition=Q(action="purge")),
        ]

    def __str__(self) -> str:
        return f"{self.action} {self.object_type} {self.object_id or ''}".strip()
