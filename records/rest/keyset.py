"""Sorting, and paging by the values of the last row seen, which costs the same at any depth.

For the technique see https://use-the-index-luke.com/no-offset.
"""

import json
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Any, Self

from django.core import signing
from django.db.models import BooleanField, F, Field, Func, Model, Q, QuerySet, Value
from rest_framework.exceptions import ValidationError

from records.http.hints import did_you_mean, excerpt

#: Other names of sort keys.
SORT_ALIASES = {"date_created": "created_at"}


@dataclass(frozen=True)
class Key:
    """One column of a sort. Nulls come last ascending and first descending, as PostgreSQL's indexes have them."""

    field: Field
    descending: bool

    @property
    def name(self) -> str:
        return self.field.attname

    def reversed(self) -> Self:
        return replace(self, descending=not self.descending)

    def ordering(self) -> Any:
        column = F(self.name)
        if not self.field.null:
            return column.desc() if self.descending else column.asc()
        return column.desc(nulls_first=True) if self.descending else column.asc(nulls_last=True)

    def at(self, value: Any) -> Q:
        return Q(**{f"{self.name}__isnull": True}) if value is None else Q(**{self.name: value})

    def beyond(self, value: Any) -> Q:
        """Rows that come after `value`."""
        if value is None:
            return Q(**{f"{self.name}__isnull": False}) if self.descending else Q(pk__in=[])
        after = Q(**{f"{self.name}__{'lt' if self.descending else 'gt'}": value})
        return after | Q(**{f"{self.name}__isnull": True}) if self.field.null and not self.descending else after


def sort_keys(model: type[Model], sortable: tuple[str, ...], sort_by: str | None, sort_order: str) -> list[Key]:
    """`sort_by=price,-created_at` as keys; `id` is always the last of them."""
    if sort_order not in {"asc", "desc"}:
        raise ValidationError({"sort_order": ["Must be 'asc' or 'desc'."]})
    keys: list[Key] = []
    for part in sort_by.split(",") if sort_by is not None else ():
        name = part.strip().removeprefix("-")
        if name not in sortable and SORT_ALIASES.get(name) in sortable:
            name = SORT_ALIASES[name]
        if name not in sortable:
            raise ValidationError(
                {
                    "sort_by": [
                        f"Cannot sort by '{excerpt(name)}'.{did_you_mean(name, sortable)} Known: {', '.join(sortable)}."
                    ]
                }
            )
        field: Any = model._meta.get_field(name)
        if any(key.field is field for key in keys):
            raise ValidationError({"sort_by": [f"'{name}' is named twice."]})
        keys.append(Key(field, part.strip().startswith("-") or sort_order == "desc"))
    identifier = model._meta.pk
    fields = [key.field for key in keys]
    if identifier in fields:
        return keys[: fields.index(identifier) + 1]  # behind it nothing is left to sort
    # The way of the key before it, so that an index over both gives the order and every place in it.
    return [*keys, Key(identifier, keys[-1].descending if keys else sort_order == "desc")]


class RowComparison(Func):
    """`(a, b) > (1, 2)`: one range of an index over (a, b), which its spelling with OR is not."""

    output_field = BooleanField()

    def __init__(self, keys: list[Key], values: list[Any], operator: str) -> None:
        columns = [F(key.name) for key in keys]
        super().__init__(*columns, *(Value(value, key.field) for key, value in zip(keys, values, strict=True)))
        self.operator = operator

    def as_sql(self, compiler, connection, **context):
        parts = [compiler.compile(expression) for expression in self.source_expressions]
        half = len(parts) // 2
        columns, values = (", ".join(sql for sql, _ in side) for side in (parts[:half], parts[half:]))
        return f"({columns}) {self.operator} ({values})", [parameter for _, given in parts for parameter in given]


@dataclass(frozen=True)
class Position:
    """A place in a sorted list: behind (or at, if inclusive) the row with these values of its keys."""

    values: list[Any]
    backwards: bool = False
    inclusive: bool = False

    def token(self, keys: list[Key], salt: str) -> str:
        payload = [signature(keys), [_plain(value) for value in self.values], self.backwards, self.inclusive]
        text = json.dumps(payload, separators=(",", ":"))
        return signing.Signer(salt=salt).sign(signing.b64_encode(text.encode()).decode())

    @classmethod
    def read(cls, token: str, keys: list[Key], salt: str) -> Self:
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


def _plain(value: Any) -> Any:
    if isinstance(value, (datetime, date)):
        return value.isoformat()
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)


def segments(queryset: QuerySet, keys: list[Key], position: Position | None) -> list[QuerySet]:
    """The rows behind `position`, in order, as one or two queries that each read one range of an index.

    Two only where the first key may be null: a range of values and the nulls are two places in an index.
    """
    if position is not None and position.backwards:
        keys = [key.reversed() for key in keys]
    queryset = queryset.order_by(*(key.ordering() for key in keys))
    if position is None:
        return [queryset]
    first, *rest = keys
    value = position.values[0]
    if value is None:
        here = queryset.filter(Q(**{f"{first.name}__isnull": True}) & _behind(rest, position.values[1:], position))
        return [here, queryset.filter(**{f"{first.name}__isnull": False})] if first.descending else [here]
    same_way = all(key.descending == first.descending for key in keys)
    if same_way and not any(key.field.null for key in rest):
        operator = ("<" if first.descending else ">") + ("=" if position.inclusive else "")
        here = queryset.filter(RowComparison(keys, position.values, operator))
    else:
        bound = Q(**{f"{first.name}__{'lte' if first.descending else 'gte'}": value})
        beyond = Q(**{f"{first.name}__{'lt' if first.descending else 'gt'}": value})
        here = queryset.filter(bound & (beyond | first.at(value) & _behind(rest, position.values[1:], position)))
    if first.field.null and not first.descending:
        return [here, queryset.filter(**{f"{first.name}__isnull": True})]
    return [here]


def _behind(keys: list[Key], values: list[Any], position: Position) -> Q:
    """`a > 1 OR (a = 1 AND (b > 2 OR …))` with every key's own direction and nulls."""
    key, value = keys[0], values[0]
    beyond = key.beyond(value)
    if len(keys) == 1:
        return beyond | key.at(value) if position.inclusive else beyond
    return beyond | key.at(value) & _behind(keys[1:], values[1:], position)
