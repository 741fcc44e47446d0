"""Renderers of responses: JSON by orjson, and the pages of the browsable API."""

import json
from decimal import Decimal
from typing import Any

import orjson
from django.http import Http404
from rest_framework.exceptions import ValidationError
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.renderers import BaseRenderer, BrowsableAPIRenderer
from rest_framework.utils.serializer_helpers import ReturnDict

from records.http.problems import PROBLEM_TYPE
from records.rest.permissions import SINGLE_ACTIONS

OPTIONS = orjson.OPT_UTC_Z | orjson.OPT_NON_STR_KEYS


def _default(value: Any) -> Any:
    if isinstance(value, Decimal):
        # A JSON number with all digits, which a float would round.
        digits = format(value, "f")
        return orjson.Fragment(digits.rstrip("0").rstrip(".") if "." in digits else digits)
    return str(value)  # lazy translations


class ORJSONRenderer(BaseRenderer):
    media_type = "application/json"
    format = "json"
    charset = None  # JSON is UTF-8 by definition (RFC 8259)
    render_style = "text"

    def render(self, data: Any, accepted_media_type: Any = None, renderer_context: Any = None) -> bytes:
        context = renderer_context or {}
        response = context.get("response")
        if response is not None and response.exception and not context.get("indent"):
            response["Content-Type"] = PROBLEM_TYPE
        if data is None:
            return b""
        return orjson.dumps(
            data, default=_default, option=OPTIONS | (orjson.OPT_INDENT_2 if context.get("indent") else 0)
        )


class StrictContentNegotiation(DefaultContentNegotiation):
    """Return 400, not 404, for an unknown value of the parameter `format`."""

    def filter_renderers(self, renderers: Any, format: Any) -> Any:  # noqa: A002 - DRF's name
        try:
            return super().filter_renderers(renderers, format)
        except Http404:
            known = " or ".join(renderer.format for renderer in renderers)
            raise ValidationError({"format": [f"Must be {known}."]}) from None


#: Actions on a collection whose body may be an array.
ARRAY_ACTIONS = frozenset({"create", *SINGLE_ACTIONS})


def _action(view: Any, method: str) -> str | None:
    name: str | None = getattr(view, "action_map", {}).get(method.lower())
    return name


class RecordBrowsableAPIRenderer(BrowsableAPIRenderer):
    """DRF's browsable API, with the values of the row in the form of a detail page."""

    def get_default_renderer(self, view: Any) -> Any:
        return ORJSONRenderer()

    def get_content(self, renderer: Any, data: Any, accepted_media_type: Any, renderer_context: Any) -> Any:
        content = super().get_content(renderer, data, accepted_media_type, renderer_context)
        return content.decode() if isinstance(content, bytes) else content

    def get_breadcrumbs(self, request: Any) -> list[tuple[str, str]]:
        # DRF also tries each path with a trailing slash.
        return [(name, url) for name, url in super().get_breadcrumbs(request) if url == "/" or not url.endswith("/")]

    def get_context(self, data: Any, accepted_media_type: Any, renderer_context: Any) -> dict[str, Any]:
        context: dict[str, Any] = super().get_context(data, accepted_media_type, renderer_context)
        if getattr(renderer_context["view"], "action", None) != "list":
            context["paginator"] = None
        return context

    def get_raw_data_form(self, data: Any, view: Any, method: str, request: Any) -> Any:
        """Show an array where a collection accepts one."""
        form: Any = super().get_raw_data_form(data, view, method, request)
        if form is not None and hasattr(view, "bulk_create") and _action(view, method) in ARRAY_ACTIONS:
            content = form.fields["_content"]
            row = {"id": None} if method == "PATCH" else {}
            content.initial = json.dumps([row | json.loads(content.initial)], indent=4)
        return form

    def get_rendered_html_form(self, data: Any, view: Any, method: str, request: Any) -> Any:
        if method == "DELETE" and _action(view, method) == "bulk_destroy":
            return None  # its button would send no rows
        if (
            method in {"PUT", "PATCH"}
            and isinstance(data, dict)
            and "version" in data
            and not hasattr(data, "serializer")
        ):
            instance = view.get_queryset().model._base_manager.filter(pk=data.get("id")).first()
            if instance is not None:
                data = ReturnDict(data, serializer=view.get_serializer(instance))
        return super().get_rendered_html_form(data, view, method, request)
