"""Rows whose deletion can be undone."""

import uuid
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Self

from django.core.exceptions import ValidationError
from django.db import models, transaction
from django.db.models import F
from django.utils import timezone

from records import context
from records.db.text import LineField
from records.models.querysets import RecordQuerySet
from records.models.record import Record
from records.models.relations import cascades_delete, requires_live_target
from records.models.tracking import BOOKKEEPING

DELETION_STATE = ("deleted_at", "deleted_by", "deletion_reason", "deletion")
LIVE_STATE = {"deleted_at": None, "deleted_by": None, "deletion_reason": "", "deletion": None}


class SoftDeletableQuerySet(RecordQuerySet):
    def live(self) -> Self:
        return self.filter(deleted_at=None)

    def deleted(self) -> Self:
        return self.filter(deleted_at__isnull=False)  # SQLite uses its partial index for this condition only

    def delete(self, *, reason: str = "", state: Mapping[str, Any] | None = None) -> tuple[int, dict[str, int]]:
        """Mark the live rows, and all rows that belong to them, as deleted.

        Rows that are deleted already keep their state. `state` is the deletion state to write, to undo a restoration;
        by default it is a new one. Takes a constant number of statements; returns counts as Django does.
        """
        state = state or {
            "deleted_at": timezone.now(),
            "deleted_by": context.actor_id(),
            "deletion_reason": reason,
            "deletion": uuid.uuid4(),
        }
        counts: dict[str, int] = {}
        with transaction.atomic(using=self._write_alias()):
            self._mark_deleted(state, counts)
        return sum(counts.values()), counts

    delete.alters_data = True  # type: ignore[attr-defined]
    delete.queryset_only = True  # type: ignore[attr-defined]

    def _mark_deleted(self, state: Mapping[str, Any], counts: dict[str, int]) -> None:
        live = self.live()
        self._raise_if_protected(live.values_list("pk", flat=True), permanently=False)
        for model, key in self._dependents():
            model.objects.filter(**{f"{key}__in": live.values("pk")})._mark_deleted(state, counts)
        if changed := live._write(state, "delete"):
            counts[self.model._meta.label] = counts.get(self.model._meta.label, 0) + changed

    def restore(self) -> int:
        """Restore the deleted rows and the rows that were deleted with them; return the number of the former.

        Raise ValidationError, and restore nothing, if a row belongs to one that is still deleted.
        """
        with transaction.atomic(using=self._write_alias()):
            deleted = self.deleted()
            for field in filter(requires_live_target, self.model._meta.concrete_fields):
                if deleted.filter(**{f"{field.name}__deleted_at__isnull": False}).exists():
                    name = self.model._meta.verbose_name
                    raise ValidationError(
                        f"The {field.verbose_name} of this {name} is deleted: restore the {field.verbose_name} first."
                    )
            return deleted._mark_live()

    restore.alters_data = True  # type: ignore[attr-defined]

    def _mark_live(self) -> int:
        for model, key in self._dependents():
            deleted_together = {f"{key}__in": self.values("pk"), "deletion": F(f"{key}__deletion")}
            model.all_objects.deleted().filter(**deleted_together)._mark_live()
        return self._write(LIVE_STATE, "restore")

    def purge_in_batches(self, size: int = 1000) -> Iterator[int]:
        """Purge the rows in transactions of `size` rows each, and yield the size of each batch.

        Rows that are protected by others are skipped.
        """
        count = size
        while count == size:
            with transaction.atomic(using=self._write_alias()):
                # Locked, so that a row that is restored at the same time is not purged.
                rows = self._unprotected().select_for_update(of=("self",))
                keys = list(rows.order_by("pk").values_list("pk", flat=True)[:size])
                self.model.all_objects.filter(pk__in=keys).purge()
            count = len(keys)
            if count:
                yield count

    purge_in_batches.alters_data = True  # type: ignore[attr-defined]

    def _dependents(self) -> list[tuple[Any, str]]:
        """Return the models whose rows are deleted with these, each with the name of its foreign key."""
        return [
            (relation.related_model, relation.field.name)
            for relation in self.model._meta.related_objects
            if getattr(relation.related_model, "is_soft_deletable", False) and cascades_delete(relation.field)
        ]


class LiveManager(models.Manager.from_queryset(SoftDeletableQuerySet)):  # type: ignore[misc]
    """The rows that are not deleted."""

    def get_queryset(self) -> SoftDeletableQuerySet:
        rows: SoftDeletableQuerySet = super().get_queryset()
        return rows.live()


class SoftDeletable(Record):
    """A record whose deletion can be undone. `objects` are the live rows; `all_objects` includes the deleted ones."""

    is_soft_deletable = True

    deleted_at = models.DateTimeField(null=True, editable=False, help_text="When the row was deleted.")
    deleted_by = models.BigIntegerField(null=True, editable=False, help_text="Id of the user who deleted the row.")
    deletion_reason = LineField(
        max_length=200, blank=True, default="", editable=False, help_text="Why the row was deleted."
    )
    # Rows that were deleted together share a value, so that restoring one restores exactly those.
    deletion = models.UUIDField(null=True, editable=False)

    objects: ClassVar[Any] = LiveManager()
    all_objects: ClassVar[Any] = SoftDeletableQuerySet.as_manager()

    class Meta:
        abstract = True

    @property
    def is_deleted(self) -> bool:
        return self.deleted_at is not None

    def delete(
        self, using: str | None = None, keep_parents: bool = False, *, reason: str = ""
    ) -> tuple[int, dict[str, int]]:
        counts: tuple[int, dict[str, int]] = self._this_row(using).delete(reason=reason)
        self._defer_deletion_state()
        return counts

    delete.alters_data = True  # type: ignore[attr-defined]

    def restore(self) -> int:
        count: int = self._this_row().restore()
        self._defer_deletion_state()
        return count

    restore.alters_data = True  # type: ignore[attr-defined]

    def _defer_deletion_state(self) -> None:
        """Let the columns that deletion and restoration write be read from the database when they are next used."""
        for name in (*DELETION_STATE, *BOOKKEEPING):
            self.__dict__.pop(name, None)
