"""Documents that are the same for everyone: the OpenAPI description, ReDoc's script and the icon."""

import json
from collections.abc import Callable
from functools import cache, wraps
from pathlib import Path
from typing import Any

from django.contrib.staticfiles import finders
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.views.decorators.csrf import csrf_exempt
from drf_spectacular.generators import SchemaGenerator

from records.http.compression import public_document
from records.http.problems import method_not_allowed


def read_only(view: Callable[..., HttpResponseBase]) -> Callable[..., HttpResponseBase]:
    """Let a view answer GET and HEAD only, and return a problem for other methods."""

    @csrf_exempt
    @wraps(view)
    def read_only_view(request: HttpRequest) -> HttpResponseBase:
        return view(request) if request.method in {"GET", "HEAD"} else method_not_allowed(request)

    return read_only_view


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
    # The bundle loads a logo from another host, which the Content-Security-Policy blocks.
    return Path(str(path)).read_bytes().replace(b"https://cdn.redoc.ly/redoc/logo-mini.svg", b"/favicon.ico")


@read_only
def redoc_script(request: HttpRequest) -> HttpResponse:
    headers = {"Cache-Control": "max-age=86400"}
    return public_document(request, _redoc_bundle(), "text/javascript; charset=utf-8", headers)


@cache
def _openapi() -> bytes:
    # Generating it takes a second.
    generator: Any = SchemaGenerator()
    return json.dumps(generator.get_schema(public=True), separators=(",", ":"), default=str).encode()


@read_only
def openapi(request: HttpRequest) -> HttpResponse:
    return public_document(request, _openapi(), "application/vnd.oai.openapi+json")
