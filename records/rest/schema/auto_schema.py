"""The OpenAPI description of each operation."""

import copy
import inspect
from http import HTTPStatus
from typing import Any

from drf_spectacular.plumbing import force_instance, is_serializer
from rest_framework import serializers
from rest_framework.permissions import SAFE_METHODS, AllowAny

from records.db.constraints import Unique, constraint_fields
from records.http.problems import PROBLEM_TYPE
from records.rest.columns import api_columns, is_reference
from records.rest.pagination.parameters import describe_fields
from records.rest.schema.components import tag_of
from records.rest.schema.examples import example_of
from records.rest.schema.keywords import NOT_IN_QUERIES, add_integer_format, id_schema
from records.rest.schema.responses import DESCRIPTIONS, HEADERS_OF, REQUEST_ID, ProblemSerializer
from records.rest.schema.safe_writes import SafeOperation
from records.rest.schema.serializer_schema import SerializerSchema, registered_serializer
from records.rest.serializers import RecordSerializer

SUMMARIES = {
    "list": "List every {name} the caller may see",
    "create": "Add a {name}, or several",
    "retrieve": "Show one {name}",
    "update": "Replace a {name}",
    "partial_update": "Change a {name}",
    "destroy": "Delete a {name}",
    "bulk_update": "Change several {names}",
    "bulk_destroy": "Delete several {names}",
}

#: Descriptions of parameters that have none.
PARAMETERS = {
    "id": "Id of the row.",
    "provider": "Name of the provider, as in the settings.",
    "format": "`json`, or a page for a person.",
}


