"""A query for one page of a list, and the page that it returns."""

from dataclasses import dataclass, field
from typing import Any

from django.db.models import QuerySet
from django.http import QueryDict

from records.db.compiled import CompilableQuerySet
from records.rest.columns import select_columns
from records.rest.pagination.counting import Total
from records.rest.pagination.groups import Groups
from records.rest.pagination.keyset import Key


@dataclass
class ListQuery:
    """The rows of a list and what the request selects of them."""

    queryset: CompilableQuerySet[Any]
    serializer_class: Any
    #: Fields of the response to read.
    names: list[str]
    keys: list[Key]
    params: QueryDict
    #: The parameter `count`, "" if it was not sent.
    count: str
    groups: Groups | None = None

    def first_rows(self, rows: Any, number: int, keys: list[Key] | None = None) -> Any:
        """Return rows that contain the first `number` of `rows`, in the order of `keys`, and are found faster."""
        found = self.groups.first_rows(rows, keys or self.keys, number) if self.groups else None
        return rows if found is None else found

    def select(self, rows: QuerySet[Any], *annotations: str) -> QuerySet[Any, dict[str, Any]]:
        return select_columns(rows, self.serializer_class, self.names, annotations)


@dataclass
class Page:
    rows: list[dict[str, Any]] = field(default_factory=list)
    size: int = 0
    total: Total = field(default_factory=Total)
    number: int | None = None
    pages: int | None = None
    has_next: bool = False
    has_previous: bool = False
    #: Name of a link → its paging parameters; None if there is no such page.
    links: dict[str, dict[str, Any] | None] = field(default_factory=dict)
