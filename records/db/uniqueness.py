"""Find the stored rows with the same values as others in the columns of a constraint, by one statement."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from django.db import connections
from django.db.models import Expression, F, Field, Model
from django.db.models.lookups import Exact
from django.db.models.sql import Query

from records.db.expressions import as_json_text

#: Vendor → rows of one parameter, a JSON array of arrays of values. `number` counts from 0.
CANDIDATES = {
    "postgresql": "(SELECT value, number - 1 AS number FROM jsonb_array_elements(%s::jsonb) WITH ORDINALITY"
    " AS list(value, number)) AS candidate",
    "sqlite": "(SELECT value, key AS number FROM json_each(%s)) AS candidate",
}


class Match(NamedTuple):
    #: The values that the constraint compares, as the database computes them.
    values: tuple[Any, ...]
    #: Key of the stored row with these values; None if there is none.
    pk: Any


class CandidateValue(Expression):
    """The value of a column in the current candidate."""

    def __init__(self, position: int, column: "Field[Any, Any]") -> None:
        super().__init__(output_field=getattr(column, "target_field", column))
        self.position = position

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, tuple[Any, ...]]:
        if connection.vendor == "postgresql":
            return f"(candidate.value ->> {self.position})::{self.output_field.cast_db_type(connection)}", ()
        return f"json_extract(candidate.value, '$[{self.position}]')", ()


def matches(
    model: type[Model], expressions: Sequence[Any], columns: Sequence[Any], rows: Sequence[Any], using: str
) -> list[Match]:
    """Return the match of each row: the stored row for which all `expressions` of `columns` have the same values."""
    connection = connections[using]
    sql, params = _statement(model, tuple(expressions), tuple(columns), using)
    values = [[column.get_db_prep_save(getattr(row, column.attname), connection) for column in columns] for row in rows]
    with connection.cursor() as cursor:
        cursor.execute(sql, [*params, as_json_text(values)])
        found = {number: (pk, tuple(compared)) for number, pk, *compared in cursor.fetchall()}
    key = model._meta.pk
    return [Match(found[number][1], key.to_python(found[number][0])) for number in range(len(rows))]


@lru_cache(500)
def _statement(
    model: type[Model], expressions: tuple[Any, ...], columns: tuple[Any, ...], using: str
) -> tuple[str, tuple[Any, ...]]:
    """Return the statement that selects number, key of the stored row and compared values of each candidate."""
    connection = connections[using]
    sent: dict[Any, Any] = {F(column.name): CandidateValue(index, column) for index, column in enumerate(columns)}
    compared = [expression.replace_expressions(sent) for expression in expressions]
    rows: Any = model._base_manager.using(using).order_by()
    for expression, value in zip(expressions, compared, strict=True):
        rows = rows.filter(Exact(expression, value))
    stored, params = rows.values("pk")[:1].query.get_compiler(using).as_sql()
    selected = [f"({stored})"]
    query = Query(model)
    compiler = query.get_compiler(using)
    for value in compared:
        sql, value_params = compiler.compile(value.resolve_expression(query))
        selected.append(sql)
        params = (*params, *value_params)
    sql = f"SELECT candidate.number, {', '.join(selected)} FROM {CANDIDATES[connection.vendor]}"  # noqa: S608 - compiled
    return sql, tuple(params)