class RecordSchema(SerializerSchema):
    """drf-spectacular's description of a view, completed by what this project declares."""

    # Operations

    def get_operation(self, *args: Any, **kwargs: Any) -> Any:
        operation = super().get_operation(*args, **kwargs)
        if operation and operation.get("security", [{}]) == [{}]:
            operation["security"] = []  # generated clients ask for credentials if the empty alternative is the only one
        return operation

    def get_auth(self) -> list[dict[str, Any]]:
        model = getattr(self.view, "model", None)
        is_open = self.method in SAFE_METHODS and getattr(model, "is_public", False)
        return [*super().get_auth(), *([{}] if is_open else [])]

    def get_tags(self) -> list[str]:
        return [tag_of(self.path)]

    def get_summary(self) -> str | None:
        """Return the first sentence of the docstring of the action, or the default for the action."""
        if text := self._action_docstring():
            return " ".join(text.split("\n\n")[0].split()).removesuffix(".")
        view: Any = self.view
        usual = SUMMARIES.get(getattr(view, "action", ""))
        names = {"name": view.model._meta.verbose_name, "names": view.model._meta.verbose_name_plural} if usual else {}
        return usual.format(**names) if usual else None

    def get_description(self) -> str:  # type: ignore[override]
        # Not the docstring of the class, which describes the code.
        return self._action_docstring().partition("\n\n")[2]

    def _action_docstring(self) -> str:
        handler = getattr(self.view, getattr(self.view, "action", None) or self.method.lower(), None)
        return inspect.getdoc(handler) or ""

    def _get_parameters(self) -> list[dict[str, Any]]:
        parameters = [
            {"description": PARAMETERS[parameter["name"]], **parameter}
            if parameter["name"] in PARAMETERS
            else parameter
            for parameter in super()._get_parameters()
        ]
        parameters += copy.deepcopy([*SafeOperation(self.view, self.method).parameters(), REQUEST_ID])
        for parameter in parameters:
            schema = parameter["schema"]
            is_text = parameter["in"] == "query" and schema.get("type") == "string"
            if is_text and not schema.keys() & {"pattern", "format"}:
                schema["pattern"] = f"^[^{NOT_IN_QUERIES}]*$"
            add_integer_format(schema)
        return parameters

    def _get_filter_parameters(self) -> list[dict[str, Any]]:
        parameters: list[dict[str, Any]] = super()._get_filter_parameters()
        serializer = self.get_response_serializers()
        if self.method == "GET" and isinstance(serializer, RecordSerializer) and not self._is_list_view():
            parameters.append(describe_fields(api_columns(type(serializer))))
        return parameters

    def _resolve_path_parameters(self, variables: list[str]) -> list[dict[str, Any]]:
        """Describe ids as integers or UUIDs. The routes accept any text, so that an invalid id is a 404 in JSON."""
        parameters: list[dict[str, Any]] = super()._resolve_path_parameters(variables)
        model = getattr(self.view, "path_model", None) or getattr(self.view, "model", None)
        for parameter in parameters:
            if parameter["name"] == "id" and model is not None:
                parameter["schema"] = id_schema(model)
                parameter["example"] = (
                    1 if parameter["schema"]["type"] == "integer" else example_of(serializers.UUIDField())
                )
        return parameters

    # Requests

    def _get_request_for_media_type(self, serializer: Any, direction: Any = "request") -> Any:
        serializer = force_instance(serializer)
        if self.method == "PUT" and is_serializer(serializer) and not getattr(self.view, "put_replaces", True):
            serializer = copy.copy(serializer)
            serializer.partial = True
        schema, is_required = super()._get_request_for_media_type(serializer, direction)
        return schema, is_required or (is_serializer(serializer) and schema is not None)

    def _get_examples(
        self, serializer: Any, direction: Any, media_type: str, status_code: Any = None, extras: Any = None
    ) -> Any:
        examples = super()._get_examples(serializer, direction, media_type, status_code, extras)
        if examples or direction != "request" or not is_serializer(serializer):
            return examples
        value = self._request_example(serializer)
        return {"example": {"summary": "Example", "value": value}} if value else examples

    def _request_example(self, serializer: Any) -> dict[str, Any]:
        """Return a request body that succeeds for every caller with permission."""
        serializer = force_instance(serializer)
        meta = getattr(serializer, "Meta", None)
        examples = getattr(meta, "examples", {})
        value = {}
        for name, field in serializer.fields.items():
            if not field.read_only and self._is_in_example(serializer, name, field):
                example = examples[name] if name in examples else example_of(field)
                if example is not None:
                    value[name] = example
        return value

    def _is_in_example(self, serializer: Any, name: str, field: Any) -> bool:
        meta = getattr(serializer, "Meta", None)
        if name in getattr(meta, "staff_fields", ()):
            return False
        is_partial = self.method == "PATCH" or (self.method == "PUT" and not getattr(self.view, "put_replaces", True))
        if is_partial and isinstance(serializer, RecordSerializer) and name in _unique_fields(serializer):
            return False
        names = getattr(meta, "request_example", None)
        return bool(name in names if names is not None else field.required or not is_reference(field))

    # Responses

    def get_response_serializers(self) -> Any:
        """Use the registered serializer if it has the same columns, so that generated clients get one type."""
        serializer = super().get_response_serializers()
        serializer = force_instance(serializer) if isinstance(serializer, type) else serializer
        if isinstance(serializer, RecordSerializer):
            registered = registered_serializer(serializer)
            if api_columns(registered) == api_columns(type(serializer)):
                return registered(context=serializer.context)
        return serializer

    def _error_statuses(self) -> list[int]:
        if self.path == "/" or not self.path.startswith("/api/"):
            return [400, 406]
        statuses = [400, 406]
        if self.view.get_authenticators():
            statuses.append(401)  # public views refuse invalid credentials too
        if self.method not in SAFE_METHODS and AllowAny not in self.view.permission_classes:
            statuses.append(403)
        if "{" in self.path or self._is_list_view():
            statuses.append(404)
        if getattr(self.view, "action", "") in {"destroy", "restore", "undo", "undo_request"}:
            statuses.append(409)
        if self.method in {"POST", "PUT", "PATCH"}:
            statuses += [413, 415]
        statuses += SafeOperation(self.view, self.method).error_statuses()
        return sorted({*statuses, *getattr(self.view, "error_statuses", ()), 429, 503})

    def _get_response_bodies(self, direction: Any = "response") -> dict[str, Any]:
        bodies: dict[str, Any] = super()._get_response_bodies(direction)
        if direction != "response":
            return bodies
        media_types = [PROBLEM_TYPE, *getattr(self.view, "error_media_types", ())]
        for status in map(str, self._error_statuses()):
            if status not in bodies:
                bodies[status] = self._get_response_for_code(ProblemSerializer, status, media_types)
                self._add_example(bodies[status], int(status))
        for status in map(str, SafeOperation(self.view, self.method).other_statuses()):
            bodies[status] = {"description": DESCRIPTIONS[int(status)]}
        for status, body in bodies.items():
            self._complete_body(body, int(status))
        return bodies

    def _complete_body(self, body: dict[str, Any], status: int) -> None:
        if "text/html" in body.get("content", {}):
            body["content"]["text/html"] = {"schema": {"type": "string"}}
        if body.get("description") in {"", "No response body"}:
            body["description"] = DESCRIPTIONS.get(status) or f"{HTTPStatus(status).phrase}."
        names = ["X-Request-ID", *HEADERS_OF.get(status, ()), *SafeOperation(self.view, self.method).headers(status)]
        names += ["RateLimit", "RateLimit-Policy"] if self.path.startswith("/api/") else []
        references = {name: {"$ref": f"#/components/headers/{name}"} for name in names}
        body["headers"] = body.get("headers", {}) | references

    @staticmethod
    def _add_example(body: dict[str, Any], status: int) -> None:
        body["content"][PROBLEM_TYPE]["examples"] = {"problem": {"$ref": f"#/components/examples/Problem{status}"}}


def _unique_fields(serializer: RecordSerializer) -> set[str]:
    model = serializer.Meta.model
    unique = {field.name for field in model._meta.concrete_fields if field.unique}
    for constraint in model._meta.constraints:
        if isinstance(constraint, Unique):
            unique |= set(constraint_fields(constraint))
    return {name for name, field in serializer.fields.items() if field.source in unique}
