"""Read a sorted list from many ranges of one index.

An index on a column, a sort key and the primary key holds the rows of each value of the column in the order of the
sort. A list of the rows with some of the values can merge the starts of these ranges. PostgreSQL's planner does not
do that. It reads the index of the sort until enough rows match, and if they come last, it reads all of it.
"""

from collections.abc import Sequence
from typing import Any

from django.contrib.postgres.fields import ArrayField
from django.db.models import BooleanField, DateField, Expression, F, Field, Func, Model


class UTCDay(Func):
    """The day of a time in UTC. Unlike Django's TruncDate, an index may contain it."""

    arity = 1
    output_field = DateField()
    template = "(%(expressions)s AT TIME ZONE 'UTC')::date"

    def as_sqlite(self, compiler: Any, connection: Any, **context: Any) -> Any:
        return self.as_sql(compiler, connection, template="SUBSTR(%(expressions)s, 1, 10)", **context)


class GroupValue(Expression):
    """The value of the current group, in a query inside of one of the expressions below."""

    def __init__(self, output_field: "Field[Any, Any]") -> None:
        super().__init__(output_field=output_field)

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, tuple[Any, ...]]:
        return "groups.value", ()


class FirstOfEach(Func):
    """True for the first `number` rows of each group, and perhaps others. PostgreSQL only.

    `keys` are the keys of the rows of the group GroupValue, in order. If they are ordered by nothing but themselves, in
    the direction `by_key` (ASC or DESC), groups without one of the first `number` rows of all are skipped.
    """

    output_field = BooleanField()

    def __init__(
        self, keys: Any, number: int, values: Sequence[Any], group: "Field[Any, Any]", by_key: str = ""
    ) -> None:
        super().__init__(F("pk"))
        self.keys, self.number, self.values, self.group, self.by_key = keys, number, values, group, by_key

    def as_sql(self, compiler: Any, connection: Any, **context: Any) -> tuple[str, tuple[Any, ...]]:  # type: ignore[override]
        key, params = compiler.compile(self.source_expressions[0])
        rows, rows_params = as_subquery(self.keys[: self.number], compiler, connection)
        groups = f"unnest(%s::{self.group.db_type(connection)}[]) AS groups(value)"
        groups_params: tuple[Any, ...] = ([self.group.get_db_prep_value(value, connection) for value in self.values],)
        if self.by_key:
            first, first_params = as_subquery(self.keys[:1], compiler, connection)
            order = f"ORDER BY {first} {self.by_key} NULLS LAST LIMIT {self.number}"
            groups = f"(SELECT groups.value FROM {groups} {order}) AS groups"  # noqa: S608 - compiled by Django
            groups_params += first_params
        # An array is read before the rows: the planner could join a subquery to an index of all rows.
        sql = f"{key} = ANY(ARRAY(SELECT unnest(ARRAY{rows}) FROM {groups}))"  # noqa: S608 - compiled by Django
        return sql, (*params, *rows_params, *groups_params)


class KeyIn(Func):
    """True for the rows whose keys a query returns, which is run before the rows are read. PostgreSQL only."""

    output_field = BooleanField()

    def __init__(self, keys: Any) -> None:
        super().__init__(F("pk"))
        self.keys = keys

    def as_sql(self, compiler: Any, connection: Any, **context: Any) -> tuple[str, tuple[Any, ...]]:  # type: ignore[override]
        key, key_params = compiler.compile(self.source_expressions[0])
        sql, params = as_subquery(self.keys, compiler, connection)
        return f"{key} = ANY(ARRAY{sql})", (*key_params, *params)


class DistinctValues(Expression):
    """The first `limit` values of a column that an index begins with, found with one access to the index for each.

    PostgreSQL only. A DISTINCT would read all rows.
    """

    template = (
        "ARRAY(WITH RECURSIVE groups(value) AS (%s UNION ALL SELECT %s FROM groups WHERE groups.value IS NOT NULL) "
        "SELECT value FROM groups WHERE value IS NOT NULL LIMIT %s)"
    )

    def __init__(self, rows: Any, column: str, limit: int) -> None:
        field = rows.model._meta.get_field(column)
        super().__init__(output_field=ArrayField(field.clone()))
        ordered = rows.order_by(column).values(column)
        self.rows = [ordered[:1], ordered.filter(**{f"{column}__gt": GroupValue(field)})[:1]]
        self.limit = limit

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, tuple[Any, ...]]:
        (first, first_params), (following, params) = (as_subquery(rows, compiler, connection) for rows in self.rows)
        return self.template % (first, following, self.limit), (*first_params, *params)


def as_subquery(rows: Any, compiler: Any, connection: Any) -> tuple[str, tuple[Any, ...]]:
    query = rows.query.clone()
    query.subquery = True  # in parentheses
    sql, params = query.as_sql(compiler, connection)
    return sql, tuple(params)


def distinct_values(model: type[Model], column: str, limit: int) -> list[Any] | None:
    """Return the values of a column in the live rows of a model; None if there are more than `limit`."""
    rows: Any = model._default_manager.all()
    found = model._base_manager.values_list(DistinctValues(rows, column, limit + 1))[:1]
    values: list[Any] = next(iter(found), ([],))[0]
    return values if len(values) <= limit else None
