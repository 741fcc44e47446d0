"""The operations that were recorded on a query set."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from typing import Any, Self

from django.db.models import Q, QuerySet

from records.db.compiled.parameters import (
    NotRecordableError,
    Parameter,
    condition_shape,
    literal_shape,
    with_parameters,
)

#: Operations whose arguments hold values.
CONDITIONS = frozenset({"filter", "exclude"})


@dataclass(frozen=True)
class Recording:
    """The operations on a query set, and what a statement depends on: their shape and the values in them."""

    root: QuerySet[Any]
    #: Names, arguments and options of methods of the query set.
    operations: tuple[tuple[str, tuple[Any, ...], dict[str, Any]], ...] = ()
    shape: tuple[Hashable, ...] = ()
    values: tuple[Any, ...] = ()
    #: Offset and end of a slice, which is appended to the SQL of the statement.
    limits: tuple[int, int | None] | None = None

    def with_operation(self, name: str, args: tuple[Any, ...], options: dict[str, Any]) -> Self:
        """Add an operation. Raise NotRecordableError if an argument has no stable shape."""
        if self.limits is not None:
            raise NotRecordableError
        values: list[Any] = []
        shape: Hashable
        if name in CONDITIONS:
            condition = Q(*args, **options)
            args, options = (condition,), {}
            shape = condition_shape(condition, values)
        else:
            shape = (*map(literal_shape, args), *[(key, literal_shape(option)) for key, option in options.items()])
        return replace(
            self,
            operations=(*self.operations, (name, args, options)),
            shape=(*self.shape, (name, shape)),
            values=(*self.values, *values),
        )

    @property
    def is_ordered(self) -> bool:
        for name, args, _ in reversed(self.operations):
            if name == "order_by":
                return bool(args)
        return self.root.ordered

    def replay(self) -> QuerySet[Any]:
        """Apply the operations to the root as Django does."""
        rows = self._replay(lambda operand: operand)
        return rows if self.limits is None else rows[slice(*self.limits)]

    def with_parameters(self) -> QuerySet[Any]:
        """Return the rows, without the slice, with a parameter for each value."""
        parameters = iter([Parameter(index) for index in range(len(self.values))])
        return self._replay(lambda operand: with_parameters(operand, parameters))

    def _replay(self, convert: Callable[[Any], Any]) -> QuerySet[Any]:
        rows = self.root.all()  # the caller may change its query
        for name, args, options in self.operations:
            operands = [convert(operand) for operand in args] if name in CONDITIONS else args
            rows = getattr(rows, name)(*operands, **options)
        return rows
