"""Pages by number (`page` and `size`) and by offset (`skip` and `limit`)."""

from typing import Any

from rest_framework.exceptions import NotFound, ValidationError

from records.rest.pagination.counting import Counter, Total
from records.rest.pagination.page import ListQuery, Page
from records.rest.pagination.parameters import MAX_OFFSET, MAX_PAGE_SIZE, read_integer, refuse_together

#: Name under which each row carries the number of all rows. No column has it.
TOTAL = "matching_rows"


def read_numbered_page(query: ListQuery) -> Page:
    number = read_integer(query.params, "page", default=1, minimum=1)
    size = read_integer(query.params, "size", default=20, minimum=1, maximum=MAX_PAGE_SIZE)
    page = _read_window(query, (number - 1) * size, size, parameter="page")
    page.number = number

    def link(number: int) -> dict[str, Any]:
        return {"page": number, "size": size}

    last = _last_window(page.total, size)
    page.links = {
        "first": link(1),
        "prev": link(number - 1) if number > 1 else None,
        "next": link(number + 1) if page.has_next else None,
        "last": None if last is None else link(last + 1),
    }
    return page


def read_offset_page(query: ListQuery) -> Page:
    refuse_together(query.params, ("page", "size"), "Cannot be mixed with skip and limit.")
    skip = read_integer(query.params, "skip", default=0, minimum=0)
    limit = read_integer(query.params, "limit", default=100, minimum=1, maximum=MAX_PAGE_SIZE)
    page = _read_window(query, skip, limit, parameter="skip")
    page.number = skip // limit + 1

    def link(skip: int) -> dict[str, Any]:
        return {"skip": skip, "limit": limit}

    last = _last_window(page.total, limit)
    page.links = {
        "first": link(0),
        "prev": link(max(0, skip - limit)) if skip > 0 else None,
        "next": link(skip + limit) if page.has_next else None,
        "last": None if last is None else link(last * limit),
    }
    return page


def _read_window(query: ListQuery, offset: int, size: int, *, parameter: str) -> Page:
    if offset > MAX_OFFSET:
        message = f"Rows beyond {MAX_OFFSET:,} are reached with cursor= (see links.next of its answers)."
        raise ValidationError({parameter: [message]})
    counter = Counter(query.queryset, query.count)
    is_counted = counter.limit != 0
    matching: Any = query.queryset.with_count(TOTAL, counter.limit) if is_counted else query.queryset
    matching = query.first_rows(matching, offset + size + 1)
    ordered = matching.order_by(*(key.ordering() for key in query.keys))
    rows = list(query.select(ordered, *([TOTAL] if is_counted else []))[offset : offset + size + 1])
    if not rows and offset and parameter == "page":
        raise NotFound("This page is past the end of the list.")
    counted = [row.pop(TOTAL, 0) for row in rows]
    has_more = len(rows) > size
    total = counter.total(counted[0] if counted else None, offset, min(len(rows), size), has_more=has_more)
    return Page(rows[:size], size, total, pages=total.pages(size), has_next=has_more, has_previous=offset > 0)


def _last_window(total: Total, size: int) -> int | None:
    """Return the index of the last window of this size; None if it is unknown or out of reach."""
    if total.rows is None or total.is_estimate:
        return None
    index = max(0, -(-total.rows // size) - 1)
    return index if index * size <= MAX_OFFSET else None
