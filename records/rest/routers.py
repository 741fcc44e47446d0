"""Routes without a trailing slash."""

from collections.abc import Callable
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.urls import path
from drf_spectacular.utils import extend_schema
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.routers import APIRootView, DefaultRouter

from records.models import Record
from records.rest.audit_log.views import HistoryViewSet
from records.rest.schema.auto_schema import RecordSchema
from records.rest.views import StrictMixin

#: Method → action on a collection, as far as the viewset has it.
COLLECTION_METHODS = {"get": "list", "post": "create", "patch": "bulk_update", "delete": "bulk_destroy"}


class OptionalSlashMiddleware:
    """Serve `/api/v1/stocks/` as `/api/v1/stocks`, for every method and without a redirect; except in the admin."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        path = request.path_info
        if path.endswith("/") and path != "/" and not path.startswith("/admin/"):
            # request.path stays unchanged, because links are built from it.
            request.path_info = path[:-1]
        return self.get_response(request)


class RootView(StrictMixin, APIRootView):
    """The root of the API."""

    permission_classes = (AllowAny,)
    name = "API"
    schema = RecordSchema()

    @extend_schema(
        operation_id="api_root",
        responses={200: {"type": "object", "additionalProperties": {"type": "string", "format": "uri"}}},
    )
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """List every collection: its name and its address."""
        return super().get(request, *args, **kwargs)


class RecordRouter(DefaultRouter):
    """Routes without a trailing slash, and a root that lists every collection."""

    include_format_suffixes = False
    include_root_view = False  # it is routed at /api/v1, where an included route would end with a slash
    APIRootView = RootView

    def __init__(self) -> None:
        super().__init__(trailing_slash=False)
        collection: Any = self.routes[0]
        self.routes = [collection._replace(mapping=COLLECTION_METHODS), *self.routes[1:]]

    def get_urls(self) -> list[Any]:
        """Return the routes of each resource, with the history of its rows."""
        registry: list[tuple[str, Any, str]] = self.registry
        histories = [
            path(
                f"{prefix}/<str:id>/history",
                HistoryViewSet.as_view({"get": "list"}, resource=viewset, detail=False, name="History"),
                name=f"{basename}-history",
            )
            for prefix, viewset, basename in registry
            if issubclass(viewset.queryset.model, Record)
        ]
        return super().get_urls() + histories
