"""Shapes of conditions: what is left of their operands without the values."""

from collections.abc import Hashable, Iterator, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.db.models import Expression, F, Q, Subquery

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

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, list[Any]]:  # type: ignore[override]
        return "%s", [self]


class ParametrizedExpression(Expression):
    """An expression that knows its shape and its values."""

    def shape(self) -> Hashable:
        raise NotImplementedError

    def values(self) -> Sequence[Any]:
        raise NotImplementedError

    def with_values(self, values: Sequence[Any]) -> Expression:
        """Return the same expression with other values: the parameters of a statement."""
        raise NotImplementedError


def shape_of(operand: Any, values: list[Any]) -> Hashable:
    """Return the shape of an operand of a condition, and append its values to `values`."""
    kind: Any = type(operand)
    if kind in PARAMETER_TYPES:
        values.append(operand)
        return str(kind.__name__)
    if operand is None or kind is bool:
        return ("literal", operand)
    if kind is list or kind is tuple:
        if not 0 < len(operand) <= MAX_ITEMS:
            raise NotRecordableError
        return ("list", *[shape_of(item, values) for item in operand])
    if isinstance(operand, Q):
        return (operand.connector, operand.negated, *[_child_shape(child, values) for child in operand.children])
    if isinstance(operand, ParametrizedExpression):
        values.extend(operand.values())
        return (kind, operand.shape())
    if isinstance(operand, Expression | F) and not isinstance(operand, Subquery):
        return operand  # equal expressions have the same SQL and the same values
    raise NotRecordableError


def _child_shape(child: Any, values: list[Any]) -> Hashable:
    return (child[0], shape_of(child[1], values)) if isinstance(child, tuple) else shape_of(child, values)


def with_parameters(operand: Any, parameters: Iterator[Parameter]) -> Any:
    """Return an operand with parameters instead of its values, in the order of `shape_of`."""
    kind = type(operand)
    if kind in PARAMETER_TYPES:
        return next(parameters)
    if kind is list or kind is tuple:
        return [with_parameters(item, parameters) for item in operand]
    if isinstance(operand, Q):
        children = [
            (child[0], with_parameters(child[1], parameters))
            if isinstance(child, tuple)
            else with_parameters(child, parameters)
            for child in operand.children
        ]
        return Q.create(children, operand.connector, operand.negated)
    if isinstance(operand, ParametrizedExpression):
        return operand.with_values([next(parameters) for _ in operand.values()])
    return operand
