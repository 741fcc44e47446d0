"""Statements that were compiled for a shape, and their cache."""

import copy
import threading
from collections import OrderedDict
from collections.abc import Hashable, Iterator
from typing import Any

from django.db import DatabaseError, connections
from django.db.models import IntegerField, JSONField, lookups
from django.db.models.expressions import Col, ExpressionList
from django.db.models.fields import related_lookups
from django.db.models.functions import Lower, Upper
from django.db.models.sql.where import WhereNode

from records.db.compiled.parameters import NotRecordableError, Parameter, ParametrizedExpression
from records.db.compiled.recording import Recording

#: Statements that are kept; the ones that were not used for the longest time make room for new ones.
MAX_STATEMENTS = 500
#: Lookups whose SQL does not depend on their value.
PARAMETER_LOOKUPS = (
    lookups.Exact, lookups.GreaterThan, lookups.GreaterThanOrEqual, lookups.LessThan, lookups.LessThanOrEqual,
    lookups.In, related_lookups.RelatedExact, related_lookups.RelatedIn,
)  # fmt: skip


class Statement:
    """The compiled SQL of one shape."""

    def __init__(self, recording: Recording, using: str) -> None:
        """Compile the statement. Raise NotRecordableError if its SQL could depend on a value."""
        try:
            self.query = recording.with_parameters().query
            self.compiler = self.query.get_compiler(using)
            self.sql, params = self.compiler.as_sql()
        except DatabaseError:
            raise
        except Exception as error:  # due to the parameters, or to an invalid operation, which Django will refuse
            raise NotRecordableError from error
        columns = dict(_parameter_columns(self.query.where))
        self.params = [_with_column(param, columns) if isinstance(param, Parameter) else param for param in params]
        sent = {param.index for param in self.params if isinstance(param, Parameter)}
        if sent != set(range(len(recording.values))):
            raise NotRecordableError  # a lookup has made something else of a parameter
        self.has_converters = bool(self._converters())
        self.compiler.connection = None  # which belongs to one thread

    def _converters(self) -> Any:
        return self.compiler.get_converters([column for column, _, _ in self.compiler.select])

    def bind(self, recording: Recording, using: str) -> "BoundQuery":
        """Return the query with the values of a recording. Raise NotRecordableError if a value does not fit."""
        connection = connections[using]
        if self.query.select_for_update and not connection.in_atomic_block:
            raise NotRecordableError  # Django raises an error that says so
        params = [
            _converted(param.column, recording.values[param.index], connection) if type(param) is Parameter else param
            for param in self.params
        ]
        sql = self.sql
        if recording.limits is not None:
            sql = f"{sql} {connection.ops.limit_offset_sql(*recording.limits)}"
        return BoundQuery(self, sql, params)


class BoundQuery:
    """A compiled query with its values, as far as the iteration over a query set needs it."""

    def __init__(self, statement: Statement, sql: str, params: list[Any]) -> None:
        self._statement = statement
        self._sql = sql
        self._params = params

    def __getattr__(self, name: str) -> Any:
        return getattr(self._statement.query, name)

    def get_compiler(self, using: str) -> Any:
        compiler = copy.copy(self._statement.compiler)
        compiler.connection = connections[using]
        compiler.as_sql = lambda *args, **options: (self._sql, self._params)
        if not self._statement.has_converters:
            compiler.get_converters = lambda columns: {}
        return compiler


def _with_column(parameter: Parameter, columns: dict[int, Any]) -> Parameter:
    column = parameter.column or columns.get(parameter.index)
    if column is None:
        raise NotRecordableError
    return Parameter(parameter.index, column)


def _parameter_columns(condition: Any) -> Iterator[tuple[int, Any]]:
    """Yield the index of each parameter of a condition with the field that converts its value.

    Raise NotRecordableError for a lookup whose SQL may depend on anything but its shape, such as the time zone. Leave
    out the parameters of lookups whose SQL, or whose conversion, may depend on the value.
    """
    for child in condition.children:
        if isinstance(child, WhereNode):
            yield from _parameter_columns(child)
        elif isinstance(child, ParametrizedExpression):
            continue  # its parameters know their columns
        elif not isinstance(child, lookups.Lookup) or not isinstance(child.lhs, Col | Lower | Upper):
            raise NotRecordableError
        elif isinstance(child, PARAMETER_LOOKUPS) and not isinstance(column := child.lhs.output_field, JSONField):
            operands = child.rhs.get_source_expressions() if isinstance(child.rhs, ExpressionList) else [child.rhs]
            for operand in operands:
                if isinstance(operand, Parameter):
                    yield operand.index, getattr(column, "target_field", column)


def _converted(column: Any, value: Any, connection: Any) -> Any:
    """Return a value as the ORM sends it for this column."""
    if isinstance(column, IntegerField):
        minimum, maximum = connection.ops.integer_field_range(column.get_internal_type())
        if type(value) is not int or (minimum is not None and not minimum <= value <= maximum):
            raise NotRecordableError  # Django rounds fractions, and decides large numbers without the database
    prepared = column.get_prep_value(value)
    if prepared is None:
        raise NotRecordableError  # which Django compares by IS NULL
    return column.get_db_prep_value(prepared, connection=connection, prepared=True)


class StatementCache:
    """The statements that were used last, by database, root query set and shape. All threads share them."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._statements: OrderedDict[Hashable, Statement | None] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._statements)

    def get(self, recording: Recording, using: str) -> Statement | None:
        """Return the statement, compiled if it is new; None if the shape has no stable SQL."""
        key = (using, recording.root, recording.shape)
        with self._lock:
            if key in self._statements:
                self._statements.move_to_end(key)
                return self._statements[key]
        try:
            statement = Statement(recording, using)
        except NotRecordableError:
            statement = None
        with self._lock:
            self._statements[key] = statement
            if len(self._statements) > self.size:
                self._statements.popitem(last=False)
        return statement


statements = StatementCache(MAX_STATEMENTS)
