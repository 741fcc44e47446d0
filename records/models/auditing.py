"""Which columns are audited, and how their changes are announced to the audit log."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Self

from django.db import models

from records.db.compiled.writes import SQL
from records.db.expressions import AnyOf
from records.models.changes import Change, row_written, rows_changed
from records.models.ownership import OwnedModel
from records.models.relations import Column
from records.models.tracking import BOOKKEEPING
from records.models.values import as_json, as_stored


class AuditedModel(OwnedModel):
    """A model whose changes are announced, in the transaction that makes them."""

    #: Columns whose values are never announced.
    secret_fields: ClassVar[frozenset[str]] = frozenset()

    class Meta:
        abstract = True

    @classmethod
    def audit_action(cls, fields: Iterable[Column]) -> str:
        """Return the action under which a change of these fields is recorded."""
        return "update"

    @classmethod
    def audited_fields(cls) -> list[Column]:
        return [
            column
            for column in cls._meta.concrete_fields
            if not column.primary_key and column.attname not in cls.secret_fields and column.name not in BOOKKEEPING
        ]

    @classmethod
    def announce(cls, action: str, changes: list[Change], using: str | None) -> None:
        """Send these changes to the audit log, in the current transaction."""
        if changes:
            rows_changed.send(cls, action=action, changes=changes, using=using)

    @classmethod
    def change_of(
        cls, key: Any, owner_id: Any, fields: Sequence[Column], before: Sequence[Any], after: Sequence[Any]
    ) -> Change | None:
        """Return the change of a row from one list of values of `fields` to another; None if they are equal."""
        changed = {
            field.attname: (old, new) for field, old, new in zip(fields, before, after, strict=True) if old != new
        }
        if not changed:
            return None
        if cls.owned_by in changed:
            owner_id = changed[cls.owned_by][1] or owner_id
        pairs = {
            name: [as_json(old), as_json(new)] for name, (old, new) in changed.items() if name not in cls.secret_fields
        }
        return Change(key, owner_id, pairs)

    @classmethod
    def log_statements(cls, action: str, change: Change, using: str) -> list[SQL]:
        """Return the statements that write this change to the audit log as a part of the one that writes the row."""
        responses: list[tuple[Any, Any]] = row_written.send(cls, action=action, change=change, using=using)
        return [statement for _, statement in responses]

    @classmethod
    def announce_creation(cls, rows: Sequence[Self], using: str) -> None:
        """Announce rows that were inserted, with the values that the database stored."""
        fields = cls.audited_fields()
        cls._read_expressions(rows, [field.attname for field in fields], using)
        changes = []
        for row in rows:
            row.note_stored(column.attname for column in cls._meta.concrete_fields)
            written = {field.attname: as_stored(field, getattr(row, field.attname)) for field in fields}
            row.note_written(written, written)
            changes.append(cls.creation_of(row.stored_row.values))
        cls.announce("create", changes, using)

    @classmethod
    def creation_of(cls, values: Mapping[str, Any]) -> Change:
        """Return the change of a row that was created with these values."""
        names = [field.attname for field in cls.audited_fields() if field.name != "created_at"]
        pairs = {name: [None, as_json(values[name])] for name in names if values[name] not in (None, "")}
        owner_id = values.get(cls.owned_by) if cls.owned_by else None
        return Change(values.get(cls._meta.pk.attname), owner_id, pairs)

    @classmethod
    def _read_expressions(cls, rows: Sequence[Self], names: list[str], using: str) -> None:
        """Replace expressions that were inserted by the values that the database computed.

        PostgreSQL changes JSON too: it sorts the keys of objects.
        """
        has_json = any(isinstance(field, models.JSONField) for field in cls.audited_fields())
        if not has_json and not any(
            hasattr(row.__dict__.get(name), "resolve_expression") for row in rows for name in names
        ):
            return
        all_objects: Any = cls.all_objects  # type: ignore[attr-defined]
        stored = {row.pk: row for row in all_objects.using(using).filter(AnyOf("pk", [row.pk for row in rows]))}
        for row in rows:
            row.__dict__.update({name: stored[row.pk].__dict__[name] for name in names})
