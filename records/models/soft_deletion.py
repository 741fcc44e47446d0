"""Rows whose deletion can be undone."""

import uuid
from collections.abc import Iterator
from typing import Any, ClassVar, Self

from django.core.exceptions import ValidationError
from django.db import models, transaction
from django.db.models import F
from django.utils import timezone

from records import context
from records.db.text import LineField
from records.models.querysets import BOOKKEEPING, RecordQuerySet
from records.models.record import Record
from records.models.relations import cascades_delete, requires_live_target

DELETION_STATE = ("deleted_at", "deleted_by", "deletion_reason", "deletion")


class SoftDeletableQuerySet(RecordQuerySet):
    def live(self) -> Self:
        return self.filter(deleted_at=None)

    def deleted(self) -> Self:
        return self.filter(deleted_at__isnull=False)  # SQLite knows its partial index by these words only

    def delete(self, *, reason: str = "", mark: dict[str, Any] | None = None) -> tuple[int, dict[str, int]]:
        """Mark the live rows, and all that belongs to them, as deleted; what was deleted before keeps its mark.

        `mark` is one that they had before, to take a restoring back. A constant number of statements; returns counts
        as Django's own does.
        """
        mark = mark or {
            "deleted_at": timezone.now(),
            "deleted_by": context.actor_id(),
            "deletion_reason": reason,
            "deletion": uuid.uuid4(),
        }
        counts: dict[str, int] = {}
        with transaction.atomic(using=self._write_alias()):
            self._mark_deleted(mark, counts)
        return sum(counts.values()), counts

    delete.alters_data = True  # type: ignore[attr-defined]
    delete.queryset_only = True  # type: ignore[attr-defined]

    def _mark_deleted(self, mark: dict, counts: dict[str, int]) -> None:
        live = self.live()
        self._raise_if_protected(live.values_list("pk", flat=True), for_good=False)
        for dependent, key in self._dependents():
            dependent.objects.filter(**{f"{key}__in": live.values("pk")})._mark_deleted(mark, counts)
        if changed := live._write(mark, "delete"):
            counts[self.model._meta.label] = counts.get(self.model._meta.label, 0) + changed

    def restore(self) -> int:
        """Bring back the deleted rows with all that went with them, and nothing that was deleted at another time.

        ValidationError, and nothing restored, where a row belongs to one that is still deleted.
        """
        with transaction.atomic(using=self._write_alias()):
            deleted = self.deleted()
            for field in self.model._meta.concrete_fields:
                if (
                    requires_live_target(field)
                    and deleted.filter(**{f"{field.name}__deleted_at__isnull": False}).exists()
                ):
                    name = self.model._meta.verbose_name
                    raise ValidationError(
                        f"The {field.verbose_name} of this {name} is deleted: restore the {field.verbose_name} first."
                    )
            return deleted._unmark_deleted()

    restore.alters_data = True  # type: ignore[attr-defined]

    def _unmark_deleted(self) -> int:
        for dependent, key in self._dependents():
            together = {f"{key}__in": self.values("pk"), "deletion": F(f"{key}__deletion")}
            dependent.all_objects.deleted().filter(**together)._unmark_deleted()
        return self._write(dict.fromkeys(DELETION_STATE) | {"deletion_reason": ""}, "restore")

    def purge_in_batches(self, size: int = 1000) -> Iterator[int]:
        """The same for very many rows, a transaction for each `size` of them: what is done, is done, if it is killed.

        Yields how many rows went with each.
        """
        found = size
        while found == size:
            with transaction.atomic(using=self._write_alias()):
                # Locked, so that nothing goes that is restored meanwhile.
                rows = self._unprotected().select_for_update(of=("self",))
                keys = list(rows.order_by("pk").values_list("pk", flat=True)[:size])
                self.model.all_objects.filter(pk__in=keys).purge()
            found = len(keys)
            if found:
                yield found

    purge_in_batches.alters_data = True  # type: ignore[attr-defined]

    def _dependents(self) -> list[tuple[type["SoftDeletable"], str]]:
        """Models whose rows belong to ours, with the name of their foreign key to us."""
        return [
            (relation.related_model, relation.field.name)
            for relation in self.model._meta.related_objects
            if getattr(relation.related_model, "is_soft_deletable", False) and cascades_delete(relation.field)
        ]


class LiveManager(models.Manager.from_queryset(SoftDeletableQuerySet)):  # type: ignore[misc]
    def get_queryset(self) -> SoftDeletableQuerySet:
        return super().get_queryset().live()


class SoftDeletable(Record):
    """A record whose deletion can be taken back. `objects` are the live rows, `all_objects` the deleted ones too."""

    is_soft_deletable = True

    deleted_at = models.DateTimeField(null=True, editable=False, help_text="When the row was deleted.")
    deleted_by = models.BigIntegerField(null=True, editable=False, help_text="Id of the user who deleted the row.")
    deletion_reason = LineField(
        max_length=200, blank=True, default="", editable=False, help_text="Why the row was deleted."
    )
    # Rows that were deleted together carry the same one, so that restoring brings back exactly those.
    deletion = models.UUIDField(null=True, editable=False)

    objects: ClassVar[Any] = LiveManager()
    all_objects: ClassVar[Any] = SoftDeletableQuerySet.as_manager()

    class Meta:
        abstract = True

    @property
    def is_deleted(self) -> bool:
        return self.deleted_at is not None

    def delete(self, using=None, keep_parents=False, *, reason: str = "") -> tuple[int, dict[str, int]]:
        counts = self._this_row(using).delete(reason=reason)
        self._forget_deletion()
        return counts

    delete.alters_data = True  # type: ignore[attr-defined]

    def restore(self) -> int:
        count = self._this_row().restore()
        self._forget_deletion()
        return count

    restore.alters_data = True  # type: ignore[attr-defined]

    def _forget_deletion(self) -> None:
        for name in (*DELETION_STATE, *BOOKKEEPING):
            self.__dict__.pop(name, None)  # read from the database when somebody asks
