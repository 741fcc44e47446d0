"""What the database holds of an instance, from which `save()` finds out what to write."""

import copy
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from django.db import connections, models

from records.models.relations import Column
from records.models.values import as_stored

#: Columns that change with every write and that no audit entry mentions.
BOOKKEEPING = frozenset({"version", "updated_at"})


@dataclass(frozen=True)
class StoredRow:
    """The columns of one instance as the database is known to hold them.

    Life cycle: empty for a new instance, filled when columns are read, updated when they are written. A write inside
    a transaction is provisional until the transaction ends, because it may be rolled back: the next save reads the
    row again, and takes over what has not been changed here. Instances are immutable, so that a copy of a record keeps
    its own.
    """

    #: Column → value. `version`, where it is known, is the version of all the other values.
    values: Mapping[str, Any] = field(default_factory=dict)
    #: Alias of the database in whose open transaction the row was last written; None if nothing is provisional.
    provisional_in: str | None = None
    #: Whether that transaction also created the row.
    is_new: bool = False
    #: Columns that were written in that transaction.
    written: frozenset[str] = frozenset()

    def with_values(self, values: Mapping[str, Any]) -> "StoredRow":
        # Only JSON columns have mutable values.
        copies = {
            name: copy.deepcopy(value) if isinstance(value, (dict, list)) else value for name, value in values.items()
        }
        return replace(self, values={**self.values, **copies})

    def without_version(self) -> "StoredRow":
        """Return the same row for when its values may come from different versions."""
        return replace(self, values={name: value for name, value in self.values.items() if name != "version"})


class TrackedModel(models.Model):
    """A model whose instances know which columns differ from the database."""

    stored_row: StoredRow = StoredRow()
    version: Any

    class Meta:
        abstract = True

    @classmethod
    def from_db(cls, db: str | None, field_names: Any, values: Any, **options: Any) -> Self:
        # Django 6.1 passes `fetch_mode`.
        record = super().from_db(db, field_names, values, **options)
        record.note_stored(field_names)
        return record

    def refresh_from_db(self, using: str | None = None, fields: Any = None, from_queryset: Any = None) -> None:
        super().refresh_from_db(using=using, fields=fields, from_queryset=from_queryset)
        self.note_stored(fields or [column.attname for column in self._meta.concrete_fields])
        if fields and "version" in fields:
            self._set_stored(self.stored_row.without_version())

    def note_stored(self, names: Iterable[str]) -> None:
        """Remember that the database holds the current values of these columns; deferred ones are skipped."""
        current = {name: self.__dict__[name] for name in names if name in self.__dict__}
        self._set_stored(self.stored_row.with_values(current))

    def note_written(self, row: Mapping[str, Any], names: Iterable[str]) -> None:
        """Remember that these columns were written, and what the database holds since then."""
        stored = self.stored_row
        self._set_stored(replace(stored.with_values(row), written=stored.written.union(names)))

    def note_transaction(self, using: str, *, is_open: bool, is_new: bool) -> None:
        """Remember whether the last write was inside of a transaction, and whether it created the row."""
        stored = self.stored_row
        if is_open:
            self._set_stored(replace(stored, provisional_in=using, is_new=is_new))
        else:
            self._set_stored(StoredRow(stored.values))

    def changed_fields(self) -> list[Column]:
        """Return the fields whose value differs from the stored one; deferred fields are unchanged."""
        stored = self.stored_row.values
        return [
            column
            for column in self._meta.concrete_fields
            if column.attname in self.__dict__
            and not column.primary_key
            and column.name not in BOOKKEEPING
            and is_changed(column, stored, self.__dict__[column.attname])
        ]

    def reload_if_rolled_back(self) -> None:
        """Read the row again if it was written in a transaction that may have been rolled back.

        A lower version shows that it was: then the columns that were written keep their values, to be saved again.
        """
        stored = self.stored_row
        if stored.provisional_in is None:
            return
        rows: models.QuerySet[Any] = models.QuerySet(type(self), using=stored.provisional_in)
        row = rows.filter(pk=self.pk).values(*stored.values).first()
        if row is None:
            if stored.is_new:
                self.mark_as_new()
            self._set_stored(StoredRow())
            return
        is_rolled_back = row["version"] < stored.values["version"]
        self.take_over(row, except_for=stored.written if is_rolled_back else ())
        is_settled = not connections[stored.provisional_in].in_atomic_block
        self._set_stored(StoredRow(row) if is_settled else replace(stored, values=row))

    def take_over(self, row: Mapping[str, Any], except_for: Collection[str] = ()) -> None:
        """Set the columns that have not been changed here to what the database holds by now."""
        stored = self.stored_row.values
        for column in self._meta.concrete_fields:
            name = column.attname
            if name not in stored or name not in self.__dict__ or name in except_for:
                continue
            if stored[name] != row[name] and not is_changed(column, stored, self.__dict__[name]):
                setattr(self, name, row[name])

    def mark_as_new(self) -> None:
        """Let the next save create a row."""
        self._state.adding = True
        self.version = 1

    def _set_stored(self, stored: StoredRow) -> None:
        self.__dict__["stored_row"] = stored


def is_changed(column: Column, stored: Mapping[str, Any], value: Any) -> bool:
    """Return True if saving `value` would change what is stored in the column: "175.5" equals Decimal("175.50")."""
    if column.attname not in stored or hasattr(value, "resolve_expression"):
        return True
    old = stored[column.attname]
    return bool(old != value and as_stored(column, old) != as_stored(column, value))
