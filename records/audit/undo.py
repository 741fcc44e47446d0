"""Undoing: rows are put back to what they were, by new changes of which the log tells like of any other."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from django.apps import apps
from django.core.exceptions import FieldDoesNotExist, ValidationError
from django.db import IntegrityError, models, transaction
from django.utils.text import capfirst
from rest_framework.exceptions import PermissionDenied

from records import context
from records.audit.models import AuditEntry
from records.db.expressions import AnyOf, Mapped
from records.models import Record
from records.models.relations import requires_live_target
from records.models.soft_deletion import DELETION_STATE, SoftDeletable
from records.models.values import as_json, from_json
from records.rest.errors import Conflict, from_constraint
from records.rest.serializers import api_names

LARGEST = 100_000

CONFLICTS_NAMED = 20

CREATIONS = {"create", "register"}

#: They change something always: without it, the entry was emptied.
CHANGES = frozenset({"create", "update", "delete", "restore", "undo", "register"})

#: Whose changes cannot be taken back by what the log knows.
FINAL = {
    "purge": "it was removed for good",
    "password_change": "the log keeps no passwords",
    "password_reset": "the log keeps no passwords",
}


@dataclass
class Row:
    """What some entries did to one row, taken together."""

    model: type[Record]
    key: Any
    last_entry: int = 0
    is_new: bool = False
    before: dict[str, Any] = field(default_factory=dict)
    after: dict[str, Any] = field(default_factory=dict)
    conflicts: dict[str, tuple[Any, Any]] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.model._meta.verbose_name} {self.key}"

    def add(self, entry: AuditEntry) -> None:
        """The next entry about this row, later than those before."""
        self.last_entry = entry.pk
        self.is_new = self.is_new or entry.action in CREATIONS
        for name, (old, new) in entry.changes.items():
            then = self.after.get(name, None if self.is_new else old)
            if _value(self.model, name, then) != _value(self.model, name, old) and not (
                _is_empty(then) and _is_empty(old)
            ):
                self.conflicts[name] = (then, old)  # somebody else's change lies between
            self.before.setdefault(name, old)
            self.after[name] = new

    def compare(self, present: Record) -> None:
        """Find what is not as these entries left it."""
        names = [each.attname for each in self.model.audited_fields() if each.name != "created_at"]
        for name in dict.fromkeys([*self.after, *(names if self.is_new else ())]):
            now = _present_value(present, name)
            then = _value(self.model, name, self.after.get(name))
            if now != then and not (_is_empty(now) and _is_empty(then)):
                self.conflicts.setdefault(name, (then, now))


def undo(entries: models.QuerySet, user: Any) -> int:
    """Put the rows of these entries back to what they were before them; returns how many rows there were.

    All or nothing, in a number of statements that does not grow with the rows. Conflict where a row is no longer what
    the entries left it as, or where nothing can be put back; PermissionDenied where `user` may not change the rows.
    """
    found = list(entries.order_by("id")[: LARGEST + 1])
    if len(found) > LARGEST:
        raise Conflict(f"More than {LARGEST:,} changes cannot be undone at once.")
    rows = _rows(found)
    try:
        with transaction.atomic(), context.record_as("undo"):
            present = _lock(rows, user)
            _refuse_conflicts(rows, present, named=len(found) == 1)
            for model, kind, values, group in _grouped(rows):
                _put_back(model, kind, values, group)
    except ValidationError as error:
        raise Conflict(error.messages[0]) from None
    except models.ProtectedError as error:
        raise Conflict(f"Nothing was undone: {error.args[0]}") from None
    except IntegrityError as error:
        raise _lost(error) from None
    return len(rows)


@cache
def kinds() -> dict[str, type[Record]]:
    """`object_type` → the model of such rows."""
    return {model._meta.db_table: model for model in apps.get_models() if issubclass(model, Record)}


def resource_names(object_type: str) -> dict[str, str]:
    """Column → what the resource calls it of which such entries tell."""
    model = kinds().get(object_type)
    return api_names(model) if model else {}


def _rows(entries: list[AuditEntry]) -> list[Row]:
    """What to put back, the last change first."""
    rows: dict[tuple[str, str], Row] = {}
    for entry in entries:
        if entry.outcome != AuditEntry.Outcome.SUCCESS:
            continue
        if reason := FINAL.get(entry.action):
            raise Conflict(f"{entry.object_type} {entry.object_id} cannot be put back: {reason}.")
        if not entry.changes and entry.action in CHANGES:
            raise Conflict(f"{entry.object_type} {entry.object_id} cannot be put back: {FINAL['purge']}.")
        if not entry.changes:
            continue  # a login and the like
        model = kinds().get(entry.object_type)
        if model is None:
            raise Conflict(f"There are no {entry.object_type} any more.")
        if entry.action == "delete" and not issubclass(model, SoftDeletable):
            raise Conflict(f"{model._meta.verbose_name} {entry.object_id} was deleted for good.")
        key = (entry.object_type, str(entry.object_id))
        rows.setdefault(key, Row(model, model._meta.pk.to_python(entry.object_id))).add(entry)
    if not rows:
        raise Conflict("Nothing was changed that could be put back.")
    return sorted(rows.values(), key=lambda row: -row.last_entry)


def _lock(rows: list[Row], user: Any) -> dict[tuple[type[Record], Any], Record]:
    """The rows as they are now, for those who may put them back; nobody else changes them meanwhile."""
    present = {}
    for model in dict.fromkeys(row.model for row in rows):
        own = {row.key: row for row in rows if row.model is model}
        verbs = {"delete" if row.is_new or row.before.get("deleted_at") else "change" for row in own.values()}
        if not all(user.may(verb, model) for verb in verbs):
            raise PermissionDenied(f"You may not {' and '.join(sorted(verbs))} {model._meta.verbose_name_plural}.")
        locked = model.all_objects.filter(AnyOf("pk", own)).select_for_update(of=("self",), no_key=True)
        present.update({(model, instance.pk): instance for instance in locked.order_by("pk")})
        closed = model.forbidden_keys(user, {key: () if row.is_new else row.before for key, row in own.items()})
        if closed:
            raise PermissionDenied(f"You may not change {model._meta.verbose_name} {min(closed)} so.")
    return present


def _refuse_conflicts(rows: list[Row], present: dict, *, named: bool) -> None:
    """`named`: only one row is at stake, and its fields need no further name."""
    errors: dict[str, list[str]] = {}
    count = 0
    for row in rows:
        instance = present.get((row.model, row.key))
        if instance is None:
            raise Conflict(f"There is no {row} any more.")
        row.compare(instance)
        count += bool(row.conflicts)
        for name, (then, now) in row.conflicts.items():
            if len(errors) < CONFLICTS_NAMED:
                shown = api_names(row.model).get(name, name)
                label = shown if named else f"{row.model._meta.db_table}.{row.key}.{shown}"
                errors[label] = [f"It was {_shown(then)} then and is {_shown(now)} now."]
    if errors:
        first = next(row for row in rows if row.conflicts)
        others = f" So have {count - 1:,} others." if count > 1 else ""
        raise Conflict(f"{capfirst(str(first))} has changed since.{others} Nothing was undone.", errors)


def _grouped(rows: list[Row]) -> Iterable[tuple[type[Record], str, Any, list[Row]]]:
    """Rows to which the same is done together, in the order of the last change first."""
    groups: dict[tuple, list[Row]] = {}
    for row in rows:
        if row.is_new:
            groups.setdefault((row.model, "remove", None), []).append(row)
            continue
        state = {name: row.before[name] for name in DELETION_STATE if name in row.before}
        if state.get("deleted_at"):
            groups.setdefault((row.model, "delete", tuple(state.items())), []).append(row)
        elif "deleted_at" in state:
            groups.setdefault((row.model, "restore", None), []).append(row)
        names = [name for name in row.before if name not in state]
        relations = tuple(name for name in names if _field(row.model, name).many_to_many)
        if relations:
            groups.setdefault((row.model, "relations", relations), []).append(row)
        if columns := tuple(name for name in names if name not in relations):
            groups.setdefault((row.model, "values", columns), []).append(row)
    return [(*key, group) for key, group in groups.items()]


def _put_back(model: type[Record], kind: str, values: Any, group: list[Row]) -> None:
    chosen: Any = model.all_objects.filter(AnyOf("pk", [row.key for row in group]))
    match kind:
        case "remove":
            chosen.delete(**({"reason": "Its creation was undone."} if issubclass(model, SoftDeletable) else {}))
        case "delete":
            empty = {"deleted_by": None, "deletion_reason": "", "deletion": None}
            chosen.delete(mark=empty | {name: _value(model, name, value) for name, value in values})
        case "restore":
            chosen.restore()
        case "values":
            chosen.update(**{name: _column(model, name, group) for name in values})
            _refuse_lost_owners(model, values, chosen)
        case "relations":
            instances = chosen.in_bulk()
            for row in group:
                for name in values:
                    getattr(instances[row.key], name).set(row.before[name])


def _refuse_lost_owners(model: type[Record], names: tuple[str, ...], rows: Any) -> None:
    """No row may live on with somebody who is deleted."""
    rows = rows.live() if issubclass(model, SoftDeletable) else rows
    for name in names:
        column = _field(model, name)
        if requires_live_target(column) and rows.filter(**{f"{column.name}__deleted_at__isnull": False}).exists():
            raise Conflict(f"Nothing was undone: the {column.verbose_name} of a {model._meta.verbose_name} is deleted.")


def _column(model: type[Record], name: str, group: list[Row]) -> Any:
    """What to store in this column: one value, or one for each row."""
    values = {row.key: _value(model, name, row.before[name]) for row in group}
    first, *others = values.values()
    return first if all(each == first for each in others) else Mapped("pk", values, _field(model, name))


def _value(model: type[Record], name: str, value: Any) -> Any:
    field = _field(model, name)
    return value if value is None or field.many_to_many else from_json(field, value)


def _field(model: type[Record], name: str) -> Any:
    try:
        return model._meta.get_field(name)
    except FieldDoesNotExist:
        raise Conflict(f"A {model._meta.verbose_name} has no {name} any more.") from None


def _present_value(instance: Record, name: str) -> Any:
    value = getattr(instance, name)
    return sorted(value.values_list("pk", flat=True)) if _field(type(instance), name).many_to_many else value


def _is_empty(value: Any) -> bool:
    """A creation is told of without what it left empty."""
    return value is None or value == ""


def _shown(value: Any) -> str:
    return "empty" if _is_empty(value) else str(as_json(value))


def _lost(error: IntegrityError) -> Conflict:
    """What was unique, or referred to, is taken or gone meanwhile."""
    refused: Any = from_constraint(error).detail
    if isinstance(refused, dict):
        return Conflict("Nothing was undone: an old value is taken.", refused)
    return Conflict("Nothing was undone: what a row referred to is gone, or an old value is taken.")
