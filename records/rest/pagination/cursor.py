"""Pages by cursor, which cost the same at any depth."""

from typing import Any

from rest_framework.exceptions import ValidationError

from records.rest.pagination.keyset import Position, index_ranges
from records.rest.pagination.page import ListQuery, Page
from records.rest.pagination.parameters import MAX_PAGE_SIZE, read_integer, refuse_together


def read_cursor_page(query: ListQuery) -> Page:
    refuse_together(query.params, ("page", "skip", "limit"), "Cannot be mixed with cursor.")
    if query.count not in {"", "none"}:
        raise ValidationError({"count": ["A cursor does not count: leave it out."]})
    size = read_integer(query.params, "size", default=20, minimum=1, maximum=MAX_PAGE_SIZE)
    salt = f"cursor.{query.queryset.model._meta.label_lower}"
    token = query.params["cursor"]
    position = Position.from_token(str(token), query.keys, salt) if token else None
    rows = _read_rows(query, position, size + 1)
    page = Page(rows[:size], size)
    if position is not None and position.backwards:
        page.rows.reverse()
        page.has_next, page.has_previous = True, len(rows) > size
    else:
        page.has_next, page.has_previous = len(rows) > size, position is not None

    def link(position: Position | None) -> dict[str, Any] | None:
        return {"cursor": position.token(query.keys, salt), "size": size} if position else None

    after, before = _neighbours(query, page.rows, position)
    page.links = {
        "first": {"cursor": "", "size": size},
        "prev": link(before) if page.has_previous else None,
        "next": link(after) if page.has_next else None,
        "last": None,
    }
    for key in query.keys:
        if key.name not in query.names:
            for row in page.rows:
                del row[key.name]
    return page


def _read_rows(query: ListQuery, position: Position | None, limit: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    names = dict.fromkeys([*query.names, *(key.name for key in query.keys)])
    keys = [key.reversed() for key in query.keys] if position is not None and position.backwards else query.keys
    for part in index_ranges(query.queryset, query.keys, position):
        rows += query.select(query.first_rows(part, limit, keys)).values(*names)[: limit - len(rows)]
        if len(rows) == limit:
            break
    return rows


def _neighbours(
    query: ListQuery, rows: list[dict[str, Any]], position: Position | None
) -> tuple[Position | None, Position | None]:
    """Return the positions of the next page and of the previous page."""
    if rows:
        last, first = ([row[key.name] for key in query.keys] for row in (rows[-1], rows[0]))
        return Position(last), Position(first, backwards=True)
    if position is None:
        return None, None
    # All rows on this side were deleted: turning round starts with the row that the position excluded.
    turned = Position(position.values, not position.backwards, inclusive=not position.inclusive)
    return turned, turned
