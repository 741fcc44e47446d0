"""The former place of these names, which migrations import."""

from records.db.constraints import SearchIndex, Trigrams, Unique, deleted_index, live_index, sort_index
from records.db.validators import GreaterThanValidator, plain_json

__all__ = [
    "GreaterThanValidator", "SearchIndex", "Trigrams", "Unique", "deleted_index", "live_index", "plain_json",
    "sort_index",
]  # fmt: skip
