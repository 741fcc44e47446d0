"""What the service says of itself."""

import json
from collections.abc import Callable
from functools import cache, wraps
from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib.staticfiles import finders
from django.db import DatabaseError, InterfaceError, connection
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.urls import reverse
from django.views.decorators.csrf import csrf_exempt
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.utils import extend_schema, inline_serializer
from rest_framework import serializers, status
from rest_framework.renderers import BaseRenderer, TemplateHTMLRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from records.db.availability import is_read_only
from records.http.compression import public_document
from records.http.problems import RETRY_AFTER_SECONDS, method_not_allowed
from records.rest.renderers import ORJSONRenderer
from records.rest.views import StrictView

LINKS = {
    "api": "api-root", "docs": "docs", "redoc": "redoc", "openapi": "schema", "admin": "admin:index",
    "ready": "ready",
}  # fmt: skip


UNAVAILABLE: dict[str, Any] = {
    "status": status.HTTP_503_SERVICE_UNAVAILABLE,
    "headers": {"Retry-After": str(RETRY_AFTER_SECONDS)},
}


def read_only(view: Callable[..., HttpResponseBase]) -> Callable[..., HttpResponseBase]:
    """A page or file: for other methods than GET and HEAD the same problem as in the API."""

    @csrf_exempt
    @wraps(view)
    def answer(request: HttpRequest) -> HttpResponseBase:
        return view(request) if request.method in {"GET", "HEAD"} else method_not_allowed(request)

    return answer


FAVICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><rect width="16" height="16" rx="4" fill="#0b62c4"/>'
    '<path d="M3 11l3-4 3 2 4-5" fill="none" stroke="#fff" stroke-width="1.8" stroke-linejoin="round"/></svg>'
)


@read_only
def favicon(request: HttpRequest) -> HttpResponse:
    return HttpResponse(FAVICON, content_type="image/svg+xml", headers={"Cache-Control": "max-age=86400"})


@cache
def _redoc_bundle() -> bytes:
    path = finders.find("drf_spectacular_sidecar/redoc/bundles/redoc.standalone.js")
    # The bundle shows a logo from its makers' host; nothing that a page of ours needs comes from outside.
    return Path(str(path)).read_bytes().replace(b"https://cdn.redoc.ly/redoc/logo-mini.svg", b"/favicon.ico")


@read_only
def redoc_script(request: HttpRequest) -> HttpResponse:
    headers = {"Cache-Control": "max-age=86400"}
    return public_document(request, _redoc_bundle(), "text/javascript; charset=utf-8", headers)


@cache
def _openapi() -> bytes:
    # Takes a second to generate, and is the same for everybody.
    return json.dumps(SchemaGenerator().get_schema(public=True), separators=(",", ":"), default=str).encode()


@read_only
def openapi(request: HttpRequest) -> HttpResponse:
    return public_document(request, _openapi(), "application/vnd.oai.openapi+json")


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


def missing() -> list[str]:
    """Return what the service needs to answer every request and does not have."""
    state = database_state()
    if state != "connected":
        return ["writable database" if state == "read-only" else "database"]
    try:
        return pending_migrations()
    except (DatabaseError, InterfaceError):  # the table is locked, or the database has gone since
        return ["database"]


class ServiceView(StrictView):
    """Public, never throttled: load balancers ask often."""

    authentication_classes = ()
    permission_classes = ()
    throttle_classes = ()
    renderer_classes: tuple[type[BaseRenderer], ...] = (ORJSONRenderer,)


def _answer(name: str, **fields: serializers.Field) -> Any:
    return inline_serializer(name, dict(fields))


def _healthy_or_not(name: str, **fields: serializers.Field) -> dict[int, Any]:
    answer = _answer(name, **fields)
    return {200: answer, 503: answer}


_STATUS = serializers.CharField(help_text="Always `ok`.")


class IndexView(ServiceView):
    renderer_classes = (ORJSONRenderer, TemplateHTMLRenderer)
    error_media_types = ("text/html",)
    template_name = "index.html"

    @extend_schema(
        operation_id="index",
        responses=_healthy_or_not(
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
        """Whether the service and its database are well, and where to go from here."""
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
        responses=_answer("Ping", status=_STATUS, message=serializers.CharField(help_text="`PING_MESSAGE`.")),
    )
    def get(self, request: Request) -> Response:
        """Whether the service answers; the database is not asked."""
        return Response({"status": "ok", "message": settings.PING_MESSAGE})


class LiveView(ServiceView):
    @extend_schema(operation_id="health_live", responses=_answer("Live", status=_STATUS))
    def get(self, request: Request) -> Response:
        """Whether the process answers."""
        return Response({"status": "ok"})


class ReadyView(ServiceView):
    @extend_schema(
        operation_id="health_ready",
        responses=_healthy_or_not(
            "Ready",
            status=serializers.ChoiceField(["ok", "unavailable"], help_text="Whether requests can be served."),
            missing=serializers.ListField(
                child=serializers.CharField(), required=False, help_text="What is missing, if anything is."
            ),
        ),
    )
    def get(self, request: Request) -> Response:
        """Whether requests can be served: the database answers, takes writes and is migrated."""
        if lacking := missing():
            return Response({"status": "unavailable", "missing": lacking}, **UNAVAILABLE)
        return Response({"status": "ok"})
