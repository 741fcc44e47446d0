"""Query sets whose writes are audited."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import reduce
from operator import or_
from typing import Any, Self

from django.db import NotSupportedError, connections, models, router, transaction
from django.db.models import Count, Exists, F, OuterRef, ProtectedError, Value
from django.utils import timezone

from records.db.compiled import CompilableQuerySet
from records.db.expressions import AnyOf, IsDistinctFrom, Mapped
from records.models.changes import Change, rows_purged
from records.models.relations import Column, protects_target, record_references
from records.models.tracking import BOOKKEEPING
from records.models.values import as_json, as_stored

#: Key of a row → the id of its owner and the values of some columns.
RowValues = dict[Any, tuple[Any, tuple[Any, ...]]]


class RecordQuerySet(CompilableQuerySet[Any]):
    model: Any
    _db: str | None

    def visible_to(self, user: Any) -> Self:
        """Return the rows that `user` may see: all rows for staff with view permission, else their own rows.

        Everyone sees the rows of a public model. Rows whose parent is deleted are hidden from everyone.
        """
        lookups = self.model.parent_deletion_lookups()
        if self.model.is_public or user.may("view", self.model):
            return self.filter(**dict.fromkeys(lookups))
        if self.model.owned_by is None:
            return self.none()
        # The owner is the user, who is not deleted.
        owners_deletion = f"{self.model._meta.get_field(self.model.owned_by).name}__deleted_at"
        others = {lookup: None for lookup in lookups if lookup != owners_deletion}
        return self.filter(**{self.model.owned_by: user.pk}, **others)

    # Updates

    def update(self, **values: Any) -> int:
        """Write these values to the rows that differ from them: three statements, or four with expressions.

        Return the number of rows that match, as Django does.
        """
        return self._write(values)

    update.alters_data = True  # type: ignore[attr-defined]

    def _write(self, values: Mapping[str, Any], action: str | None = None) -> int:
        if not values:
            return self.count()
        columns = {self.model._meta.get_field(name): value for name, value in values.items()}
        written = {column: value for column, value in columns.items() if column.name not in BOOKKEEPING}
        with transaction.atomic(using=self._write_alias(), savepoint=False):
            before = self._locked_values(written)
            if not before:
                return 0
            # The locked rows only: others that match may have been inserted since.
            rows = (self if self.query.annotations else self._all_rows()).filter(AnyOf("pk", before))
            stamps = {"updated_at": timezone.now(), **values, "version": F("version") + 1}
            models.QuerySet.update(rows._differing_from(written), **stamps)
            changes = self._changes(before, self._values_after(before, written), list(written))
            self.model.announce(action or self.model.audit_action(written), changes, self._write_alias())
        return len(before)

    def _differing_from(self, values: Mapping[Column, Any]) -> Self:
        conditions = [_differs(column, value) for column, value in values.items()]
        return self.filter(reduce(or_, conditions)) if conditions else self

    def _changes(self, before: RowValues, after: RowValues, columns: list[Column]) -> list[Change]:
        changes = (
            self.model.change_of(key, owner_id, columns, old, after[key][1]) for key, (owner_id, old) in before.items()
        )
        return [change for change in changes if change]

    def _values_after(self, before: RowValues, written: Mapping[Column, Any]) -> RowValues:
        """Return what these rows hold after `written` was written to them; read it if there are expressions."""
        if any(hasattr(value, "resolve_expression") for value in written.values()):
            return self._all_rows().filter(AnyOf("pk", before))._values_by_key(written)
        stored = tuple(as_stored(column, value) for column, value in written.items())
        return dict.fromkeys(before, (None, stored))

    def _locked_values(self, columns: Iterable[Column], *, for_removal: bool = False) -> RowValues:
        """Lock the rows and return their values; with `for_removal`, also lock them against new references."""
        query, rows = self.query, self
        if query.distinct or query.group_by is not None or query.combinator:
            rows = self._all_rows().filter(pk__in=self.order_by().values("pk"))
        locked = rows.select_for_update(of=("self",), no_key=not for_removal)
        return locked.order_by("pk")._values_by_key(columns)

    def _values_by_key(self, columns: Iterable[Column]) -> RowValues:
        names = [column.attname for column in columns]
        if self.model.owned_by is None:
            return {key: (None, values) for key, *values in self.values_list("pk", *names)}
        return {key: (owner, values) for key, owner, *values in self.values_list("pk", self.model.owned_by, *names)}

    def _all_rows(self) -> Self:
        rows: Self = self.model.all_objects.using(self._write_alias())
        return rows

    def _write_alias(self) -> str:
        alias: str = self._db or router.db_for_write(self.model)
        return alias

    def bulk_save(self, rows: Sequence[Any]) -> None:
        """Save the changes of rows that the current transaction has locked, by three statements for any number of rows.

        One UPDATE writes all columns that change in any of the rows, and the rows are read again for the audit log. A
        row without changes keeps its version.
        """
        self.model.prepare_for_update(list(rows))
        changed = {row: fields for row in rows if (fields := row.changed_fields())}
        if not changed:
            return
        using = self._write_alias()
        is_open = connections[using].in_atomic_block
        values = {column.name: _values_of(column, changed) for column in _union(changed.values())}
        with transaction.atomic(using=using, savepoint=False):
            written = self._all_rows().filter(AnyOf("pk", [row.pk for row in changed]))
            models.QuerySet.update(written, **values, updated_at=timezone.now(), version=F("version") + 1)
            after = {row[self.model._meta.pk.attname]: row for row in written.order_by().values()}
            self._announce_saved(changed, after)
        for row, fields in changed.items():
            row.__dict__.update(after[row.pk])
            row.note_written(after[row.pk], [field.attname for field in fields])
            row.note_transaction(using, is_open=is_open, is_new=False)

    bulk_save.alters_data = True  # type: ignore[attr-defined]

    def _announce_saved(self, changed: Mapping[Any, list[Column]], after: Mapping[Any, Mapping[str, Any]]) -> None:
        changes: dict[str, list[Change]] = defaultdict(list)
        for row, fields in changed.items():
            before, stored = row.stored_row.values, after[row.pk]
            owner_id = stored[self.model.owned_by] if self.model.owned_by else None
            olds, news = ([values[field.attname] for field in fields] for values in (before, stored))
            if change := self.model.change_of(row.pk, owner_id, fields, olds, news):
                changes[self.model.audit_action(fields)].append(change)
        for action, same_action in changes.items():
            self.model.announce(action, same_action, self._write_alias())

    # Insertion

    def bulk_create(  # type: ignore[override]
        self,
        objs: Iterable[Any],
        batch_size: int | None = None,
        ignore_conflicts: bool = False,
        update_conflicts: bool = False,
        **options: Any,
    ) -> list[Any]:
        if ignore_conflicts or update_conflicts:
            raise NotSupportedError("The database does not report which rows it inserted, so they cannot be audited.")
        using, rows = self._write_alias(), list(objs)
        self.model.prepare_for_insert(rows)
        is_open = connections[using].in_atomic_block
        with transaction.atomic(using=using, savepoint=False):
            created = super().bulk_create(rows, batch_size, **options)
            self.model.announce_creation(created, using)
        for row in created:
            row.note_transaction(using, is_open=is_open, is_new=True)
        return created

    bulk_create.alters_data = True  # type: ignore[attr-defined]

    # Deletion

    def delete(self) -> tuple[int, dict[str, int]]:
        """Delete the rows and all rows that belong to them. The audit log keeps their values."""
        return self._remove("delete")

    delete.alters_data = True  # type: ignore[attr-defined]
    delete.queryset_only = True  # type: ignore[attr-defined]

    def purge(self) -> tuple[int, dict[str, int]]:
        """Delete the rows and erase their values from the audit log."""
        return self._remove("purge")

    purge.alters_data = True  # type: ignore[attr-defined]

    def _remove(self, action: str) -> tuple[int, dict[str, int]]:
        columns = self.model.audited_fields() if action == "delete" else []
        with transaction.atomic(using=self._write_alias()):
            before = self._locked_values(columns, for_removal=True)
            if not before:
                return 0, {}
            self._raise_if_protected(before, permanently=True)
            counts = self._detach_references(before, action)
            counts.update(models.QuerySet.delete(self._all_rows().filter(AnyOf("pk", before)))[1])
            self.model.announce(action, _removals(before, columns), self._write_alias())
            if action == "purge":
                rows_purged.send(self.model, keys=list(before), using=self._write_alias())
        return sum(counts.values()), dict(counts)

    def _detach_references(self, keys: Iterable[Any], action: str) -> Counter[str]:
        """Delete or update the rows that refer to these, as `on_delete` says; return the numbers of deleted rows."""
        counts: Counter[str] = Counter()
        for field in record_references(self.model):
            rows = field.model.all_objects.using(self._write_alias()).filter(AnyOf(field.name, keys))
            match field.remote_field.on_delete:
                case models.CASCADE:
                    counts.update(rows._remove(action)[1])
                case models.SET_NULL:
                    rows.update(**{field.name: None})
                case models.SET_DEFAULT:
                    rows.update(**{field.name: field.get_default()})
        return counts

    def protecting_rows(self, keys: Iterable[Any], *, permanently: bool) -> list[str]:
        """Return which rows prevent the deletion of these, for instance ["3 products"].

        Deleted rows count only if the deletion is permanent.
        """
        counts = [(rows.model, rows.count()) for _, rows in self._protecting(keys, permanently=permanently)]
        return [_described(model, count) for model, count in counts if count]

    def protection_of(self, keys: Iterable[Any], *, permanently: bool) -> dict[Any, str]:
        """Return the key of each row whose deletion others prevent, with the reason. One query for each relation."""
        described: dict[Any, list[str]] = defaultdict(list)
        for field, rows in self._protecting(keys, permanently=permanently):
            for key, count in rows.order_by().values_list(field.attname).annotate(Count("pk")):
                described[key].append(_described(field.model, count))
        return {key: self._protection(rows) for key, rows in described.items()}

    def _protecting(self, keys: Iterable[Any], *, permanently: bool) -> Iterator[tuple[Any, Any]]:
        """Yield the foreign keys by which rows prevent the deletion of these, with those rows."""
        for field in filter(protects_target, record_references(self.model)):
            rows = field.model.all_objects if permanently else field.model.objects
            yield field, rows.using(self._write_alias()).filter(AnyOf(field.name, keys))

    def _protection(self, rows: list[str]) -> str:
        return f"The {self.model._meta.verbose_name} is in use by {' and '.join(rows)}."

    def _raise_if_protected(self, keys: Iterable[Any], *, permanently: bool) -> None:
        if rows := self.protecting_rows(keys, permanently=permanently):
            raise ProtectedError(self._protection(rows), set())

    def _unprotected(self) -> Self:
        rows = self
        for field in filter(protects_target, record_references(self.model)):
            rows = rows.filter(~Exists(field.model.all_objects.filter(**{field.name: OuterRef("pk")})))
        return rows


def _differs(column: Column, value: Any) -> IsDistinctFrom:
    if not hasattr(value, "resolve_expression"):
        value = Value(value.pk if isinstance(value, models.Model) else value, column)
    return IsDistinctFrom(F(column.attname), value)


def _union(lists: Iterable[list[Column]]) -> list[Column]:
    return list(dict.fromkeys(column for columns in lists for column in columns))


def _values_of(column: Column, rows: Iterable[Any]) -> Any:
    """Return the value to store in a column of these rows: one for all, or an expression with one for each."""
    values = {row.pk: as_stored(column, getattr(row, column.attname)) for row in rows}
    first, *others = values.values()
    # Python holds the JSON values 1 and true for equal.
    is_mapped = isinstance(column, models.JSONField) or any(value != first for value in others)
    return Mapped("pk", values, column) if is_mapped else first


def _described(model: Any, count: int) -> str:
    return f"{count:,} {model._meta.verbose_name if count == 1 else model._meta.verbose_name_plural}"


def _removals(before: RowValues, columns: Iterable[Column]) -> list[Change]:
    names = [column.attname for column in columns]
    return [
        Change(key, owner, {name: [as_json(old), None] for name, old in zip(names, values, strict=True)})
        for key, (owner, values) in before.items()
    ]
