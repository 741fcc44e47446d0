"""INSERT and UPDATE of one row, compiled once for each set of columns. They return the row as it is stored."""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from types import SimpleNamespace
from typing import Any, NamedTuple, TypeAlias

from django.db import connections
from django.db.models import F, Field, Model, QuerySet
from django.db.models.sql import InsertQuery, UpdateQuery

from records.db.compiled.parameters import Parameter
from records.db.compiled.statements import MAX_STATEMENTS

Column: TypeAlias = "Field[Any, Any]"
#: Column → a value, or an expression that the database computes.
Values = Mapping[Column, Any]
#: SQL and its parameters.
SQL = tuple[str, Sequence[Any]]

#: Name under which statements that are included in a write find the written row.
WRITTEN_ROW = "written_row"


class _Compiled(NamedTuple):
    sql: str
    #: A Parameter for each value that is sent later; the parameters of expressions as they are.
    params: tuple[Any, ...]
    has_converters: bool


class RowWrite:
    """A statement that writes one row."""

    def __init__(self, model: type[Model], using: str, compiled: _Compiled, values: Sequence[Any], key: Any) -> None:
        self._model = model
        self._using = using
        self._compiled = compiled
        self._values = values
        self._key = key

    def run(self, included: Sequence[SQL] = ()) -> dict[str, Any] | None:
        """Write the row and return its columns as they are stored; None if there is no such row.

        Where the database `can_include_statements`, `included` statements run as a part of this one. They read the
        row from `WRITTEN_ROW`.
        """
        connection = connections[self._using]
        sql, params = self._compiled.sql, [self._sent(param, connection) for param in self._compiled.params]
        if included:
            clauses = ", ".join(f"included_{number} AS ({clause})" for number, (clause, _) in enumerate(included))
            sql = f"WITH {WRITTEN_ROW} AS ({sql}), {clauses} SELECT * FROM {WRITTEN_ROW}"  # noqa: S608 - compiled SQL
            params += [param for _, values in included for param in values]
        with connection.cursor() as cursor:
            cursor.execute(sql, params)
            if not connection.features.can_return_columns_from_insert:
                return self._read(cursor, connection)
            row = cursor.fetchone()
        return None if row is None else self._converted(row, connection)

    def _sent(self, param: Any, connection: Any) -> Any:
        if type(param) is not Parameter:
            return param
        return param.column.get_db_prep_save(self._values[param.index], connection)

    def _converted(self, row: Sequence[Any], connection: Any) -> dict[str, Any]:
        if self._compiled.has_converters:
            compiler = QuerySet(self._model).query.get_compiler(connection=connection)
            [row] = compiler.apply_converters([row], _converters(self._model, compiler))
        columns = self._model._meta.concrete_fields
        return {column.attname: value for column, value in zip(columns, row, strict=True)}

    def _read(self, cursor: Any, connection: Any) -> dict[str, Any] | None:
        """Return the written row by a query, for versions of SQLite before 3.35."""
        if not cursor.rowcount:
            return None
        key = self._model._meta.pk
        if self._key is None:
            self._key = connection.ops.last_insert_id(cursor, self._model._meta.db_table, key.column)
        rows: QuerySet[Any, dict[str, Any]] = QuerySet(self._model, using=self._using).filter(pk=self._key).values()
        return rows.get()


def can_include_statements(using: str) -> bool:
    """Return True if the database runs several writes as one statement, in one round trip and without a transaction."""
    return connections[using].vendor == "postgresql"


def insert(model: type[Model], values: Values, using: str) -> RowWrite:
    """Return the INSERT of a row."""
    if has_expressions(values):
        compiled = _compile_insert(model, _operands(values), using)
    else:
        compiled = _insert_of_columns(model, tuple(values), using)
    return RowWrite(model, using, compiled, list(values.values()), values.get(model._meta.pk))


def update(model: type[Model], key: Any, values: Values, using: str, version: int | None = None) -> RowWrite:
    """Return the UPDATE of the row with this key, which also raises its version by 1.

    With `version`, the row is updated only if it has this version.
    """
    conditions = ("pk",) if version is None else ("pk", "version")
    if has_expressions(values):
        compiled = _compile_update(model, _operands(values), conditions, using)
    else:
        compiled = _update_of_columns(model, tuple(values), conditions, using)
    return RowWrite(model, using, compiled, [*values.values(), key, version], key)


def has_expressions(values: Values) -> bool:
    return any(hasattr(value, "resolve_expression") for value in values.values())


@lru_cache(MAX_STATEMENTS)
def _insert_of_columns(model: type[Model], columns: tuple[Column, ...], using: str) -> _Compiled:
    return _compile_insert(model, _operands(dict.fromkeys(columns)), using)


@lru_cache(MAX_STATEMENTS)
def _update_of_columns(
    model: type[Model], columns: tuple[Column, ...], conditions: tuple[str, ...], using: str
) -> _Compiled:
    return _compile_update(model, _operands(dict.fromkeys(columns)), conditions, using)


def _operands(values: Values) -> dict[Column, Any]:
    return {
        column: value if hasattr(value, "resolve_expression") else Parameter(index, column)
        for index, (column, value) in enumerate(values.items())
    }


def _compile_insert(model: type[Model], operands: dict[Column, Any], using: str) -> _Compiled:
    query = InsertQuery(model)
    row: Any = SimpleNamespace(**{column.attname: operand for column, operand in operands.items()})
    query.insert_values(list(operands), [row], raw=True)
    compiler = query.get_compiler(using)
    compiler.returning_fields = model._meta.concrete_fields
    [(sql, params)] = compiler.as_sql()
    return _Compiled(sql, tuple(params), bool(_converters(model, compiler)))


def _compile_update(
    model: type[Model], operands: dict[Column, Any], conditions: Iterable[str], using: str
) -> _Compiled:
    wanted = {
        name: Parameter(len(operands) + index, model._meta.pk if name == "pk" else model._meta.get_field(name))
        for index, name in enumerate(conditions)
    }
    query: Any = QuerySet(model, using=using).filter(**wanted).query.chain(UpdateQuery)
    version = (model._meta.get_field("version"), None, F("version") + 1)
    query.add_update_fields([*((column, None, operand) for column, operand in operands.items()), version])
    compiler = query.get_compiler(using)
    sql, params = compiler.as_sql()
    operations: Any = compiler.connection.ops
    if compiler.connection.features.can_return_columns_from_insert:
        # Django 6 renamed it.
        return_columns = getattr(operations, "returning_columns", None) or operations.return_insert_columns
        sql = f"{sql} {return_columns(model._meta.concrete_fields)[0]}"
    return _Compiled(sql, tuple(params), bool(_converters(model, compiler)))


def _converters(model: type[Model], compiler: Any) -> Any:
    return compiler.get_converters([column.get_col(model._meta.db_table) for column in model._meta.concrete_fields])
