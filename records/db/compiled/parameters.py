"""Shapes: what is left of the arguments of operations without the values."""

from collections.abc import Hashable, Iterator, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.db.models import BooleanField, Expression, ExpressionWrapper, F, Q
from django.db.models.expressions import OrderBy

from records.db.clock import DatabaseNow

#: Values of an `__in` lookup up to which its statement is kept. Each number of values has its own statement.
MAX_ITEMS = 20
#: Types whose values become parameters. None and booleans change the SQL: they are a part of the shape.
PARAMETER_TYPES = frozenset({int, str, Decimal, float, date, datetime, UUID})


class NotRecordableError(Exception):
    """An operation has no stable shape, or a value does not fit the statement."""


class Parameter(Expression):
    """A value that is sent when the statement runs. `column` is the field that converts it for the database."""

    def __init__(self, index: int, column: Any = None) -> None:
        super().__init__()
        self.index = index
        self.column = column

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, tuple[Any, ...]]:
        return "%s", (self,)


class ParametrizedExpression(Expression):
    """An expression that knows its shape and its values."""

    def shape(self) -> Hashable:
        raise NotImplementedError

    def values(self) -> Sequence[Any]:
        raise NotImplementedError

    def with_values(self, values: Sequence[Any]) -> Expression:
        """Return the same expression with other values: the parameters of a statement."""
        raise NotImplementedError


def condition_shape(operand: Any, values: list[Any]) -> Hashable:
    """Return the shape of a condition or of an operand in it, and append its values to `values`."""
    kind: Any = type(operand)
    if kind in PARAMETER_TYPES:
        values.append(operand)
        return ("parameter", kind)
    if isinstance(operand, Q):
        children = [
            (child[0], condition_shape(child[1], values))
            if isinstance(child, tuple)
            else condition_shape(child, values)
            for child in operand.children
        ]
        return (operand.connector, operand.negated, *children)
    if kind is list or kind is tuple:
        # Without None, which Django leaves out of a list, and without expressions.
        kinds = {type(item) for item in operand}
        if not 0 < len(operand) <= MAX_ITEMS or not (kinds <= PARAMETER_TYPES or kinds == {bool}):
            raise NotRecordableError
        return ("list", *[condition_shape(item, values) for item in operand])
    if isinstance(operand, ParametrizedExpression):
        values.extend(operand.values())
        return (kind, operand.shape())
    return literal_shape(operand)


def literal_shape(argument: Any) -> Hashable:
    """Return the shape of an argument that has no values: all of it is a part of the shape.

    Django's equality of expressions is no substitute: expressions with different SQL may be equal.
    """
    kind = type(argument)
    if argument is None or kind in {str, bool, int}:
        return (kind, argument)
    if kind is tuple:
        return (kind, *map(literal_shape, argument))
    if kind is F:
        return (kind, argument.name)
    if kind is DatabaseNow:
        return (kind,)
    if kind is OrderBy:
        order = (argument.descending, argument.nulls_first, argument.nulls_last)
        return (kind, literal_shape(argument.expression), *order)
    if kind is ExpressionWrapper and type(argument.output_field) is BooleanField:
        values: list[Any] = []
        shape = condition_shape(argument.expression, values)
        if not values:
            return (kind, shape)
    raise NotRecordableError


def with_parameters(operand: Any, parameters: Iterator[Parameter]) -> Any:
    """Return a condition with parameters instead of its values, in the order of `condition_shape`."""
    kind = type(operand)
    if kind in PARAMETER_TYPES:
        return _next(parameters)
    if isinstance(operand, Q):
        children = [
            (child[0], with_parameters(child[1], parameters))
            if isinstance(child, tuple)
            else with_parameters(child, parameters)
            for child in operand.children
        ]
        return Q.create(children, operand.connector, operand.negated)
    if kind is list or kind is tuple:
        return [with_parameters(item, parameters) for item in operand]
    if isinstance(operand, ParametrizedExpression):
        return operand.with_values([_next(parameters) for _ in operand.values()])
    return operand


def _next(parameters: Iterator[Parameter]) -> Parameter:
    for parameter in parameters:
        return parameter
    raise NotRecordableError  # the caller has changed a list since
