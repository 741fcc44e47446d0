"""Fixture formats that keep every digit, and the state of a running `loaddata`."""

from collections import Counter
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from django.contrib.auth.models import Permission
from django.contrib.contenttypes.models import ContentType

_seen: ContextVar[Counter[Hashable] | None] = ContextVar("seen", default=None)


@contextmanager
def loading() -> Iterator[None]:
    """Count the natural keys that are loaded in this block for `occurrence`."""
    token = _seen.set(Counter())
    try:
        yield
    finally:
        _seen.reset(token)


def occurrence(key: Hashable) -> int:
    """Return how many rows with this natural key the running `loaddata` has loaded before, or 0 outside of one."""
    seen = _seen.get()
    if seen is None:
        return 0
    seen[key] += 1
    return seen[key] - 1


class NaturalSystemKeysMixin:
    """Always write content types and permissions with their natural keys.

    `migrate` creates these rows in every database, with ids that differ between databases.
    """

    use_natural_foreign_keys: bool
    use_natural_primary_keys: bool

    def start_object(self, obj: Any) -> None:
        # XML writes the primary key here. The other formats write it in `get_dump_object`.
        with self._natural_keys_for(type(obj)):
            super().start_object(obj)  # type: ignore[misc]

    def get_dump_object(self, obj: Any) -> dict[str, Any]:
        with self._natural_keys_for(type(obj)):
            dumped: dict[str, Any] = super().get_dump_object(obj)  # type: ignore[misc]
            return dumped

    def handle_fk_field(self, obj: Any, field: Any) -> None:
        with self._natural_keys_for(field.remote_field.model):
            super().handle_fk_field(obj, field)  # type: ignore[misc]

    def handle_m2m_field(self, obj: Any, field: Any) -> None:
        with self._natural_keys_for(field.remote_field.model):
            super().handle_m2m_field(obj, field)  # type: ignore[misc]

    @contextmanager
    def _natural_keys_for(self, model: type[Any]) -> Iterator[None]:
        options = self.use_natural_foreign_keys, self.use_natural_primary_keys
        if model in (ContentType, Permission):
            self.use_natural_foreign_keys = self.use_natural_primary_keys = True
        try:
            yield
        finally:
            self.use_natural_foreign_keys, self.use_natural_primary_keys = options
