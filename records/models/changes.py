"""Changes of rows, and the signals that announce them.

The audit log receives both signals, in the transaction of the change.
"""

from typing import Any, NamedTuple

from django.dispatch import Signal


class Change(NamedTuple):
    """A change of a row: its key, its owner, and its columns with old and new value: `{"price": [175.5, 190.25]}`."""

    object_id: Any
    owner_id: int | None = None
    changes: dict[str, list[Any]] = {}


#: Rows of the sender, a model, were written: `action` (str), `changes` (list of Change), `using` (database alias).
rows_changed = Signal()
#: Rows of the sender were purged: receivers erase the values that they keep of them. `keys` (list), `using`.
rows_purged = Signal()
