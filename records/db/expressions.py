"""Expressions for many rows at once: each takes one parameter, however many values it carries."""

from collections.abc import Iterable, Mapping
from typing import Any

import orjson
from django.db.models import BooleanField, F, Field, Func, JSONField


def _json(value: Any) -> str:
    return orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS).decode()


class AnyOf(Func):
    """Whether the column has one of these values. `__in` takes a parameter each, of which SQLite knows so many only."""

    output_field = BooleanField()

    def __init__(self, column: str, choices: Iterable[Any]) -> None:
        super().__init__(F(column))
        self.choices = list(choices)

    def as_sql(self, compiler, connection, **context):
        [column] = self.source_expressions
        sql, params = compiler.compile(column)
        choices = [column.output_field.get_db_prep_value(each, connection) for each in self.choices]
        if connection.vendor == "postgresql":
            return f"{sql} = ANY(%s)", [*params, choices]
        return f"{sql} IN (SELECT value FROM json_each(%s))", [*params, _json(choices)]  # noqa: S608 — a column's name


class IsDistinctFrom(Func):
    """Whether two values are not the same; null is the same as null."""

    template = "(%(expressions)s)"
    arg_joiner = " IS DISTINCT FROM "
    arity = 2
    output_field = BooleanField()

    def as_sqlite(self, compiler, connection, **context):
        return self.as_sql(compiler, connection, arg_joiner=" IS NOT ", **context)


class Mapped(Func):
    """The value that each value of a column stands for, as `field` stores it; null for what is not in `values`."""

    def __init__(self, column: str, values: Mapping[Any, Any], field: Field) -> None:
        super().__init__(F(column), output_field=field)
        self.values = values

    def as_sql(self, compiler, connection, **context):
        [column] = self.source_expressions
        sql, params = compiler.compile(column)
        field: Any = self.output_field
        prepare = column.output_field.get_db_prep_value
        if connection.vendor == "postgresql":
            values = {str(prepare(key, connection)): value for key, value in self.values.items()}
            if isinstance(field, JSONField):
                return f"(%s::jsonb -> ({sql})::text)", [_json(values), *params]
            return f"(%s::jsonb ->> ({sql})::text)::{field.db_type(connection)}", [_json(values), *params]
        prepared = {
            str(prepare(key, connection)): field.get_db_prep_save(value, connection)
            for key, value in self.values.items()
        }
        if any('"' in key or "\\" in key for key in prepared):
            raise ValueError("SQLite cannot look for a name with a quotation mark in it.")
        return f"json_extract(%s, '$.\"' || {sql} || '\"')", [_json(prepared), *params]
