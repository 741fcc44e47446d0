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
#: A statement is about to write one row of the sender: `action`, `change`, `using`. Receivers return the SQL and the
#: parameters of a statement to include in it; see `records.db.compiled.writes`. `rows_changed` is not sent then.
row_written = Signal()
#: Rows of the sender were purged: receivers erase the values that they keep of them. `keys` (list), `using`.
rows_purged = Signal()
