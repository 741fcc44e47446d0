"""The base of every stored row."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, cast

from django.db import DatabaseError, connections, models, transaction

from records.db.compiled import writes
from records.models.auditing import AuditedModel
from records.models.changes import Change
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

    #: Columns that are derived from others where they are empty when the row is written.
    derived_columns: ClassVar[frozenset[str]] = frozenset()

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
        if is_update and not raw:
            self._update_row(alias, update_fields)
            existed = True
        else:
            existed = self._insert_or_overwrite(alias, raw=raw, force_insert=bool(force_insert))
        self.note_transaction(alias, is_open=is_open, is_new=is_new)
        return existed

    def _insert_or_overwrite(self, using: str, *, raw: bool, force_insert: bool) -> bool:
        """Insert the row, or save the values over the row with the same key; return True if that row existed."""
        if self.pk is None or force_insert or (self._meta.pk.has_default() and not raw):
            self._insert_row(using, raw=raw)
            return False
        with transaction.atomic(using=using, savepoint=False):
            stored = type(self).all_objects.using(using).filter(pk=self.pk).first()
            if stored is None:
                self._insert_row(using, raw=raw)
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

    def _insert_row(self, using: str, *, raw: bool) -> None:
        """Insert the row and announce it."""
        key = self._meta.pk
        if self.pk is None:
            self.pk = key.get_pk_value_on_save(self)
        fields = [field for field in self._meta.concrete_fields if not field.generated]
        values = {
            field: getattr(self, field.attname) if raw else field.pre_save(self, add=True)
            for field in fields
            if field is not key or self.pk is not None
        }
        write = writes.insert(type(self), values, using)
        row = cast(dict[str, Any], self._write(write, values, "create", self.creation_of, using))
        self.pk = row[key.attname]
        if writes.has_expressions(values):
            self.__dict__.update(row)
        self.note_written(row, row)

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
        """Write columns of a stored row and announce the change. Only columns that differ from the row are written."""
        values = self._values_to_write(update_fields)
        stored = self.stored_row.values
        version, audited = stored.get("version"), [field for field in values if field.name not in BOOKKEEPING]
        row = None
        if version is not None and all(field.attname in stored for field in audited):
            row = self._update(using, values, stored, version)
        if row is None:
            with transaction.atomic(using=using, savepoint=False):
                before = self._locked_row(using)
                row = self._update(using, _without_equal(values, before), before) or before
            self.take_over(row)
        if writes.has_expressions(values):
            self.__dict__.update({field.attname: row[field.attname] for field in values})
        self.__dict__.update({name: row[name] for name in BOOKKEEPING})
        self.note_written(row, [field.attname for field in values])

    def _update(
        self, using: str, values: dict[Column, Any], before: Mapping[str, Any], version: int | None = None
    ) -> dict[str, Any] | None:
        """Write these values and announce how they differ from `before`; return the row.

        Return None if there is nothing to write, or if the row does not have this version.
        """
        audited = [field for field in values if field.name not in BOOKKEEPING]
        if not audited:
            return None

        def describe(after: Mapping[str, Any]) -> Change | None:
            pairs = [(before[field.attname], after[field.attname]) for field in audited]
            olds, news = zip(*pairs, strict=True)
            owner_id = after.get(self.owned_by, self.owner_pk) if self.owned_by else None
            return self.change_of(self.pk, owner_id, audited, olds, news)

        write = writes.update(type(self), self.pk, values, using, version)
        return self._write(write, values, self.audit_action(audited), describe, using)

    def _write(
        self,
        write: writes.RowWrite,
        values: Mapping[Column, Any],
        action: str,
        describe: Callable[[Mapping[str, Any]], Change | None],
        using: str,
    ) -> dict[str, Any] | None:
        """Run the write and announce the change that `describe` makes of the stored row; return that row.

        Both take one statement if the database can do that and the values are no expressions.
        """
        if writes.can_include_statements(using) and not writes.has_expressions(values):
            change = describe({field.attname: as_stored(field, value) for field, value in values.items()})
            return write.run(self.log_statements(action, change, using) if change else [])
        with transaction.atomic(using=using, savepoint=False):
            row = write.run()
            if row is not None and (change := describe(row)):
                self.announce(action, [change], using)
        return row

    def _locked_row(self, using: str) -> dict[str, Any]:
        """Lock the row and return it."""
        row: dict[str, Any] | None = self._row(using).select_for_update(no_key=True).values().first()
        if row is None:
            raise RowGoneError(f"There is no {self._meta.verbose_name} {self.pk} any more: nothing was saved.")
        return row

    def _values_to_write(self, update_fields: Iterable[str] | None) -> dict[Column, Any]:
        """Return the values of these columns and of `updated_at`. The database raises the version itself."""
        names = set(update_fields or self._column_names() - {"created_at"}) | BOOKKEEPING
        columns = [field for field in self._meta.concrete_fields if {field.name, field.attname} & names]
        return {field: field.pre_save(self, add=False) for field in columns if field.name != "version"}

    @classmethod
    def _column_names(cls) -> set[str]:
        columns = [field for field in cls._meta.concrete_fields if not field.primary_key]
        return {name for field in columns for name in (field.name, field.attname)}

    @classmethod
    def prepare_for_insert(cls, rows: list[Any]) -> None:
        """Do for rows that are inserted together what `save()` does for each."""

    @classmethod
    def prepare_for_update(cls, rows: list[Any]) -> None:
        """Do for rows that are updated together what `save()` does for each."""

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


def _without_equal(values: dict[Column, Any], stored: Mapping[str, Any]) -> dict[Column, Any]:
    """Return the values that saving would change, besides those of bookkeeping."""
    return {
        field: value for field, value in values.items() if field.name in BOOKKEEPING or is_changed(field, stored, value)
    }
