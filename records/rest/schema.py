"""The OpenAPI description: what every endpoint shares, its errors above all."""

import inspect
from typing import Any

from drf_spectacular.extensions import OpenApiFilterExtension
from drf_spectacular.openapi import AutoSchema
from rest_framework import serializers
from rest_framework.permissions import SAFE_METHODS, AllowAny

from records.rest.renderers import PROBLEM_TYPE

SUMMARIES = {
    "list": "List every {name} the caller may see",
    "create": "Add a {name}",
    "retrieve": "Show one {name}",
    "update": "Replace a {name}",
    "partial_update": "Change a {name}",
    "destroy": "Delete a {name}",
}


class ProblemSerializer(serializers.Serializer):
    """A problem detail (RFC 9457)."""

    type = serializers.CharField(help_text="Always `about:blank`: the status says what kind of problem it is.")
    title = serializers.CharField(help_text="The status in words.")
    status = serializers.IntegerField(help_text="The HTTP status.")
    detail = serializers.CharField(help_text="One sentence for a person.")
    errors = serializers.DictField(  # type: ignore[assignment]
        child=serializers.ListField(child=serializers.CharField()),
        required=False,
        help_text="Field or parameter → what is wrong with it; only where fields are at fault.",
    )
    request_id = serializers.CharField(help_text="The id to name when asking about this answer: also `X-Request-ID`.")


class RecordFilterExtension(OpenApiFilterExtension):
    target_class = "records.rest.filters.RecordFilterBackend"
    priority = 1  # before the one for django-filter, which loses our descriptions

    def get_schema_operation_parameters(self, auto_schema: Any, *args: Any, **kwargs: Any) -> list[dict]:
        filterset_class = auto_schema.view.filterset_class
        return [
            {
                "name": name,
                "in": "query",
                "required": False,
                "description": each.extra["help_text"],
                "schema": getattr(each, "schema", {"type": "string"}) | _enumeration(each),
            }
            for name, each in (filterset_class.base_filters.items() if filterset_class else ())
        ]


def _enumeration(each: Any) -> dict[str, list[str]]:
    return {"enum": [value for value, _ in each.extra["choices"]]} if "choices" in each.extra else {}


#: What the parameters mean that nothing else describes.
PARAMETERS = {
    "id": "Id of the row.",
    "provider": "Name of the provider, as in the settings.",
    "format": "`json`, or a page for a person.",
}


class RecordSchema(AutoSchema):
    def get_auth(self) -> list[dict[str, Any]]:
        model = getattr(self.view, "model", None)
        is_open = self.method in SAFE_METHODS and getattr(model, "is_public", False)
        return [*super().get_auth(), *([{}] if is_open else [])]

    def get_tags(self) -> list[str]:
        return [self.path.removeprefix("/api/v1/").split("/")[0]] if self.path.startswith("/api/v1/") else ["service"]

    def get_summary(self) -> str | None:
        """The first line of what the action says of itself, else its usual meaning."""
        if text := self._action_docstring():
            return " ".join(text.split("\n\n")[0].split()).removesuffix(".")
        view: Any = self.view
        usual = SUMMARIES.get(getattr(view, "action", ""))
        return usual.format(name=view.model._meta.verbose_name) if usual else None

    def get_description(self) -> str:  # type: ignore[override]
        # Not the class docstring: it describes the code, this the API.
        return self._action_docstring().partition("\n\n")[2]

    def _get_parameters(self) -> list[dict[str, Any]]:
        return [
            {"description": PARAMETERS[each["name"]], **each} if each["name"] in PARAMETERS else each
            for each in super()._get_parameters()
        ]

    def _action_docstring(self) -> str:
        handler = getattr(self.view, getattr(self.view, "action", None) or self.method.lower(), None)
        return inspect.getdoc(handler) or ""

    def _error_statuses(self) -> list[int]:
        statuses = [400]
        if not self.path.startswith("/api/v1/"):
            return statuses
        if not any(permission is AllowAny for permission in self.view.permission_classes):
            statuses += [401, 403]
        if "{" in self.path or self._is_list_view():
            statuses.append(404)
        if getattr(self.view, "action", "") in {"destroy", "restore", "undo", "undo_request"}:
            statuses.append(409)
        if self.method in {"POST", "PUT", "PATCH"}:
            statuses += [413, 415]
        return [*statuses, *getattr(self.view, "error_statuses", ()), 429, 503]

    def _get_response_bodies(self, direction: Any = "response") -> dict[str, Any]:
        bodies = super()._get_response_bodies(direction)
        for status in map(str, self._error_statuses() if direction == "response" else ()):
            bodies.setdefault(status, self._get_response_for_code(ProblemSerializer, status, [PROBLEM_TYPE]))
        return bodies
