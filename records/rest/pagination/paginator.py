"""The paginator of every list."""

from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

from django.http import QueryDict
from django.template import loader
from rest_framework.pagination import BasePagination
from rest_framework.request import Request

from records.rest.columns import api_columns
from records.rest.pagination.cursor import read_cursor_page
from records.rest.pagination.keyset import sort_keys
from records.rest.pagination.offset import read_numbered_page, read_offset_page
from records.rest.pagination.page import ListQuery, Page
from records.rest.pagination.parameters import PARAMETERS, describe, read_count, selected_fields
from records.rest.pagination.response import describe_response


class RecordPagination(BasePagination):
    display_page_controls = True
    template = "rest_framework/pagination/previous_and_next.html"
    #: Names of the query parameters.
    parameters = frozenset(PARAMETERS)

    def __init__(self) -> None:
        self.page = Page()  # the browsable API asks for the links of an error page too

    def paginate_queryset(self, queryset: Any, request: Request, view: Any = None) -> list[Any]:
        params = request.query_params
        serializer_class = view.get_serializer_class()
        names = selected_fields(params, serializer_class, with_deletion=view.lists_deleted())
        names = names or list(api_columns(serializer_class))
        keys = sort_keys(
            queryset.model, view.sort_fields, params.get("sort_by", view.default_sort), params.get("sort_order", "asc")
        )
        required = [name for name in view.required_columns if name not in names]
        query = ListQuery(
            queryset, serializer_class, [*names, *required], keys, params, read_count(params), view.row_groups(queryset)
        )
        self.page = _reader(params)(query)
        self.request = request
        for row in self.page.rows:
            view.format_row(row)
            for name in required:
                del row[name]
        return self.page.rows

    def get_paginated_response_data(self, items: list[dict[str, Any]]) -> dict[str, Any]:
        page = self.page
        return {
            "items": items,
            "total": page.total.rows,
            "total_is_estimate": page.total.is_estimate,
            "page": page.number,
            "size": page.size,
            "pages": page.pages,
            "has_next": page.has_next,
            "has_prev": page.has_previous,
            "links": self.links(),
        }

    def links(self) -> dict[str, str | None]:
        return {name: self._url(paging) if paging else None for name, paging in self.page.links.items()}

    def _url(self, paging: dict[str, Any]) -> str:
        """Return the path and query of this request with other paging parameters."""
        others: QueryDict = self.request.query_params.copy()
        for name in ("page", "size", "skip", "limit", "cursor"):
            others.pop(name, None)
        encoded = others.urlencode(safe="/:,")
        return f"{self.request.path}?{urlencode(paging)}{'&' + encoded if encoded else ''}"

    # Browsable API

    def get_html_context(self) -> dict[str, Any]:
        links = self.links() if self.page.links else {}
        return {"previous_url": links.get("prev"), "next_url": links.get("next")}

    def to_html(self) -> str:
        html: str = loader.get_template(self.template).render(self.get_html_context())
        return html

    def get_results(self, data: dict[str, Any]) -> list[Any]:
        results: list[Any] = data["items"]
        return results

    # OpenAPI

    def get_paginated_response_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        return describe_response(schema)

    def get_schema_operation_parameters(self, view: Any) -> list[dict[str, Any]]:
        return describe(view)


def _reader(params: QueryDict) -> Callable[[ListQuery], Page]:
    if "cursor" in params:
        return read_cursor_page
    return read_offset_page if "skip" in params or "limit" in params else read_numbered_page
