"""The operations that were recorded on a query set."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from django.db.models import QuerySet

from records.db.compiled.parameters import NotRecordableError, Parameter, shape_of, with_parameters

#: Operations whose operands are values.
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

    def with_condition(self, name: str, args: tuple[Any, ...], lookups: dict[str, Any]) -> Self:
        """Add a `filter` or `exclude`. Raise NotRecordableError if an operand has no stable shape."""
        values: list[Any] = []
        shapes = [shape_of(operand, values) for operand in args]
        shapes += [(lookup, shape_of(operand, values)) for lookup, operand in lookups.items()]
        return self._with_operation((name, args, lookups), (name, *shapes), values)

    def with_operation(self, name: str, args: tuple[Any, ...], options: dict[str, Any]) -> Self:
        """Add an operation without values: all its arguments are a part of the shape."""
        return self._with_operation((name, args, options), (name, args, *options.items()))

    def _with_operation(self, operation: Any, shape: Hashable, values: Sequence[Any] = ()) -> Self:
        if self.limits is not None:
            raise NotRecordableError
        return replace(
            self,
            operations=(*self.operations, operation),
            shape=(*self.shape, shape),
            values=(*self.values, *values),
        )

    @property
    def is_ordered(self) -> bool:
        return self.root.ordered or any(name == "order_by" and args for name, args, _ in self.operations)

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
            if name in CONDITIONS:
                args = tuple(map(convert, args))
                options = {lookup: convert(operand) for lookup, operand in options.items()}
            rows = getattr(rows, name)(*args, **options)
        return rows
