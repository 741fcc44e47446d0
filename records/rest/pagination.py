"""Pages of a list: by number, by offset, by cursor; each with one query for the rows and their bounded count."""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import urlencode

from django.db import connections
from django.db.models import IntegerField, QuerySet, Subquery
from django.http import QueryDict
from rest_framework.exceptions import NotFound, ValidationError
from rest_framework.pagination import BasePagination
from rest_framework.request import Request

from records.db.validators import BIGINT_MAX
from records.http.hints import did_you_mean, excerpt
from records.rest.keyset import SORT_ALIASES, Position, segments, sort_keys
from records.rest.serializers import DELETION_COLUMNS, columns, rows

EXACT_UP_TO = 10_000
DEEPEST_OFFSET = 100_000
LARGEST_PAGE = 200
COUNTS = ("exact", "estimated", "none")
# No column has such a name, so that it can ride along in the rows.
TOTAL = "matching_rows"


class RowCount(Subquery):
    """How many rows a query has; with a slice of it, no more than that are looked at."""

    template = "(SELECT COUNT(*) FROM (%(subquery)s) matching)"
    output_field = IntegerField()

    def __init__(self, queryset: QuerySet, at_most: int | None = None) -> None:
        ids = queryset.order_by().values("pk")
        super().__init__(ids if at_most is None else ids[:at_most])


def estimated_count(queryset: QuerySet) -> int:
    """The planner's guess (PostgreSQL), from its statistics: no row is read."""
    [plan] = json.loads(queryset.order_by().values("pk").explain(format="json"))
    return plan["Plan"]["Plan Rows"]


def can_estimate(queryset: QuerySet) -> bool:
    return connections[queryset.db].vendor == "postgresql"


@dataclass
class Total:
    rows: int | None = None
    is_estimate: bool = False


