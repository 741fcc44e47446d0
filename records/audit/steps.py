"""The writes that undo audit entries. Rows that need the same write share a step."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from records.audit.reversal import Reversal, column_of, stored_value
from records.db.expressions import AnyOf, Mapped
from records.exceptions import ConflictError
from records.models.relations import requires_live_target
from records.models.soft_deletion import DELETION_STATE, LIVE_STATE


@dataclass(frozen=True)
class Step(ABC):
    """A write to rows of one model. Equal steps are written together."""

    model: Any

    def rows(self, group: list[Reversal]) -> Any:
        return self.model.all_objects.filter(AnyOf("pk", [row.key for row in group]))

    @abstractmethod
    def write(self, group: list[Reversal]) -> None: ...


class RemoveCreated(Step):
    """Delete rows whose creation is undone."""

    def write(self, group: list[Reversal]) -> None:
        options = {"reason": "Its creation was undone."} if self.model.is_soft_deletable else {}
        self.rows(group).delete(**options)


@dataclass(frozen=True)
class DeleteAgain(Step):
    """Delete rows whose restoration is undone, with the deletion state that they had before."""

    state: tuple[tuple[str, Any], ...]

    def write(self, group: list[Reversal]) -> None:
        state = {name: stored_value(self.model, name, value) for name, value in self.state}
        self.rows(group).delete(state=LIVE_STATE | state)


class Restore(Step):
    """Restore rows whose deletion is undone."""

    def write(self, group: list[Reversal]) -> None:
        self.rows(group).restore()


@dataclass(frozen=True)
class SetColumns(Step):
    names: tuple[str, ...]

    def write(self, group: list[Reversal]) -> None:
        rows = self.rows(group)
        rows.update(**{name: self._value(name, group) for name in self.names})
        live = rows.live() if self.model.is_soft_deletable else rows
        for column in (column_of(self.model, name) for name in self.names):
            if requires_live_target(column) and live.filter(**{f"{column.name}__deleted_at__isnull": False}).exists():
                name = self.model._meta.verbose_name
                raise ConflictError(f"Nothing was undone: the {column.verbose_name} of a {name} is deleted.")

    def _value(self, name: str, group: list[Reversal]) -> Any:
        """Return the value to store in this column: one for all rows, or an expression with one for each."""
        values = {row.key: stored_value(self.model, name, row.before[name]) for row in group}
        first, *others = values.values()
        is_same = all(value == first for value in others)
        return first if is_same else Mapped("pk", values, column_of(self.model, name))


@dataclass(frozen=True)
class SetRelations(Step):
    names: tuple[str, ...]

    def write(self, group: list[Reversal]) -> None:
        instances = self.rows(group).in_bulk()
        for row in group:
            for name in self.names:
                getattr(instances[row.key], name).set(row.before[name])


def grouped_steps(rows: Iterable[Reversal]) -> Iterable[tuple[Step, list[Reversal]]]:
    """Return the steps in the order of the rows, each with all the rows that it writes."""
    groups: dict[Step, list[Reversal]] = {}
    for row in rows:
        for step in _steps_of(row):
            groups.setdefault(step, []).append(row)
    return groups.items()


def _steps_of(row: Reversal) -> Iterator[Step]:
    if row.is_new:
        yield RemoveCreated(row.model)
        return
    state = {name: row.before[name] for name in DELETION_STATE if name in row.before}
    if "deleted_at" in state:
        yield DeleteAgain(row.model, tuple(state.items())) if state["deleted_at"] else Restore(row.model)
    yield from _steps_of_values(row.model, [name for name in row.before if name not in state])


def _steps_of_values(model: Any, names: list[str]) -> Iterator[Step]:
    relations = tuple(name for name in names if column_of(model, name).many_to_many)
    if relations:
        yield SetRelations(model, relations)
    if columns := tuple(name for name in names if name not in relations):
        yield SetColumns(model, columns)
