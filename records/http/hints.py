"""Excerpts of requests in messages, and suggestions for misspelt names."""

import difflib
from collections.abc import Collection

#: Errors in one response; if there are more, it has their number.
MAX_ERRORS = 100

#: Suggestions in one response, because each compares a name with all known names.
MAX_HINTS = 10

MAX_NAME_LENGTH = 60

#: Names in other frameworks → names here.
ALIASES = {
    "ordering": "sort_by", "order_by": "sort_by", "offset": "skip", "page_size": "size", "per_page": "size",
    "q": "search", "owner": "user_id", "owner_id": "user_id", "user": "user_id",
}  # fmt: skip


def excerpt(text: str, limit: int = MAX_NAME_LENGTH) -> str:
    """Return a short, printable excerpt of a text from a request."""
    characters = (char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text[:limit])
    return "".join(characters) + ("…" if len(text) > limit else "")


def did_you_mean(name: str, known: Collection[str]) -> str:
    """Return " Did you mean 'price'?" for "pirce", or "" if no known name is similar."""
    if (alias := ALIASES.get(name)) in known:
        return f" Did you mean '{alias}'?"
    close = difflib.get_close_matches(name, known, n=1) if len(name) <= MAX_NAME_LENGTH else []
    return f" Did you mean '{close[0]}'?" if close else ""
