"""Text from outside in messages, and what its author may have meant."""

import difflib
from collections.abc import Collection

#: Errors that one answer names; beyond that it says how many there are.
MAX_ERRORS = 100

#: Suggestions in one answer: each compares a name with every known one.
MAX_HINTS = 10

LONGEST_NAME = 60

#: Names that other frameworks use → ours.
FAMILIAR = {
    "ordering": "sort_by", "order_by": "sort_by", "offset": "skip", "page_size": "size", "per_page": "size",
    "q": "search", "owner": "user_id", "owner_id": "user_id", "user": "user_id",
}  # fmt: skip


def excerpt(text: str, limit: int = LONGEST_NAME) -> str:
    """Text from outside in a message: printable, short."""
    replaced = (each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text[:limit])
    return "".join(replaced) + ("…" if len(text) > limit else "")


def did_you_mean(name: str, known: Collection[str]) -> str:
    """Return " Did you mean 'price'?" for "pirce", or "" where no known name is close."""
    if (ours := FAMILIAR.get(name)) in known:
        return f" Did you mean '{ours}'?"
    close = difflib.get_close_matches(name, known, n=1) if len(name) <= LONGEST_NAME else []
    return f" Did you mean '{close[0]}'?" if close else ""
