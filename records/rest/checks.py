"""Checks of rows against the database, by a number of queries that does not depend on the number of rows."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.utils.text import capfirst

from records.db.compiled import compiled_rows
from records.db.constraints import Unique, constraint_fields
from records.db.expressions import AnyOf
from records.db.uniqueness import Match
from records.rest.columns import column_of, reference_fields


@dataclass
class Candidate:
    """A row as a request wants to store it, and the messages about its columns."""

    row: Any
    #: Columns that the request sets.
    sent: Collection[str]
    #: The stored values of the row; None for a new row.
    stored: Mapping[str, Any] | None = None
    errors: dict[str, list[str]] = field(default_factory=dict)

    def changes(self, column: str) -> bool:
        return column in self.sent and (self.stored is None or self.stored[column] != getattr(self.row, column))

    def add_error(self, column: str, message: str) -> None:
        self.errors.setdefault(column, []).append(message)


def check(candidates: Sequence[Candidate], model: Any, user: Any) -> None:
    """Add errors for owners, references and unique values that the database does not accept, as far as they are sent.

    `user` is who refers to rows; None stands for code that may refer to all.
    """
    _check_owners(candidates, model)
    for column, reference in reference_fields(model).items():
        _check_references([row for row in candidates if _must_check(row, column, reference)], reference, user)
    _check_moves(candidates, model)
    check_unique(candidates, model)


def _check_owners(candidates: Iterable[Candidate], model: Any) -> None:
    column = model.owned_by
    if column is None or column == model._meta.pk.attname:
        return
    sent = [candidate for candidate in candidates if column in candidate.sent]
    users = model._meta.get_field(column).related_model
    keys = {getattr(candidate.row, column) for candidate in sent}
    existing = _owners_by_key(compiled_rows(users._default_manager), keys)
    for candidate in sent:
        key = getattr(candidate.row, column)
        if key not in existing:
            candidate.add_error(column, f"User with ID {key} not found")


def _must_check(candidate: Candidate, column: str, reference: Any) -> bool:
    """Return True if the reference changes, or the row moves to another owner."""
    row = candidate.row
    if getattr(row, column) is None:
        return False
    return candidate.changes(column) or (row.owned_by in candidate.sent and reference in row.same_owner_fields())


def _check_references(candidates: Sequence[Candidate], reference: Any, user: Any) -> None:
    """Add errors for references to rows that the user cannot see or that belong to another owner."""
    target = reference.remote_field.model
    keys = [getattr(candidate.row, reference.attname) for candidate in candidates]
    rows = compiled_rows(target._default_manager)
    owners = _owners_by_key(rows.visible_to(user) if user else rows, set(keys))
    for candidate, key in zip(candidates, keys, strict=True):
        is_owned = reference in candidate.row.same_owner_fields()
        if key not in owners or (is_owned and owners[key] != candidate.row.owner_pk):
            candidate.add_error(reference.attname, f"{capfirst(target._meta.verbose_name)} with ID {key} not found")


def _owners_by_key(rows: Any, keys: set[Any]) -> dict[Any, Any]:
    """Return the owner of each of these rows that exists."""
    if not keys:
        return {}
    # The statement for one key is compiled once.
    chosen = rows.filter(pk=next(iter(keys))) if len(keys) == 1 else rows.filter(AnyOf("pk", keys))
    owner = rows.model.owned_by or "pk"
    return {row["pk"]: row[owner] for row in chosen.order_by().values(*dict.fromkeys(("pk", owner)))}


def _check_moves(candidates: Iterable[Candidate], model: Any) -> None:
    """Add errors for rows that cannot move to another owner."""
    column = model.owned_by
    moved = [candidate for candidate in candidates if candidate.stored is not None and candidate.changes(column)]
    messages = model.owner_change_errors([candidate.row for candidate in moved])
    for candidate in moved:
        if message := messages.get(candidate.row.pk):
            candidate.add_error(column, message)


def check_unique(candidates: Sequence[Candidate], model: Any) -> None:
    """Add errors for values that another stored row has, or one of the candidates before."""
    values: dict[int, list[tuple[Unique, tuple[Any, ...]]]] = defaultdict(list)
    for constraint, columns in _unique_constraints(model):
        for candidate, match in _matches(constraint, columns, candidates):
            values[id(candidate)].append((constraint, match.values))
            is_own = candidate.stored is not None and match.pk == candidate.row.pk
            if match.pk is not None and not is_own:
                _add_unique_error(candidate, constraint)
    # Compare the candidates with each other when all others are refused: a refused row takes no value.
    taken: set[tuple[str, tuple[Any, ...]]] = set()
    for candidate in candidates:
        for constraint, compared in values[id(candidate)]:
            if (constraint.name, compared) in taken:
                _add_unique_error(candidate, constraint)
        if not candidate.errors:
            taken |= {(constraint.name, compared) for constraint, compared in values[id(candidate)]}


def _unique_constraints(model: Any) -> Iterator[tuple[Unique, set[str]]]:
    for constraint in model._meta.constraints:
        if isinstance(constraint, Unique):
            yield constraint, {column_of(model, name) for name in constraint_fields(constraint)}


def _matches(
    constraint: Unique, columns: set[str], candidates: Iterable[Candidate]
) -> Iterator[tuple[Candidate, Match]]:
    concerned = [
        candidate
        for candidate in candidates
        if columns & set(candidate.sent)
        and all(getattr(candidate.row, column) for column in columns & candidate.row.derived_columns)
    ]
    for candidate, match in zip(concerned, constraint.matches([candidate.row for candidate in concerned]), strict=True):
        if match is not None:
            yield candidate, match


def _add_unique_error(candidate: Candidate, constraint: Unique) -> None:
    column = column_of(type(candidate.row), constraint_fields(constraint)[0])
    message = str(constraint.get_violation_error_message())
    if message not in candidate.errors.get(column, ()):
        candidate.add_error(column, message)
