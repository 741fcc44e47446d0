"""Searching text columns, ignoring case, at a cost that does not grow with the table."""

from collections.abc import Iterable
from typing import Any

from django.db import connections
from django.db.models import Q, QuerySet

from records.db.case import simple_upper
from records.db.constraints import ShortSearchIndex
from records.db.expressions import ContainsGram
from records.db.groups import KeyIn, distinct_values
from records.db.text import normalize_text
from records.rest.pagination.counting import estimated_count

#: Different values of a column up to which they are read to find the matching ones.
MAX_VALUES = 10_000
#: Matching rows up to which a search of one or two letters uses its index.
MAX_INDEXED = 50_000


def is_short(text: str) -> bool:
    """Return True for one letter and for two, which have no trigram."""
    return len(normalize_text(text)) < 3


def search_rows(rows: QuerySet[Any], fields: Iterable[str], text: str) -> QuerySet[Any]:
    """Return the rows of which one of these fields contains `text`."""
    if has_short_index(rows, fields) and is_short(text):
        grams = _any_of(ContainsGram(name, text) for name in fields)
        found = rows.model._base_manager.using(rows.db).filter(grams).values("pk")
        # The index returns all matching rows. Where there are many, the first ones are found soon in any order.
        if estimated_count(found) <= MAX_INDEXED:
            return rows.filter(KeyIn(found))
    return rows.filter(_any_of(Q(**{f"{name}__icontains": text}) for name in fields))


def _any_of(conditions: Iterable[Any]) -> Q:
    found = Q()
    for condition in conditions:
        found |= Q(condition)
    return found


def has_short_index(rows: QuerySet[Any], fields: Iterable[str]) -> bool:
    if connections[rows.db].vendor != "postgresql":
        return False
    indexes = [index for index in rows.model._meta.indexes if isinstance(index, ShortSearchIndex)]
    return any(set(fields) <= set(index.fields) for index in indexes)


def matching_values(rows: QuerySet[Any], column: str, text: str) -> list[str] | None:
    """Return the values of a column in all live rows that contain `text`, or only `text` if there are none.

    Return None if the rows have too many different values, and on SQLite.
    """
    if connections[rows.db].vendor != "postgresql":
        return None
    values = distinct_values(rows.model, column, MAX_VALUES)
    sought = simple_upper(normalize_text(text))
    return None if values is None else [value for value in values if sought in simple_upper(value)] or [text]
