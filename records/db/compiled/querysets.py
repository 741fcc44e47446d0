"""The query set that records."""

from collections.abc import Callable, Hashable
from dataclasses import replace
from functools import cache, partial
from typing import Any, Self, TypeVar

from django.db import connections
from django.db.models import Manager, Model, QuerySet
from django.db.models.query import ValuesIterable

from records.db.availability import read_with_reconnect
from records.db.compiled.parameters import NotRecordableError
from records.db.compiled.recording import Recording
from records.db.compiled.statements import statements
from records.db.expressions import RowCount

M = TypeVar("M", bound=Model)


def compiled_rows(manager: Manager[Any]) -> Any:
    """Return all rows of a model's own manager as a query set whose statements are compiled once."""
    model: Any = manager.model
    return _root(model, manager.name).all()


@cache
def _root(model: Any, manager: str) -> Any:
    rows: Any = model._meta.managers_map[manager].all()
    return rows.compiled()


class CompilableQuerySet(QuerySet[M]):
    """A query set that can record its operations."""

    _recording: Recording | None = None

    def compiled(self) -> Self:
        """Return these rows as a query set whose statements are compiled once.

        Only query sets that derive from one object share statements: see `compiled_rows`. An invalid operation,
        such as a filter by an unknown column, raises its error when the rows are read.
        """
        clone = self._chain()
        if not self.query.is_sliced and not self.query.combinator:
            clone._recording = Recording(self._chain())
        return clone

    @property
    def recorded_query(self) -> Hashable | None:
        """Equal for query sets with the same operations and values; None if an operation was not recorded."""
        return self._recording and (self._recording.root, self._recording.shape, self._recording.values)

    def with_count(self, name: str, limit: int | None = None) -> Self:
        """Annotate each row with the number of rows of this query set; at most `limit` are counted."""
        if self._recording is None or self._recording.limits is not None:
            return self.annotate(**{name: RowCount(self, limit)})
        return self._apply("with_count", name, limit)

    # Recorded operations

    def filter(self, *args: Any, **kwargs: Any) -> Self:
        return self._apply("filter", *args, **kwargs)

    def exclude(self, *args: Any, **kwargs: Any) -> Self:
        return self._apply("exclude", *args, **kwargs)

    def order_by(self, *field_names: Any) -> Self:
        return self._apply("order_by", *field_names)

    def annotate(self, *args: Any, **kwargs: Any) -> Self:
        return self._apply("annotate", *args, **kwargs)

    def select_related(self, *fields: Any) -> Self:
        return self._apply("select_related", *fields)

    def only(self, *fields: str) -> Self:
        return self._apply("only", *fields)

    def select_for_update(self, *args: Any, **options: Any) -> Self:
        rows: Any = self._apply("select_for_update", *args, **options)
        rows._for_write = True
        locked: Self = rows
        return locked

    def values(self, *fields: Any, **expressions: Any) -> Any:
        rows: Any = self._apply("values", *fields, **expressions)
        if rows._recording is not None:
            rows._fields = (*fields, *expressions)
            rows._iterable_class = ValuesIterable
        return rows

    def __getitem__(self, k: Any) -> Any:
        recording = self._recording
        if recording is None or self._result_cache is not None or not isinstance(k, slice) or k.step:
            return super().__getitem__(k)
        start, stop = k.start or 0, k.stop
        if recording.limits is not None or start < 0 or (stop is not None and stop <= start):
            return super().__getitem__(k)
        return self._with_recording(replace(recording, limits=(start, stop)))

    def first(self) -> Any:
        if self._recording is None:
            return super().first()
        rows = self if self._recording.is_ordered else self.order_by("pk")
        return next(iter(rows[:1]), None)

    def exists(self) -> bool:
        if self._recording is None or self._recording.limits is not None:
            return super().exists()
        return bool(self.order_by().values("pk")[:1])

    def _apply(self, name: str, /, *args: Any, **options: Any) -> Self:
        """Record an operation, or let Django apply it to the query if it cannot be recorded."""
        if self._recording is not None:
            try:
                return self._with_recording(self._recording.with_operation(name, args, options))
            except NotRecordableError:
                pass
        rows: Self = getattr(super(CompilableQuerySet, self._unrecorded()), name)(*args, **options)
        return rows

    def _unrecorded(self) -> Self:
        """Return the same rows with a query that Django has built."""
        if self._recording is None:
            return self
        rows = self._with_recording(None)
        rows._query = self._recording.replay().query
        return rows

    def _with_recording(self, recording: Recording | None) -> Self:
        clone = object.__new__(type(self))
        clone.__dict__.update(self.__dict__, _result_cache=None, _recording=recording)
        return clone

    # What Django's query set calls

    @property
    def query(self) -> Any:
        """The query, built by Django. All other operations read or change it."""
        if (recording := self._recording) is not None:
            self._query = recording.replay().query
            self._recording = None
        return QuerySet.query.fget(self)  # type: ignore[attr-defined]

    @query.setter
    def query(self, value: Any) -> None:
        QuerySet.query.fset(self, value)  # type: ignore[attr-defined]

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        copied: Self = super(CompilableQuerySet, self._unrecorded()).__deepcopy__(memo)
        return copied

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super(CompilableQuerySet, self._unrecorded()).__getstate__()
        return state

    def _chain(self) -> Self:
        if self._recording is not None:
            return self._with_recording(self._recording)
        plain: Self = super()._chain()  # type: ignore[misc]
        return plain

    def _fetch_all(self) -> None:
        if self._recording is None or self._prefetch_related_lookups:  # type: ignore[attr-defined]
            super()._fetch_all()
        elif self._result_cache is None:
            self._result_cache = self._read(self._recording)
            if self._result_cache is None:
                super()._fetch_all()

    def _read(self, recording: Recording) -> list[Any] | None:
        """Return the rows by the statement of a recording; None if it has none."""
        statement = statements.get(recording, self.db)
        if statement is None:
            return None
        rows: Any = self._with_recording(None)
        try:
            rows._query = statement.bind(recording, self.db)
        except NotRecordableError:
            return None
        read: Callable[[], list[Any]] = partial(list, self._iterable_class(rows))
        return read_with_reconnect(connections[self.db], read)
