"""Expressions that Django lacks."""

from collections.abc import Iterable, Mapping
from typing import Any

import orjson
from django.contrib.postgres.fields import ArrayField
from django.db.models import BooleanField, F, Field, Func, IntegerField, JSONField, QuerySet, Subquery, TextField, Value
from django.db.models.functions import Upper

from records.db.text import normalize_text


def as_json_text(value: Any) -> str:
    """Return a parameter that holds any number of values, because SQLite limits the number of parameters."""
    return orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS).decode()


class RowCount(Subquery):
    """The number of rows of a query; at most `limit` rows are read."""

    template = "(SELECT COUNT(*) FROM (%(subquery)s) matching)"
    output_field = IntegerField()

    def __init__(self, queryset: QuerySet[Any], limit: int | None = None) -> None:
        keys = queryset.order_by().values("pk")
        super().__init__(keys if limit is None else keys[:limit])


class AnyOf(Func):
    """True if the column has one of these values, in a single parameter: SQLite limits their number.

    A column may be a lookup: `username__lower`.
    """

    output_field = BooleanField()

    def __init__(self, column: str, choices: Iterable[Any]) -> None:
        super().__init__(F(column))
        self.choices = list(choices)

    def as_sql(self, compiler: Any, connection: Any, **context: Any) -> Any:  # type: ignore[override]
        [column] = self.source_expressions
        sql, params = compiler.compile(column)
        choices = [column.output_field.get_db_prep_value(choice, connection) for choice in self.choices]
        if connection.vendor == "postgresql":
            return f"{sql} = ANY(%s)", [*params, choices]
        return f"{sql} IN (SELECT value FROM json_each(%s))", [*params, as_json_text(choices)]  # noqa: S608 - the name of a column


class SearchGrams(Func):
    """The letters and pairs of letters of a text, in upper case. PostgreSQL only: see ShortSearchIndex."""

    function = "search_grams"
    output_field = ArrayField(TextField())


class ContainsGram(Func):
    """True if a column contains one letter or two, ignoring case, by a ShortSearchIndex. PostgreSQL only."""

    output_field = BooleanField()
    template = "%(expressions)s]"
    arg_joiner = " @> ARRAY["

    def __init__(self, column: str, text: str) -> None:
        super().__init__(SearchGrams(column), Upper(Value(normalize_text(text), TextField())))


class IsDistinctFrom(Func):
    """True if two values differ. Unlike `<>`, it treats null as equal to null."""

    template = "(%(expressions)s)"
    arg_joiner = " IS DISTINCT FROM "
    arity = 2
    output_field = BooleanField()

    def as_sqlite(self, compiler: Any, connection: Any, **context: Any) -> Any:
        return self.as_sql(compiler, connection, arg_joiner=" IS NOT ", **context)


class Mapped(Func):
    """Map the values of a column to other values, as `field` stores them, in a single parameter.

    Values without a mapping become null.
    """

    def __init__(self, column: str, values: Mapping[Any, Any], field: "Field[Any, Any]") -> None:
        super().__init__(F(column), output_field=field)
        self.values = values

    def as_sql(self, compiler: Any, connection: Any, **context: Any) -> Any:  # type: ignore[override]
        [column] = self.source_expressions
        sql, params = compiler.compile(column)
        field: Any = self.output_field
        prepare = column.output_field.get_db_prep_value
        if connection.vendor == "postgresql":
            values = {str(prepare(key, connection)): value for key, value in self.values.items()}
            if isinstance(field, JSONField):
                return f"NULLIF(%s::jsonb -> ({sql})::text, 'null')", [as_json_text(values), *params]
            return f"(%s::jsonb ->> ({sql})::text)::{field.db_type(connection)}", [as_json_text(values), *params]
        prepared = {
            str(prepare(key, connection)): field.get_db_prep_save(value, connection)
            for key, value in self.values.items()
        }
        if any('"' in key or "\\" in key for key in prepared):
            raise ValueError("SQLite cannot look up a key that contains a quotation mark or a backslash.")
        return f"json_extract(%s, '$.\"' || {sql} || '\"')", [as_json_text(prepared), *params]
