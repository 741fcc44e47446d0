"""Lists whose rows come from many ranges of an index: symbols that a search matches, days since a time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, timedelta
from typing import Any, Self

from django.db import connections
from django.db.models import DateField, F, Field, QuerySet
from django.db.models.lookups import Exact

from records.db.groups import FirstOfEach, GroupValue, UTCDay
from records.rest.pagination.keyset import Key

#: Groups that are merged at most; each costs one access to the index.
MAX_GROUPS = 4_000
#: Rows that are read of each group at most, for pages that are not deep.
MAX_ROWS = 1_000


@dataclass(frozen=True)
class Groups:
    """The values of a column, or of an expression, to which the only filter of a list restricts its rows."""

    expression: Any
    field: "Field[Any, Any]"
    read_values: Callable[[], Sequence[Any]]

    @classmethod
    def of_column(cls, model: Any, column: str, values: Sequence[Any]) -> Self:
        return cls(F(column), model._meta.get_field(column), lambda: values)

    @classmethod
    def of_days(cls, rows: QuerySet[Any], column: str) -> Self:
        """Group these rows by days in UTC."""
        return cls(UTCDay(column), DateField(), lambda: _days(rows, column))

    def first_rows(self, rows: QuerySet[Any], keys: list[Key], number: int) -> QuerySet[Any] | None:
        """Return the first `number` rows of `rows` in the order of these keys, by the ranges of an index.

        Return None if no index has these ranges, or if reading them all costs too much.
        """
        if number > MAX_ROWS or not self._has_index(rows, keys):
            return None
        values = self.read_values()
        if not 1 < len(values) <= MAX_GROUPS:
            return None
        group = rows.filter(Exact(self.expression, GroupValue(self.field)))
        ordered = group.order_by(*(key.ordering() for key in keys)).values("pk")
        by_key = "" if len(keys) > 1 else "DESC" if keys[0].descending else "ASC"
        return rows.filter(FirstOfEach(ordered, number, values, self.field, by_key))

    def _has_index(self, rows: QuerySet[Any], keys: list[Key]) -> bool:
        if connections[rows.db].vendor != "postgresql" or len({key.descending for key in keys}) > 1:
            return False
        columns = [self.expression, *(F(key.field.name) for key in keys)]
        return any(_columns(index) == columns for index in rows.model._meta.indexes)


def _days(rows: QuerySet[Any], column: str) -> list[date]:
    """Return the days from the first to the last of these rows. Takes two statements, which read one row each."""
    ordered = [rows.order_by(key).values(column)[:1] for key in (column, f"-{column}")]
    ends = [row[column].astimezone(UTC).date() for part in ordered for row in part]
    if len(ends) < len(ordered) or (ends[1] - ends[0]).days >= MAX_GROUPS:
        return []
    return [ends[0] + timedelta(days=day) for day in range((ends[1] - ends[0]).days + 1)]


def _columns(index: Any) -> list[Any]:
    return list(index.expressions) or [F(name) for name in index.fields]
