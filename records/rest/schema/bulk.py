"""The OpenAPI description of writes of many rows: bodies, parameters and responses."""

import copy
from typing import Any

from drf_spectacular.plumbing import ResolvedComponent, force_instance
from drf_spectacular.utils import OpenApiParameter

from records.rest.bulk import BULK_ACTIONS, MAX_ROWS, BulkWrites
from records.rest.schema.auto_schema import RecordSchema
from records.rest.schema.keywords import INT64, id_schema

JSON = "application/json"
ATOMIC_PARAMETER = OpenApiParameter(
    "atomic",
    bool,
    description="For an array of rows: `true`, as without it, stores all rows or none; `false` stores the good ones.",
)
INDEX = {"type": "integer", "minimum": 0, "maximum": MAX_ROWS - 1, "description": "Position in the request, from 0."}
ERRORS = {
    "type": "object",
    "additionalProperties": {"type": "array", "items": {"type": "string"}},
    "description": "Field → what is wrong with it; only for rows that were refused.",
}
COUNT = {"type": "integer", "minimum": 0, "maximum": MAX_ROWS}
VERSION = INT64 | {"description": "The expected version of the row: if it has another, the row is refused (412)."}


def array_of(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items, "minItems": 1, "maxItems": MAX_ROWS}


def object_with(required: list[str], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": sorted(required), "properties": properties}


def _rows(items: dict[str, Any], description: str) -> dict[str, Any]:
    return {"type": "array", "items": items, "description": description}


class BulkSchema(RecordSchema):
    """The description of views that also accept arrays of rows."""

    view: Any

    def _accepts_arrays(self) -> bool:
        action = getattr(self.view, "action", None)
        return isinstance(self.view, BulkWrites) and (action == "create" or self._is_bulk())

    def _is_bulk(self) -> bool:
        return getattr(self.view, "action", None) in BULK_ACTIONS

    def get_operation_id(self) -> str:
        """Name the operations on collections apart from those on one row."""
        name: str = super().get_operation_id()
        if not self._is_bulk():
            return name
        action: str = self.method_mapping[self.method.lower()]
        return f"{name.removesuffix(action)}{self.view.action}"

    def get_override_parameters(self) -> list[Any]:
        return [*super().get_override_parameters(), *([ATOMIC_PARAMETER] if self._accepts_arrays() else [])]

    # Requests

    def _get_request_body(self, direction: Any = "request") -> Any:
        if getattr(self.view, "action", None) != "bulk_destroy":
            return super()._get_request_body(direction)
        # drf-spectacular describes no body of DELETE.
        example = {"example": {"summary": "Example", "value": [{"id": self._example_id(), "version": 1}]}}
        schema = array_of({"anyOf": [id_schema(self.view.model), self._key_component().ref]})
        return {"content": {JSON: {"schema": schema, "examples": example}}, "required": True}

    def _get_request_for_media_type(self, serializer: Any, direction: Any = "request") -> Any:
        if self._is_bulk():
            return array_of(self._item_component(force_instance(serializer)).ref), True
        schema, is_required = super()._get_request_for_media_type(serializer, direction)
        if schema is None or not self._accepts_arrays():
            return schema, is_required
        return {"anyOf": [schema, array_of(schema)]}, is_required

    def _get_examples(self, serializer: Any, *args: Any, **kwargs: Any) -> Any:
        examples = super()._get_examples(serializer, *args, **kwargs)
        direction = args[0] if args else kwargs.get("direction", "request")
        if direction != "request" or not self._accepts_arrays() or not examples:
            return examples
        value = examples["example"]["value"]
        if self._is_bulk():
            return {"example": {"summary": "Example", "value": [{"id": self._example_id(), "version": 1, **value}]}}
        return examples | {"array": {"summary": "Array", "value": [value]}}

    def _example_id(self) -> Any:
        return 1 if id_schema(self.view.model)["type"] == "integer" else "0199a8b2-6c1e-7d0a-9b3f-5f0c8e7d6a42"

    def _key_properties(self) -> dict[str, Any]:
        name = self.view.model._meta.verbose_name
        return {
            "id": id_schema(self.view.model) | {"description": f"Id of the {name}.", "example": self._example_id()},
            "version": VERSION | {"example": 1},
        }

    def _key_component(self) -> ResolvedComponent:
        schema = object_with(["id"], **self._key_properties()) | {"additionalProperties": False}
        return self._component("KeyRequest", schema)

    def _item_component(self, serializer: Any) -> ResolvedComponent:
        """Return the schema of a row to change: its id, its version and the fields of a PATCH of one row."""
        partial = copy.copy(serializer)
        partial.partial = True
        schema = self._map_basic_serializer(partial, "request")
        schema["properties"] = self._key_properties() | {
            name: column for name, column in schema["properties"].items() if not column.get("readOnly")
        }
        return self._component("ChangeRequest", schema | {"required": ["id"]})

    # Responses

    def _get_response_bodies(self, direction: Any = "response") -> dict[str, Any]:
        bodies: dict[str, Any] = super()._get_response_bodies(direction)
        if direction != "response" or not self._accepts_arrays():
            return bodies
        row = None
        if self.view.action == "bulk_destroy":
            del bodies["204"]
            deleted = COUNT | {"description": "Number of deleted rows."}
            self._add_body(bodies, 200, self._component("Deleted", object_with(["deleted"], deleted=deleted)))
        else:
            success = bodies["200" if self._is_bulk() else "201"]["content"][JSON]
            row = success["schema"]
            items = self._component(
                "Items", object_with(["items"], items=_rows(row, "The rows, in the order of the request."))
            )
            success["schema"] = items.ref if self._is_bulk() else {"anyOf": [row, items.ref]}
        self._add_body(bodies, 207, self._results_component(row))
        return dict(sorted(bodies.items()))

    def _add_body(self, bodies: dict[str, Any], status: int, component: ResolvedComponent) -> None:
        body = {"content": {JSON: {"schema": component.ref}}, "description": ""}
        self._complete_body(body, status)
        bodies[str(status)] = body

    def _error_statuses(self) -> list[int]:
        statuses = super()._error_statuses()
        if not self._is_bulk():
            return statuses
        return sorted({*statuses, 413, 415} - {409})

    def _results_component(self, row: Any) -> ResolvedComponent:
        status = {"type": "integer", "minimum": 200, "maximum": 599, "description": "The status of this row alone."}
        result = object_with(["index", "status"], index=INDEX, status=status, errors=ERRORS)
        if row is not None:
            result["properties"]["item"] = {"allOf": [row], "description": "The stored row."}
        schema = object_with(
            ["succeeded", "failed", "results"],
            succeeded=COUNT | {"description": "Number of rows that were stored."},
            failed=COUNT | {"description": "Number of rows that were refused."},
            results=_rows(self._component("Result" if row else "Deletion", result).ref, "Each row of the request."),
        )
        return self._component("Results" if row else "Deletions", schema)

    def _component(self, suffix: str, schema: dict[str, Any]) -> ResolvedComponent:
        name = f"{self.view.model.__name__}{suffix}"
        component = ResolvedComponent(name=name, type=ResolvedComponent.SCHEMA, schema=schema, object=name)
        self.registry.register_on_missing(component)
        return component
