"""The state of the service: index, ping and health checks."""

from functools import cache
from typing import Any, TypeAlias

from django.conf import settings
from django.db import DatabaseError, InterfaceError, connection
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder
from django.urls import reverse
from drf_spectacular.utils import extend_schema, inline_serializer
from rest_framework import serializers, status
from rest_framework.renderers import BaseRenderer, TemplateHTMLRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from records.db.availability import is_read_only
from records.http.problems import RETRY_AFTER_SECONDS
from records.rest.renderers import ORJSONRenderer
from records.rest.views import StrictView

Field: TypeAlias = "serializers.Field[Any, Any, Any, Any]"

LINKS = {
    "api": "api-root", "docs": "docs", "redoc": "redoc", "openapi": "schema", "admin": "admin:index",
    "ready": "ready",
}  # fmt: skip

UNAVAILABLE: dict[str, Any] = {
    "status": status.HTTP_503_SERVICE_UNAVAILABLE,
    "headers": {"Retry-After": str(RETRY_AFTER_SECONDS)},
}


def database_state() -> str:
    """Return "connected", "read-only" or "disconnected", by one query."""
    try:
        return "read-only" if is_read_only(connection) else "connected"
    except (DatabaseError, InterfaceError):
        return "disconnected"


@cache
def _known_migrations() -> frozenset[tuple[str, str]]:
    return frozenset(MigrationLoader(None).disk_migrations)


def pending_migrations() -> list[str]:
    applied = MigrationRecorder(connection).applied_migrations()
    return sorted(f"{app}.{name}" for app, name in _known_migrations() - applied.keys())


def missing_requirements() -> list[str]:
    """Return what the service needs to answer every request and does not have."""
    state = database_state()
    if state != "connected":
        return ["writable database" if state == "read-only" else "database"]
    try:
        return pending_migrations()
    except (DatabaseError, InterfaceError):  # the table is locked, or the connection was lost
        return ["database"]


class ServiceView(StrictView):
    """A public view without rate limits, for load balancers."""

    authentication_classes = ()
    permission_classes = ()
    throttle_classes = ()
    renderer_classes: tuple[type[BaseRenderer], ...] = (ORJSONRenderer,)


def _response(name: str, **fields: Field) -> Any:
    return inline_serializer(name, dict(fields))


def _responses(name: str, **fields: Field) -> dict[int, Any]:
    response = _response(name, **fields)
    return {200: response, 503: response}


_STATUS = serializers.CharField(help_text="Always `ok`.")


class IndexView(ServiceView):
    renderer_classes = (ORJSONRenderer, TemplateHTMLRenderer)
    error_media_types = ("text/html",)
    template_name = "index.html"

    @extend_schema(
        operation_id="index",
        responses=_responses(
            "Index",
            message=serializers.CharField(help_text="That the service runs."),
            status=serializers.ChoiceField(["healthy", "unhealthy"], help_text="Whether all is well."),
            database=serializers.ChoiceField(
                ["connected", "read-only", "disconnected"], help_text="Whether the database answered, and takes writes."
            ),
            version=serializers.CharField(help_text="Version of the service."),
            links=serializers.DictField(child=serializers.CharField(), help_text="Where to go from here."),
        ),
    )
    def get(self, request: Request) -> Response:
        """Return the state of the service and its database, and links to its parts."""
        state = database_state()
        healthy = state == "connected"
        return Response(
            {
                "message": f"{settings.APP_NAME} is running",
                "status": "healthy" if healthy else "unhealthy",
                "database": state,
                "version": settings.VERSION,
                "links": {name: reverse(route) for name, route in LINKS.items()},
            },
            **({} if healthy else UNAVAILABLE),
        )


class PingView(ServiceView):
    @extend_schema(
        operation_id="ping",
        responses=_response("Ping", status=_STATUS, message=serializers.CharField(help_text="`PING_MESSAGE`.")),
    )
    def get(self, request: Request) -> Response:
        """Return `PING_MESSAGE`, without using the database."""
        return Response({"status": "ok", "message": settings.PING_MESSAGE})


class LiveView(ServiceView):
    @extend_schema(operation_id="health_live", responses=_response("Live", status=_STATUS))
    def get(self, request: Request) -> Response:
        """Return `ok` while the process runs."""
        return Response({"status": "ok"})


class ReadyView(ServiceView):
    @extend_schema(
        operation_id="health_ready",
        responses=_responses(
            "Ready",
            status=serializers.ChoiceField(["ok", "unavailable"], help_text="Whether requests can be served."),
            missing=serializers.ListField(
                child=serializers.CharField(), required=False, help_text="What is missing, if anything is."
            ),
        ),
    )
    def get(self, request: Request) -> Response:
        """Return `ok` if requests can be served: the database responds, accepts writes and is migrated."""
        if missing := missing_requirements():
            return Response({"status": "unavailable", "missing": missing}, **UNAVAILABLE)
        return Response({"status": "ok"})
