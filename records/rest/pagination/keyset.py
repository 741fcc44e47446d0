"""Sorting, and paging by the values of the last row that was read, which costs the same at any depth.

Technique: https://use-the-index-luke.com/no-offset.
"""

import json
from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from functools import cache
from typing import Any, Self

from django.core import signing
from django.db.models import BooleanField, F, Func, Model, Q, QuerySet, Value
from rest_framework.exceptions import ValidationError

from records.db.compiled import Parameter, ParametrizedExpression
from records.http.hints import did_you_mean, excerpt

#: Other names of sort keys.
SORT_ALIASES = {"date_created": "created_at"}


@dataclass(frozen=True)
class Key:
    """A column of a sort. Nulls come last in ascending and first in descending order, as in PostgreSQL's indexes."""

    field: Any
    descending: bool

    @property
    def name(self) -> str:
        return str(self.field.attname)

    def reversed(self) -> Self:
        return replace(self, descending=not self.descending)

    @cache  # noqa: B019 — there are few keys, and equal expressions are compared faster if they are the same
    def ordering(self) -> Any:
        column = F(self.name)
        if not self.field.null:
            return column.desc() if self.descending else column.asc()
        return column.desc(nulls_first=True) if self.descending else column.asc(nulls_last=True)

    def equals(self, value: Any) -> Q:
        return self.is_null() if value is None else Q(**{self.name: value})

    def is_null(self, expected: bool = True) -> Q:
        return Q(**{f"{self.name}__isnull": expected})

    def follows(self, value: Any) -> Q:
        """Return the condition for rows that come after `value`."""
        if value is None:
            return self.is_null(False) if self.descending else Q(pk__in=[])
        after = self.is_beyond(value)
        return after | self.is_null() if self.field.null and not self.descending else after

    def is_beyond(self, value: Any, *, inclusive: bool = False) -> Q:
        """Return the condition for values beyond `value`, in the direction of the key; nulls are left out."""
        operator = ("lt" if self.descending else "gt") + ("e" if inclusive else "")
        return Q(**{f"{self.name}__{operator}": value})


def sort_keys(model: type[Model], sortable: tuple[str, ...], sort_by: str | None, sort_order: str) -> list[Key]:
    """Return the keys of `sort_by=price,-created_at`. The primary key is always the last of them."""
    if sort_order not in {"asc", "desc"}:
        raise ValidationError({"sort_order": ["Must be 'asc' or 'desc'."]})
    keys: list[Key] = []
    for part in sort_by.split(",") if sort_by is not None else ():
        field: Any = model._meta.get_field(_sortable_name(part.strip().removeprefix("-"), sortable))
        if any(key.field is field for key in keys):
            raise ValidationError({"sort_by": [f"'{field.name}' is named twice."]})
        keys.append(Key(field, part.strip().startswith("-") or sort_order == "desc"))
    primary_key: Any = model._meta.pk
    fields = [key.field for key in keys]
    if primary_key in fields:
        return keys[: fields.index(primary_key) + 1]  # keys behind it would change nothing
    # In the direction of the key before it, so that one index serves both.
    return [*keys, Key(primary_key, keys[-1].descending if keys else sort_order == "desc")]


def _sortable_name(name: str, sortable: Collection[str]) -> str:
    if name in sortable:
        return name
    if (alias := SORT_ALIASES.get(name)) in sortable:
        return str(alias)
    hint = did_you_mean(name, sortable)
    raise ValidationError({"sort_by": [f"Cannot sort by '{excerpt(name)}'.{hint} Known: {', '.join(sortable)}."]})


