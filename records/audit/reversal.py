"""What has to be written to undo some audit entries: one reversal for each row, taken from all its entries."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from django.apps import apps
from django.core.exceptions import FieldDoesNotExist
from django.db import models

from records.audit.models import AuditEntry
from records.exceptions import ConflictError
from records.models import Record
from records.models.values import from_json

CREATIONS = frozenset({"create", "register"})
#: Actions that always change something: an entry of theirs without changes was erased.
CHANGES = frozenset({"create", "update", "delete", "restore", "undo", "register"})
#: Actions that cannot be undone, with the reason.
IRREVERSIBLE = {
    "purge": "it was removed for good",
    "password_change": "the log keeps no passwords",
    "password_reset": "the log keeps no passwords",
}


@dataclass
class Reversal:
    """The values of one row before and after a sequence of entries, with the conflicts that prevent undoing them."""

    model: Any
    key: Any
    last_entry: int = 0
    is_new: bool = False  # the first entry is the creation of the row
    before: dict[str, Any] = field(default_factory=dict)
    after: dict[str, Any] = field(default_factory=dict)
    #: Column → the value that was expected and the value that is there.
    conflicts: dict[str, tuple[Any, Any]] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.model._meta.verbose_name} {self.key}"

    def add(self, entry: AuditEntry) -> None:
        """Add the next entry about this row; entries must be added in the order of their ids."""
        self.last_entry = entry.pk
        self.is_new = self.is_new or entry.action in CREATIONS
        for name, (old, new) in entry.changes.items():
            expected = self.after.get(name, None if self.is_new else old)
            if not self._are_equal(name, expected, old):
                self.conflicts[name] = (expected, old)  # another request changed the column in between
            self.before.setdefault(name, old)
            self.after[name] = new

    def _are_equal(self, name: str, expected: Any, old: Any) -> bool:
        is_equal: bool = stored_value(self.model, name, expected) == stored_value(self.model, name, old)
        return is_equal or (is_empty(expected) and is_empty(old))

    def compare(self, row: Record) -> None:
        """Add a conflict for each column of the current row that differs from what the entries left in it."""
        audited = [column.attname for column in self.model.audited_fields() if column.name != "created_at"]
        for name in dict.fromkeys([*self.after, *(audited if self.is_new else ())]):
            current = current_value(row, name)
            expected = stored_value(self.model, name, self.after.get(name))
            if current != expected and not (is_empty(current) and is_empty(expected)):
                self.conflicts.setdefault(name, (expected, current))


@cache
def record_models() -> dict[str, type[Record]]:
    """Return the model of each `object_type`."""
    return {model._meta.db_table: model for model in apps.get_models() if issubclass(model, Record)}


def reversals(entries: Iterable[AuditEntry]) -> list[Reversal]:
    """Return the reversal of each row, the most recently changed first; ConflictError if an entry cannot be undone."""
    rows: dict[tuple[str, str], Reversal] = {}
    for entry in entries:
        if entry.outcome != AuditEntry.Outcome.SUCCESS:
            continue
        _raise_if_irreversible(entry)
        if not entry.changes:
            continue  # an event without changes, such as a login
        model = _model_of(entry)
        key = (entry.object_type, str(entry.object_id))
        rows.setdefault(key, Reversal(model, model._meta.pk.to_python(entry.object_id))).add(entry)
    if not rows:
        raise ConflictError("These entries contain no change that can be undone.")
    return sorted(rows.values(), key=lambda row: -row.last_entry)


def _raise_if_irreversible(entry: AuditEntry) -> None:
    reason = IRREVERSIBLE.get(entry.action)
    if reason is None and entry.action in CHANGES and not entry.changes:
        reason = IRREVERSIBLE["purge"]
    if reason is not None:
        raise ConflictError(f"{entry.object_type} {entry.object_id} cannot be undone: {reason}.")


def _model_of(entry: AuditEntry) -> Any:
    model = record_models().get(entry.object_type)
    if model is None:
        raise ConflictError(f"There are no {entry.object_type} any more.")
    if entry.action == "delete" and not model.is_soft_deletable:
        raise ConflictError(f"{model._meta.verbose_name} {entry.object_id} was deleted for good.")
    return model


def column_of(model: type[models.Model], name: str) -> Any:
    try:
        return model._meta.get_field(name)
    except FieldDoesNotExist:
        raise ConflictError(f"A {model._meta.verbose_name} has no {name} any more.") from None


def stored_value(model: type[models.Model], name: str, value: Any) -> Any:
    """Return the value of a column from its JSON in an entry."""
    column = column_of(model, name)
    return value if value is None or column.many_to_many else from_json(column, value)


def current_value(row: models.Model, name: str) -> Any:
    value = getattr(row, name)
    return sorted(value.values_list("pk", flat=True)) if column_of(type(row), name).many_to_many else value


def is_empty(value: Any) -> bool:
    """Return True for null and "": the entry of a creation leaves both out."""
    return value is None or value == ""