class RecordPagination(BasePagination):
    display_page_controls = True
    template = "rest_framework/pagination/previous_and_next.html"

    def __init__(self) -> None:
        # A page that shows an error has none.
        self.links: dict[str, str | None] = {"first": None, "prev": None, "next": None, "last": None}

    def paginate_queryset(self, queryset: Any, request: Request, view: Any = None) -> list[Any]:
        self.request, self.params = request, request.query_params
        self.serializer_class = view.get_serializer_class()
        names = chosen_fields(self.params, self.serializer_class, deleted=view.shows_deleted())
        self.names = names or list(columns(self.serializer_class))
        self.keys = sort_keys(
            queryset.model,
            view.sort_fields,
            self.params.get("sort_by", view.default_sort),
            self.params.get("sort_order", "asc"),
        )
        self.count = self.params.get("count", "")
        if "count" in self.params and self.count not in COUNTS:
            raise ValidationError({"count": [f"Must be one of {', '.join(COUNTS)}."]})
        # What the view needs of a row to show it, though nobody asked for it.
        helping = [name for name in view.helping_columns if name not in self.names]
        self.names += helping
        items = self._paged(queryset)
        for item in items:
            view.present(item)
            for name in helping:
                del item[name]
        return items

    def _paged(self, queryset: QuerySet) -> list[dict[str, Any]]:
        if "cursor" in self.params:
            return self._by_cursor(queryset)
        if "skip" in self.params or "limit" in self.params:
            return self._by_offset(queryset)
        return self._by_page(queryset)

    def get_paginated_response_data(self, items: list[dict[str, Any]]) -> dict[str, Any]:
        return {"items": items, **self.envelope, "links": self.links}

    # By number and by offset

    def _by_page(self, queryset: QuerySet) -> list[dict[str, Any]]:
        page = read_integer(self.params, "page", default=1, least=1)
        size = read_integer(self.params, "size", default=20, least=1, most=LARGEST_PAGE)
        items, total, more = self._window(queryset, (page - 1) * size, size, named="page")
        pages = None if total.rows is None else -(-total.rows // size)
        self._describe(items, total, page=page, size=size, pages=pages, has_next=more, has_prev=page > 1)
        link = partial(self._link, without=("page", "size"), size=size)
        self.links = {
            "first": link(page=1),
            "prev": link(page=page - 1) if page > 1 else None,
            "next": link(page=page + 1) if more else None,
            "last": self._last(total, size, lambda number: link(page=number + 1)),
        }
        return items

    def _by_offset(self, queryset: QuerySet) -> list[dict[str, Any]]:
        for name in ("page", "size"):
            if name in self.params:
                raise ValidationError({name: ["Cannot be mixed with skip and limit."]})
        skip = read_integer(self.params, "skip", default=0, least=0)
        limit = read_integer(self.params, "limit", default=100, least=1, most=LARGEST_PAGE)
        items, total, more = self._window(queryset, skip, limit, named="skip")
        pages = None if total.rows is None else -(-total.rows // limit)
        self._describe(items, total, page=skip // limit + 1, size=limit, pages=pages, has_next=more, has_prev=skip > 0)
        link = partial(self._link, without=("skip", "limit"), limit=limit)
        self.links = {
            "first": link(skip=0),
            "prev": link(skip=max(0, skip - limit)) if skip > 0 else None,
            "next": link(skip=skip + limit) if more else None,
            "last": self._last(total, limit, lambda number: link(skip=number * limit)),
        }
        return items

    def _window(self, queryset: QuerySet, offset: int, size: int, named: str) -> tuple[list[dict], Total, bool]:
        if offset > DEEPEST_OFFSET:
            raise ValidationError(
                {named: [f"Rows beyond {DEEPEST_OFFSET:,} are reached with cursor= (see links.next of its answers)."]}
            )
        ordered = queryset.order_by(*(key.ordering() for key in self.keys))
        selected = rows(ordered, self.serializer_class, self.names)
        at_most = self._rows_to_count(queryset)
        if at_most != 0:
            selected = selected.annotate(**{TOTAL: RowCount(queryset, at_most)}).values(*self.names, TOTAL)
        items = list(selected[offset : offset + size + 1])
        counted = [item.pop(TOTAL) for item in items] if at_most != 0 else []
        if not items and offset and named == "page":
            raise NotFound("This page is past the end of the list.")
        more = len(items) > size
        return items[:size], self._total(queryset, counted, at_most, offset, items, more), more

    def _rows_to_count(self, queryset: QuerySet) -> int | None:
        """How many rows to count at the most; None for all, 0 for not at all."""
        if self.count == "none":
            return 0
        if self.count == "exact" or not can_estimate(queryset):
            return None
        return 0 if self.count == "estimated" else EXACT_UP_TO + 1

    def _total(
        self, queryset: QuerySet, counted: list[int], at_most: int | None, offset: int, items: list, more: bool
    ) -> Total:
        if self.count == "none":
            return Total()
        if not more and (items or offset == 0):
            return Total(offset + len(items))  # the end is in sight
        if not items and at_most != 0:
            # Behind the end no row carries the count along.
            counted = [queryset[:at_most].count()]
        known = counted[0] if counted else 0
        if at_most is None or 0 < known < at_most:
            return Total(known)
        return Total(max(estimated_count(queryset), known, offset + len(items)), is_estimate=True)

    def _last(self, total: Total, size: int, link: Any) -> str | None:
        if total.rows is None or total.is_estimate:
            return None
        number = max(0, -(-total.rows // size) - 1)
        return link(number) if number * size <= DEEPEST_OFFSET else None

    # By cursor

    def _by_cursor(self, queryset: QuerySet) -> list[dict[str, Any]]:
        for name in ("page", "skip", "limit"):
            if name in self.params:
                raise ValidationError({name: ["Cannot be mixed with cursor."]})
        if self.count not in {"", "none"}:
            raise ValidationError({"count": ["A cursor does not count: leave it out."]})
        size = read_integer(self.params, "size", default=20, least=1, most=LARGEST_PAGE)
        salt = f"cursor.{queryset.model._meta.label_lower}"
        token = self.params["cursor"]
        position = Position.read(token, self.keys, salt) if token else None
        backwards = position is not None and position.backwards

        found: list[dict[str, Any]] = []
        hidden = [key.name for key in self.keys if key.name not in self.names]
        for segment in segments(queryset, self.keys, position):
            selected = rows(segment, self.serializer_class, self.names).values(*self.names, *hidden)
            found += selected[: size + 1 - len(found)]
            if len(found) > size:
                break
        more, items = len(found) > size, found[:size]
        if backwards:
            items.reverse()
        has_next, has_prev = (True, more) if backwards else (more, position is not None)
        self._describe(items, Total(), page=None, size=size, pages=None, has_next=has_next, has_prev=has_prev)

        link = partial(self._link, without=("cursor", "size"), size=size)
        after, before = self._ends(items, position)
        self.links = {
            "first": link(cursor=""),
            "prev": link(cursor=before.token(self.keys, salt)) if has_prev and before else None,
            "next": link(cursor=after.token(self.keys, salt)) if has_next and after else None,
            "last": None,
        }
        for item in items:
            for name in hidden:
                del item[name]
        return items

    def _ends(self, items: list[dict], position: Position | None) -> tuple[Position | None, Position | None]:
        """Where the next page starts, and where the previous one does."""
        if items:
            last, first = ([item[key.name] for key in self.keys] for item in (items[-1], items[0]))
            return Position(last), Position(first, backwards=True)
        if position is None:
            return None, None
        # All rows on this side are gone: turning round starts with the row that was asked to be passed.
        turned = Position(position.values, not position.backwards, inclusive=not position.inclusive)
        return turned, turned

    # What all three share

    def _describe(self, items: list, total: Total, **envelope: Any) -> None:
        self.envelope = {"total": total.rows, "total_is_estimate": total.is_estimate, **envelope}

    def _link(self, *, without: Iterable[str], **paging: Any) -> str:
        """The path as it was asked, with the caller's other parameters."""
        parameters: QueryDict = self.params.copy()
        for name in without:
            parameters.pop(name, None)
        order = sorted(paging, key=lambda name: name in {"size", "limit"})
        own = urlencode([(name, paging[name]) for name in order])
        others = parameters.urlencode(safe="/:,")
        return f"{self.request.path}?{own}{'&' + others if others else ''}"

    def get_html_context(self) -> dict[str, Any]:
        return {"previous_url": self.links["prev"], "next_url": self.links["next"]}

    def to_html(self) -> str:
        from django.template import loader

        return loader.get_template(self.template).render(self.get_html_context())

    def get_results(self, data: dict[str, Any]) -> list:
        return data["items"]

    # OpenAPI

    def get_paginated_response_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        link = {"type": "string", "format": "uri-reference", "nullable": True}
        whole = {"type": "integer", "format": "int64", "nullable": True}
        return {
            "type": "object",
            "required": [
                "items",
                "total",
                "total_is_estimate",
                "page",
                "size",
                "pages",
                "has_next",
                "has_prev",
                "links",
            ],
            "properties": {
                "items": schema | {"description": "The rows of this page."},
                "total": whole | {"description": "Matching rows; null where nobody counted.", "example": 150},
                "total_is_estimate": {
                    "type": "boolean",
                    "description": f"Whether `total` is the planner's guess, past {EXACT_UP_TO:,} rows.",
                },
                "page": whole | {"description": "1-based number of this page; null by cursor.", "example": 1},
                "size": {
                    "type": "integer",
                    "minimum": 1,
                    "maximum": LARGEST_PAGE,
                    "description": "Rows a page.",
                    "example": 10,
                },
                "pages": whole | {"description": "Pages in all; null where nobody counted.", "example": 15},
                "has_next": {"type": "boolean", "description": "Whether rows follow."},
                "has_prev": {"type": "boolean", "description": "Whether rows come before."},
                "links": {
                    "type": "object",
                    "description": "The neighbouring pages, with all other parameters kept.",
                    "required": ["first", "prev", "next", "last"],
                    "properties": {
                        "first": {"type": "string", "format": "uri-reference"},
                        "prev": link,
                        "next": link,
                        "last": link | {"description": "Null where the total is unknown or a guess."},
                    },
                },
            },
        }

    def get_schema_operation_parameters(self, view: Any) -> list[dict[str, Any]]:
        def parameter(name: str, description: str, **schema: Any) -> dict[str, Any]:
            return {"name": name, "in": "query", "required": False, "description": description, "schema": schema}

        aliases = {alias: name for alias, name in SORT_ALIASES.items() if name in view.sort_fields}
        names = list(dict.fromkeys([*view.sort_fields, *aliases]))
        sortable, key = ", ".join(names), "|".join(names)
        spelt = ["|".join([name, *(alias for alias in aliases if aliases[alias] == name)]) for name in view.sort_fields]
        twice = "".join(rf"(?!.*\b(?:{each})\b.*\b(?:{each})\b)" for each in spelt)
        usual = f" Default: {view.default_sort}." if view.default_sort else ""
        return [
            # No `default` in these schemas: generated clients send it along, and `page` beside `cursor` is refused.
            parameter("page", "1-based page; 1 if absent.", type="integer", minimum=1, maximum=DEEPEST_OFFSET + 1),
            parameter("size", "Rows a page; 20 if absent.", type="integer", minimum=1, maximum=LARGEST_PAGE),
            parameter(
                "skip",
                "Rows to pass over, instead of `page` and `size`.",
                type="integer",
                minimum=0,
                maximum=DEEPEST_OFFSET,
            ),
            parameter(
                "limit",
                "Rows at the most, with `skip`; 100 if absent.",
                type="integer",
                minimum=1,
                maximum=LARGEST_PAGE,
            ),
            parameter(
                "cursor",
                "Paging at any depth, instead of `page`, `skip` and `limit`: start with an empty `cursor=`, go on with "
                "the `cursor` in `links.next`.",
                type="string",
            )
            | {"allowEmptyValue": True},
            parameter(
                "count", f"How to count. Default: exactly up to {EXACT_UP_TO:,} rows.", type="string", enum=list(COUNTS)
            ),
            parameter(
                "sort_by",
                f"Comma-separated, `-` for descending. Known: {sortable}.{usual}",
                type="string",
                pattern=f"^{twice}-?({key})(,-?({key}))*$",
            ),
            parameter(
                "sort_order",
                "Direction of keys without `-`; `asc` if absent.",
                type="string",
                enum=["asc", "desc"],
            ),
            fields_parameter(columns(view.serializer_class) if view.serializer_class else ()),
        ]


def fields_parameter(names: Iterable[str]) -> dict[str, Any]:
    """Describe `fields=`; no schema can say that the answer then lacks what it requires otherwise."""
    known = ", ".join(names)
    return {
        "name": "fields",
        "in": "query",
        "required": False,
        "description": f"Comma-separated names: the answer has only these, whatever its schema says. Known: {known}.",
        "schema": {"type": "string", "minLength": 1},
    }


def read_integer(params: QueryDict, name: str, *, default: int, least: int, most: int | None = None) -> int:
    text = params.get(name)
    if text is None:
        return default
    if not re.fullmatch(r"-?[0-9]+", text):
        raise ValidationError({name: ["A whole number is required."]})
    # Beyond all bounds is beyond all bounds, however far.
    value = int(text) if len(text) < 18 else -BIGINT_MAX if text.startswith("-") else BIGINT_MAX
    if value < least or (most is not None and value > most):
        bounds = f"at least {least}" if most is None else f"from {least} to {most}"
        raise ValidationError({name: [f"Must be {bounds}."]})
    return value


def chosen_fields(
    params: QueryDict, serializer_class: Any, *, deleted: bool = False, extra: Iterable[str] = ()
) -> list[str] | None:
    """What `fields=` asks for; None without it, where deleted rows do not add columns of their own."""
    known = [*columns(serializer_class), *extra, *(DELETION_COLUMNS if deleted else ())]
    if "fields" not in params:
        return known if deleted else None
    names = list(dict.fromkeys(name.strip() for name in str(params["fields"]).split(",")))
    for name in names:
        if name not in known:
            raise ValidationError({"fields": [f"Unknown field '{excerpt(name)}'.{did_you_mean(name, known)}"]})
    return names