class RowComparison(ParametrizedExpression, Func):
    """`(a, b) > (1, 2)`, which reads one range of an index over (a, b); the equivalent with OR does not."""

    output_field = BooleanField()

    def __init__(self, keys: list[Key], values: list[Any], operator: str) -> None:
        columns = [F(key.name) for key in keys]
        operands = [
            Parameter(value.index, key.field) if isinstance(value, Parameter) else Value(value, key.field)
            for key, value in zip(keys, values, strict=True)
        ]
        super().__init__(*columns, *operands)
        self.keys, self.key_values, self.operator = keys, values, operator

    def shape(self) -> Hashable:
        return (*self.keys, self.operator)

    def values(self) -> list[Any]:
        return self.key_values

    def with_values(self, values: Sequence[Any]) -> Self:
        return type(self)(self.keys, list(values), self.operator)

    def as_sql(self, compiler: Any, connection: Any, **context: Any) -> tuple[str, tuple[Any, ...]]:  # type: ignore[override]
        parts = [compiler.compile(expression) for expression in self.source_expressions]
        half = len(parts) // 2
        columns, values = (", ".join(sql for sql, _ in side) for side in (parts[:half], parts[half:]))
        return f"({columns}) {self.operator} ({values})", tuple(param for _, params in parts for param in params)


@dataclass(frozen=True)
class Position:
    """A place in a sorted list: after the row with these values of its keys, or at it if inclusive."""

    values: list[Any]
    backwards: bool = False
    inclusive: bool = False

    def token(self, keys: list[Key], salt: str) -> str:
        payload = [signature(keys), [_json_value(value) for value in self.values], self.backwards, self.inclusive]
        text = json.dumps(payload, separators=(",", ":"))
        return signing.Signer(salt=salt).sign(signing.b64_encode(text.encode()).decode())

    @classmethod
    def from_token(cls, token: str, keys: list[Key], salt: str) -> Self:
        try:
            text = signing.b64_decode(signing.Signer(salt=salt).unsign(token).encode())
        except signing.BadSignature:
            raise ValidationError({"cursor": ["Not a cursor of this list. Start anew with an empty one."]}) from None
        sort, values, backwards, inclusive = json.loads(text)
        if sort != signature(keys):
            raise ValidationError({"cursor": ["This cursor belongs to another sort. Start anew with an empty one."]})
        typed = [None if value is None else key.field.to_python(value) for key, value in zip(keys, values, strict=True)]
        return cls(typed, backwards, inclusive)


def signature(keys: list[Key]) -> str:
    return ",".join(f"{'-' if key.descending else ''}{key.name}" for key in keys)


def _json_value(value: Any) -> Any:
    if isinstance(value, (datetime, date)):
        return value.isoformat()
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)


def index_ranges(queryset: QuerySet[Any], keys: list[Key], position: Position | None) -> list[QuerySet[Any]]:
    """Return the rows after `position`, in order, as queries that each read one range of an index.

    They are two only if the first key may be null: its values and its nulls are two ranges of the index.
    """
    if position is not None and position.backwards:
        keys = [key.reversed() for key in keys]
    ordered = queryset.order_by(*(key.ordering() for key in keys))
    if position is None:
        return [ordered]
    first, *rest = keys
    value = position.values[0]
    if value is None:
        nulls = ordered.filter(first.is_null() & _follows(rest, position.values[1:], position))
        return [nulls, ordered.filter(first.is_null(False))] if first.descending else [nulls]
    values = ordered.filter(_follows_value(keys, position))
    if first.field.null and not first.descending:
        return [values, ordered.filter(first.is_null())]
    return [values]


def _follows_value(keys: list[Key], position: Position) -> RowComparison | Q:
    """Return the condition for rows after a position whose first value is not null."""
    first, *rest = keys
    if all(key.descending == first.descending for key in keys) and not any(key.field.null for key in rest):
        operator = ("<" if first.descending else ">") + ("=" if position.inclusive else "")
        return RowComparison(keys, position.values, operator)
    value = position.values[0]
    # The first condition is redundant: it bounds the range of the index.
    bound = first.is_beyond(value, inclusive=True)
    return bound & (first.is_beyond(value) | first.equals(value) & _follows(rest, position.values[1:], position))


def _follows(keys: list[Key], values: list[Any], position: Position) -> Q:
    """Return `a > 1 OR (a = 1 AND (b > 2 OR …))`, with the direction and the nulls of each key."""
    key, value = keys[0], values[0]
    after = key.follows(value)
    if len(keys) == 1:
        return after | key.equals(value) if position.inclusive else after
    return after | key.equals(value) & _follows(keys[1:], values[1:], position)
