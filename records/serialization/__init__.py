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
    """Count the natural keys met in this block: see `occurrence`."""
    token = _seen.set(Counter())
    try:
        yield
    finally:
        _seen.reset(token)


def occurrence(key: Hashable) -> int:
    """Return how often this `loaddata` has met the natural key before; 0 outside of one."""
    seen = _seen.get()
    if seen is None:
        return 0
    seen[key] += 1
    return seen[key] - 1


class SystemRowsByName:
    """Serializer mixin: name content types and permissions by their natural keys, whatever the options say.

    `migrate` creates these rows in every database, under ids that differ from one database to the next.
    """

    use_natural_foreign_keys: bool
    use_natural_primary_keys: bool

    def start_object(self, obj: Any) -> None:
        # XML writes the key here, the other formats in `get_dump_object`.
        with self._natural(type(obj)):
            super().start_object(obj)  # type: ignore[misc]

    def get_dump_object(self, obj: Any) -> dict[str, Any]:
        with self._natural(type(obj)):
            return super().get_dump_object(obj)  # type: ignore[misc]

    def handle_fk_field(self, obj: Any, field: Any) -> None:
        with self._natural(field.remote_field.model):
            super().handle_fk_field(obj, field)  # type: ignore[misc]

    def handle_m2m_field(self, obj: Any, field: Any) -> None:
        with self._natural(field.remote_field.model):
            super().handle_m2m_field(obj, field)  # type: ignore[misc]

    @contextmanager
    def _natural(self, model: type[Any]) -> Iterator[None]:
        chosen = self.use_natural_foreign_keys, self.use_natural_primary_keys
        if model in (ContentType, Permission):
            self.use_natural_foreign_keys = self.use_natural_primary_keys = True
        try:
            yield
        finally:
            self.use_natural_foreign_keys, self.use_natural_primary_keys = chosen
