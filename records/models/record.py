"""The base of every stored row."""

from collections.abc import Iterable
from typing import Any, ClassVar, cast

from django.db import DatabaseError, connections, models, transaction
from django.db.models import F

from records.models.auditing import AuditedModel
from records.models.querysets import RecordQuerySet
from records.models.relations import Column
from records.models.tracking import BOOKKEEPING, is_changed
from records.models.values import as_stored, is_same_moment


class RowGoneError(DatabaseError):
    """The row to be saved no longer exists."""


class Record(AuditedModel):
    """A row with a version and times, whose changes are audited.

    `save()` of a stored row writes only the changed columns, and nothing if nothing changed. Every write through the
    model or its query set is announced to the audit log, in its transaction; SQL that bypasses them is not.
    """

    created_at = models.DateTimeField(auto_now_add=True, help_text="When the row was created.")
    updated_at = models.DateTimeField(auto_now=True, help_text="When the row was last changed.")
    version = models.PositiveBigIntegerField(
        default=1, editable=False, help_text="Raised by 1 by every change of the row."
    )

    objects: ClassVar[Any] = RecordQuerySet.as_manager()
    all_objects: ClassVar[Any] = RecordQuerySet.as_manager()

    class Meta:
        abstract = True
        base_manager_name = "all_objects"  # Django writes the rows of a relation through it

    def save(  # type: ignore[override]
        self,
        *,
        force_insert: bool = False,
        force_update: bool = False,
        using: str | None = None,
        update_fields: Iterable[str] | None = None,
    ) -> None:
        self.reload_if_rolled_back()
        if self.pk is None and not self._state.adding:
            self.mark_as_new()  # Django's way to copy a row: set its key to None and save it
        if self._state.adding or force_insert:
            super().save(force_insert=force_insert, force_update=force_update, using=using, update_fields=update_fields)
            return
        if names := self._names_to_save(update_fields):
            super().save(using=using, force_update=True, update_fields=[*names, *sorted(BOOKKEEPING)])

    def _names_to_save(self, update_fields: Iterable[str] | None) -> list[str]:
        changed = self.changed_fields()
        if update_fields is None:
            return [field.name for field in changed]
        wanted = set(update_fields)
        if unknown := wanted - self._column_names():
            raise ValueError(f"These are not columns to save: {', '.join(sorted(unknown))}.")
        return [field.name for field in changed if {field.name, field.attname} & wanted]

    def _save_table(
        self,
        raw: bool = False,
        cls: Any = None,
        force_insert: Any = False,
        force_update: bool = False,
        using: str | None = None,
        update_fields: Any = None,
    ) -> bool:
        """Write one row. Overridden here because `loaddata` calls it without `save()`."""
        alias = cast(str, using)
        is_new, is_open = self._state.adding or self.stored_row.is_new, connections[alias].in_atomic_block
        is_update = force_update or bool(update_fields) or not (self._state.adding or force_insert)
        with transaction.atomic(using=alias, savepoint=False):
            if is_update and not raw:
                self._update_row(alias, update_fields)
                existed = True
            else:
                existed = self._insert_or_overwrite(alias, raw=raw, cls=cls, force_insert=bool(force_insert))
        self.note_transaction(alias, is_open=is_open, is_new=is_new)
        return existed

    def _insert_or_overwrite(self, using: str, *, raw: bool, cls: Any, force_insert: bool) -> bool:
        """Insert the row, or save the values over the row with the same key; return True if that row existed."""
        may_exist = self.pk is not None and not force_insert and (raw or not self._meta.pk.has_default())
        stored = type(self).all_objects.using(using).filter(pk=self.pk).first() if may_exist else None
        if stored is None:
            super()._save_table(raw=raw, cls=cls, force_insert=True, using=using)  # type: ignore[misc]
            self.announce_creation([self], using)
            return False
        for field in self._meta.concrete_fields:
            if field.name not in {"created_at", *BOOKKEEPING}:
                setattr(stored, field.attname, getattr(self, field.attname))
        if raw:
            stored._save_fixture(self, using)
        else:
            stored.save(using=using)
        self.__dict__.update({name: getattr(stored, name) for name in ("created_at", *BOOKKEEPING)})
        self._set_stored(stored.stored_row)
        return True

    def _save_fixture(self, fixture: "Record", using: str) -> None:
        """Save, and take over the times and the version of the fixture's row, unless the stored version is higher.

        The version never decreases, so that no version stands for two states of the row.
        """
        before = {name: getattr(self, name) for name in sorted(BOOKKEEPING)}
        if fixture.created_at and not is_same_moment(fixture.created_at, self.created_at):
            self.created_at = fixture.created_at
        is_changed = any(field.name != "created_at" for field in self.changed_fields())
        self.save(using=using)
        stamps = self._fixture_stamps(fixture, before, is_changed=is_changed)
        if stamps != {name: getattr(self, name) for name in stamps}:
            self._row(using).update(**stamps)
            self.__dict__.update(stamps)
            self.note_stored(stamps)

    def _fixture_stamps(self, fixture: "Record", before: dict[str, Any], *, is_changed: bool) -> dict[str, Any]:
        """Return version and time of the last change after a fixture's row was saved over a row with `before`."""
        if fixture.version > before["version"] or (fixture.version == before["version"] and not is_changed):
            is_same = not fixture.updated_at or is_same_moment(fixture.updated_at, before["updated_at"])
            return {
                "updated_at": before["updated_at"] if is_same else fixture.updated_at,
                "version": fixture.version,
            }
        return {name: getattr(self, name) for name in before} if is_changed else before

    def _update_row(self, using: str, update_fields: Iterable[str] | None) -> None:
        """Write columns of a stored row by one UPDATE, and announce the change."""
        values = self._values_to_write(update_fields)
        stamps = {field.name: values.pop(field) for field in list(values) if field.name in BOOKKEEPING}
        row = self._row(using)
        before = self._update_if_unchanged(row, values, stamps)
        is_current = before is not None
        if before is None:
            before = self._update_locked(row, values, stamps)
        after = self._written_values(row, values)
        pairs = [(before[field.attname], after[field.attname]) for field in values]
        change = self.change_of(
            self.pk, self.owner_pk, list(values), [old for old, _ in pairs], [new for _, new in pairs]
        )
        self.announce(self.audit_action(values), [change] if change else [], using)
        # Columns that were not read again may be of an older version: then the version of all of them is unknown.
        self.note_written(before | after | {"version": self.version if is_current else None})

    def _update_if_unchanged(
        self, row: "models.QuerySet[Any]", values: dict[Column, Any], stamps: dict[str, Any]
    ) -> dict[str, Any] | None:
        """Write the values if the row still has the version that was read.

        Return the old values, or None if the row has another version or not all of them were read.
        """
        stored = self.stored_row.values
        before = {field.attname: stored[field.attname] for field in values if field.attname in stored}
        version = stored.get("version")
        if version is None or len(before) < len(values) or not _update(row.filter(version=version), values, stamps):
            return None
        self.version = version + 1
        return before

    def _update_locked(
        self, row: "models.QuerySet[Any]", values: dict[Column, Any], stamps: dict[str, Any]
    ) -> dict[str, Any]:
        """Lock the row, write the values that differ, and remove the others from `values`; return the old values."""
        names = [field.attname for field in values]
        before = row.select_for_update(no_key=True).values("version", *names).first()
        if before is None:
            raise RowGoneError(f"There is no {self._meta.verbose_name} {self.pk} any more: nothing was saved.")
        version = before.pop("version")
        for field in [field for field, value in values.items() if not is_changed(field, before, value)]:
            del values[field]
        if values:
            _update(row, values, stamps)
        self.version = version + bool(values)
        return before

    def _values_to_write(self, update_fields: Iterable[str] | None) -> dict[Column, Any]:
        names = set(update_fields or self._column_names() - {"created_at"}) | BOOKKEEPING
        columns = [field for field in self._meta.concrete_fields if {field.name, field.attname} & names]
        return {field: field.pre_save(self, add=False) for field in columns}

    def _written_values(self, row: "models.QuerySet[Any]", values: dict[Column, Any]) -> dict[str, Any]:
        """Return the values that the database now holds, by column; read them if expressions were written."""
        if not any(hasattr(value, "resolve_expression") for value in values.values()):
            return {field.attname: as_stored(field, value) for field, value in values.items()}
        written: dict[str, Any] = row.values(*(field.attname for field in values)).get()
        self.__dict__.update(written)
        return written

    @classmethod
    def _column_names(cls) -> set[str]:
        columns = [field for field in cls._meta.concrete_fields if not field.primary_key]
        return {name for field in columns for name in (field.name, field.attname)}

    @classmethod
    def prepare_for_insert(cls, rows: list[Any]) -> None:
        """Do for rows that are inserted together what `save()` does for each."""

    def delete(self, using: str | None = None, keep_parents: bool = False) -> tuple[int, dict[str, int]]:
        counts: tuple[int, dict[str, int]] = self._this_row(using).delete()
        return counts

    delete.alters_data = True  # type: ignore[attr-defined]

    def _this_row(self, using: str | None = None) -> Any:
        """Return a query set of this row, whose writes are audited."""
        return type(self).all_objects.using(using or self._state.db).filter(pk=self.pk)

    def _row(self, using: str) -> "models.QuerySet[Any]":
        """Return a query set of this row, whose writes are not audited."""
        return models.QuerySet(type(self), using=using).filter(pk=self.pk)


def _update(rows: "models.QuerySet[Any]", values: dict[Column, Any], stamps: dict[str, Any]) -> int:
    columns = {field.attname: value for field, value in values.items()}
    return rows.update(**{**columns, **stamps, "version": F("version") + 1})
