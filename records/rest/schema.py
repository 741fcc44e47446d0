"""The OpenAPI description: operations, their errors and headers, and the schemas of what they take and give.

What a field accepts comes from the field and its validators (`records.rest.limits`), so that a changed rule shows up
by itself. Declared are only examples (`Meta.examples` of a serializer) and what no field knows.
"""

import copy
import inspect
from http import HTTPStatus
from typing import Any

from django.utils.text import capfirst
from drf_spectacular.drainage import get_override
from drf_spectacular.extensions import OpenApiFilterExtension
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.plumbing import ResolvedComponent, force_instance, is_serializer
from rest_framework import serializers
from rest_framework.permissions import SAFE_METHODS, AllowAny

from records.db.constraints import Unique, constraint_fields
from records.http.problems import PROBLEM_TYPE
from records.models import SoftDeletable
from records.rest import limits
from records.rest.pagination import fields_parameter
from records.rest.serializers import (
    RecordSerializer,
    StrictFieldsMixin,
    columns,
    is_reference,
    serializer_for,
)

SUMMARIES = {
    "list": "List every {name} the caller may see",
    "create": "Add a {name}",
    "retrieve": "Show one {name}",
    "update": "Replace a {name}",
    "partial_update": "Change a {name}",
    "destroy": "Delete a {name}",
}

#: What an answer of each status says.
ANSWERS = {
    200: "OK.",
    201: "Created.",
    202: "Accepted.",
    204: "Done; the answer has no body.",
    302: "Found.",
    400: "The request is wrong; `errors` names the fields or parameters at fault.",
    401: "The request has no valid credentials.",
    403: "The caller may not do this.",
    404: "There is no such row, or the caller may not see it.",
    406: "The service has none of the media types in `Accept`.",
    409: "The request conflicts with the present state.",
    413: "The body is too large.",
    415: "The service cannot read this media type.",
    429: "Too many requests: try again after `Retry-After` seconds.",
    502: "Another service did not answer as it should.",
    503: "The database, or something else that is needed, cannot be reached: try again after `Retry-After` seconds.",
}

#: Components under `headers`: name in the component, its description.
HEADERS: dict[str, dict[str, Any]] = {
    "X-Request-ID": {
        "description": "Id of this request: the caller's own, if it sent a well-formed one. Logs have it too.",
        "required": True,
        "schema": {"type": "string", "minLength": 1, "maxLength": 64},
    },
    "Location": {
        "description": "Where the new row, or the next page, is.",
        "required": True,
        "schema": {"type": "string", "format": "uri-reference"},
    },
    "Retry-After": {
        "description": "Seconds to wait before trying again.",
        "required": True,
        "schema": limits.INT64 | {"minimum": 0},
    },
    "WWW-Authenticate": {
        "description": "Which credentials are wanted.",
        "required": True,
        "schema": {"type": "string"},
    },
    # draft-ietf-httpapi-ratelimit-headers
    "RateLimit": {
        "description": "Requests that remain to the caller, and seconds until there are more.",
        "schema": {"type": "string"},
    },
    "RateLimit-Policy": {
        "description": "Requests that are allowed, and in how many seconds.",
        "schema": {"type": "string"},
    },
}
#: The header that every operation reads.
REQUEST_ID: dict[str, Any] = {
    "name": "X-Request-ID",
    "in": "header",
    "required": False,
    "description": "The caller's own id of the request: 1–64 letters, digits or `. _ : -`. Any other is replaced.",
    "schema": {"type": "string"},
}
#: Headers of single statuses; `X-Request-ID` is on every answer.
HEADERS_OF = {
    201: ("Location",),
    302: ("Location",),
    401: ("WWW-Authenticate",),
    429: ("Retry-After",),
    503: ("Retry-After",),
}

DELETION_PROPERTIES: dict[str, dict[str, Any]] = {
    "is_deleted": {"type": "boolean", "description": "Whether the row is deleted.", "example": True},
    "deleted_at": {
        "type": "string",
        "format": "date-time",
        "nullable": True,
        "description": "When the row was deleted.",
        "example": "2026-10-01T12:00:00Z",
    },
    "deleted_by": limits.INT64 | {"nullable": True, "description": "Id of the user who deleted it.", "example": 1},
    "deletion_reason": {"type": "string", "description": "Why it was deleted.", "example": "Sold"},
}


class ProblemSerializer(serializers.Serializer):
    class Meta:
        description = "A problem detail (RFC 9457)."
        examples = {
            "type": "about:blank",
            "title": "Bad Request",
            "status": 400,
            "detail": "price: Ensure this value is greater than 0.",
            "errors": {"price": ["Ensure this value is greater than 0."]},
            "request_id": "57aa540a-4823-4d1b-bf5d-2efe27ea4db8",
        }

    type = serializers.CharField(help_text="Always `about:blank`: the status says what kind of problem it is.")
    title = serializers.CharField(help_text="The status in words.")
    status = serializers.IntegerField(min_value=400, max_value=599, help_text="The HTTP status.")
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
                "schema": limits.of_filter(each),
            }
            for name, each in (filterset_class.base_filters.items() if filterset_class else ())
        ]


#: What the parameters mean that nothing else describes.
PARAMETERS = {
    "id": "Id of the row.",
    "provider": "Name of the provider, as in the settings.",
    "format": "`json`, or a page for a person.",
}


class RecordSchema(AutoSchema):
    # Operations

    def get_operation(self, *args: Any, **kwargs: Any) -> Any:
        operation = super().get_operation(*args, **kwargs)
        if operation and operation.get("security", [{}]) == [{}]:
            operation["security"] = []  # the empty alternative alone makes client programs ask for credentials
        return operation

    def get_auth(self) -> list[dict[str, Any]]:
        model = getattr(self.view, "model", None)
        is_open = self.method in SAFE_METHODS and getattr(model, "is_public", False)
        return [*super().get_auth(), *([{}] if is_open else [])]

    def get_tags(self) -> list[str]:
        return [tag_of(self.path)]

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

    def _action_docstring(self) -> str:
        handler = getattr(self.view, getattr(self.view, "action", None) or self.method.lower(), None)
        return inspect.getdoc(handler) or ""

    def _get_parameters(self) -> list[dict[str, Any]]:
        parameters = [
            {"description": PARAMETERS[each["name"]], **each} if each["name"] in PARAMETERS else each
            for each in super()._get_parameters()
        ]
        parameters.append(copy.deepcopy(REQUEST_ID))
        for each in parameters:
            schema = each["schema"]
            if each["in"] == "query" and schema.get("type") == "string" and not schema.keys() & {"pattern", "format"}:
                schema["pattern"] = f"^[^{limits.NOT_IN_QUERIES}]*$"
            limits.with_format(schema)
        return parameters

    def _get_filter_parameters(self) -> list[dict[str, Any]]:
        parameters = super()._get_filter_parameters()
        serializer = self.get_response_serializers()
        if self.method == "GET" and isinstance(serializer, RecordSerializer) and not self._is_list_view():
            parameters.append(fields_parameter(columns(type(serializer))))
        return parameters

    def _resolve_path_parameters(self, variables: list[str]) -> list[dict[str, Any]]:
        """Describe ids as integers or UUIDs; the routes take any text, so that a wrong id is a 404 in JSON."""
        parameters = super()._resolve_path_parameters(variables)
        model = getattr(self.view, "path_model", None) or getattr(self.view, "model", None)
        for each in parameters:
            if each["name"] == "id" and model is not None:
                each["schema"] = limits.row_id(model)
                each["example"] = 1 if each["schema"]["type"] == "integer" else limits.example(serializers.UUIDField())
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
        """Return a body that succeeds at the first attempt, whoever sends it, as far as the fields tell."""
        serializer = force_instance(serializer)
        meta = getattr(serializer, "Meta", None)
        examples = getattr(meta, "examples", {})
        names = getattr(meta, "request_example", None)
        is_partial = self.method == "PATCH" or (self.method == "PUT" and not getattr(self.view, "put_replaces", True))
        skipped = set(getattr(meta, "staff_fields", ()))
        if is_partial and isinstance(serializer, RecordSerializer):
            skipped |= _unique_fields(serializer)
        value = {}
        for name, field in serializer.fields.items():
            is_wanted = name in names if names is not None else field.required or not is_reference(field)
            if field.read_only or name in skipped or not is_wanted:
                continue
            example = examples[name] if name in examples else limits.example(field)
            if example is not None:
                value[name] = example
        return value

    # Answers

    def get_response_serializers(self) -> Any:
        """Use the resource's own serializer where the columns are the same: client programs get one type."""
        serializer = super().get_response_serializers()
        serializer = force_instance(serializer) if isinstance(serializer, type) else serializer
        if isinstance(serializer, RecordSerializer):
            usual = usual_serializer(serializer)
            if columns(usual) == columns(type(serializer)):
                return usual(context=serializer.context)
        return serializer

    def _error_statuses(self) -> list[int]:
        if self.path == "/" or not self.path.startswith("/api/"):
            return [400, 406]
        statuses = [400, 406]
        if self.view.get_authenticators():
            statuses.append(401)  # also where none are needed: bad credentials are refused
        if self.method not in SAFE_METHODS and AllowAny not in self.view.permission_classes:
            statuses.append(403)
        if "{" in self.path or self._is_list_view():
            statuses.append(404)
        if getattr(self.view, "action", "") in {"destroy", "restore", "undo", "undo_request"}:
            statuses.append(409)
        if self.method in {"POST", "PUT", "PATCH"}:
            statuses += [413, 415]
        return sorted({*statuses, *getattr(self.view, "error_statuses", ()), 429, 503})

    def _get_response_bodies(self, direction: Any = "response") -> dict[str, Any]:
        bodies = super()._get_response_bodies(direction)
        if direction != "response":
            return bodies
        media_types = [PROBLEM_TYPE, *getattr(self.view, "error_media_types", ())]
        for status in map(str, self._error_statuses()):
            if status not in bodies:
                bodies[status] = self._get_response_for_code(ProblemSerializer, status, media_types)
                self._add_example(bodies[status], int(status))
        for status, body in bodies.items():
            for media_type in body.get("content", {}):
                if media_type == "text/html":
                    body["content"][media_type] = {"schema": {"type": "string"}}
            if body.get("description") in {"", "No response body"}:
                body["description"] = ANSWERS.get(int(status)) or f"{HTTPStatus(int(status)).phrase}."
            names = ["X-Request-ID", *HEADERS_OF.get(int(status), ())]
            names += ["RateLimit", "RateLimit-Policy"] if self.path.startswith("/api/") else []
            body["headers"] = body.get("headers", {}) | {
                name: {"$ref": f"#/components/headers/{name}"} for name in names
            }
        return bodies

    @staticmethod
    def _add_example(body: dict[str, Any], status: int) -> None:
        body["content"][PROBLEM_TYPE]["examples"] = {"problem": {"$ref": f"#/components/examples/Problem{status}"}}

    # Schemas

    def _map_basic_serializer(self, serializer: Any, direction: Any) -> dict[str, Any]:
        schema = super()._map_basic_serializer(serializer, direction)
        meta = getattr(serializer, "Meta", None)
        # Not the docstring: it describes the code.
        schema.pop("description", None)
        if description := get_override(serializer, "description", getattr(meta, "description", "")):
            schema["description"] = description
        properties = schema.get("properties", {})
        if direction == "request":
            if properties and isinstance(serializer, StrictFieldsMixin):
                schema["additionalProperties"] = False
            for name in set(getattr(meta, "staff_fields", ())) & properties.keys():
                description = properties[name].get("description", "")
                if "taff" not in description:
                    properties[name]["description"] = f"{description} Staff only.".strip()
        elif isinstance(serializer, RecordSerializer):
            # Rows have all of their columns, whether or not a request must name them.
            schema["required"] = sorted(name for name in properties if not properties[name].get("writeOnly"))
            if issubclass(serializer.Meta.model, SoftDeletable) and type(serializer) is usual_serializer(serializer):
                schema["properties"] = properties | {
                    name: each | {"description": f"{each['description']} Only in lists with `is_deleted=true`."}
                    for name, each in DELETION_PROPERTIES.items()
                }
        alternatives = getattr(meta, "required_together", None)
        if direction == "request" and alternatives and not getattr(serializer, "partial", False):
            return self._alternatives(serializer, schema, alternatives)
        return schema

    def _alternatives(self, serializer: Any, schema: dict[str, Any], alternatives: list[list[str]]) -> dict[str, Any]:
        """Return a schema for each set of fields of which one is needed."""
        references = []
        for names in alternatives:
            one = copy.deepcopy(schema)
            one["required"] = sorted({*schema.get("required", []), *names})
            one = self._postprocess_serializer_schema(one, serializer, "request")
            for name in names:
                one["properties"][name].pop("nullable", None)
            base = self._get_serializer_name(serializer, "request").removesuffix("Request")
            component = ResolvedComponent(
                name=f"{base}With{''.join(map(_camel_case, names))}Request",
                type=ResolvedComponent.SCHEMA,
                schema=one,
                object=f"{base} {names}",
            )
            self.registry.register_on_missing(component)
            references.append(component.ref)
        return {"anyOf": references} | {key: schema[key] for key in ("description",) if key in schema}

    def _map_serializer_field(self, field: Any, direction: Any, bypass_extensions: bool = False) -> Any:
        if isinstance(field, serializers.ChoiceField) and not isinstance(field, serializers.MultipleChoiceField):
            return self._map_choices(field, direction)
        schema = super()._map_serializer_field(field, direction, bypass_extensions)
        if schema is None or "$ref" in schema or is_serializer(field):
            return schema
        is_request = direction == "request"
        if schema.get("type") in {"integer", "number"}:
            limits.bounds(schema, field)
            if is_reference(field):
                schema["minimum"] = 1  # no id is smaller
            if not is_request:
                limits.as_answer(schema)
            limits.with_format(schema)
        elif schema.get("type") == "string":
            limits.text(schema, field, is_request=is_request)
        elif schema.get("type") in {"array", "object"}:
            limits.sizes(schema, field)
        schema |= getattr(field, "schema", {})
        schema.pop("title", None)
        if isinstance(field.parent, serializers.Serializer):
            example = getattr(getattr(field.parent, "Meta", None), "examples", {}).get(field.field_name)
            example = limits.example(field) if example is None else example
            if example is not None and "oneOf" not in schema:
                schema["example"] = example
        return schema

    def _insert_field_validators(self, field: Any, schema: Any) -> None:
        """Do nothing: `_map_serializer_field` has read the validators."""

    def _map_choices(self, field: Any, direction: Any) -> dict[str, Any]:
        """Return a reference to the enumeration of this field, whose name no other field can change."""
        parent = field.parent
        model = getattr(getattr(parent, "Meta", None), "model", None)
        owner = model.__name__ if model else type(parent).__name__.removesuffix("Serializer")
        values = [value for value in field.choices if value not in ("", None)]
        kind = "integer" if all(isinstance(value, int) for value in values) else "string"
        references = [self._enumeration(f"{owner}{_camel_case(field.field_name)}Enum", {"type": kind, "enum": values})]
        if field.allow_blank and "" not in values:
            references.append(self._enumeration("BlankEnum", {"type": "string", "enum": [""]}))
        if field.allow_null:
            references.append(self._enumeration("NullEnum", {"enum": [None]}))
        meta = self._get_serializer_field_meta(field, direction)
        meta.pop("minLength", None)
        return meta | ({"allOf": references} if len(references) == 1 else {"oneOf": references})

    def _enumeration(self, name: str, schema: dict[str, Any]) -> dict[str, Any]:
        component = ResolvedComponent(name=name, type=ResolvedComponent.SCHEMA, schema=schema, object=name)
        self.registry.register_on_missing(component)
        return component.ref


def usual_serializer(serializer: RecordSerializer) -> type[RecordSerializer]:
    return serializer_for(serializer.Meta.model)


def _unique_fields(serializer: RecordSerializer) -> set[str]:
    model = serializer.Meta.model
    named = {
        name for each in model._meta.constraints if isinstance(each, Unique) for name in constraint_fields(each)
    } | {field.name for field in model._meta.concrete_fields if field.unique}
    return {name for name, field in serializer.fields.items() if field.source in named}


def _camel_case(name: str) -> str:
    return "".join(part[:1].upper() + part[1:] for part in name.split("_"))


def tag_of(path: str) -> str:
    return path.removeprefix("/api/v1/").split("/")[0] if path.startswith("/api/v1/") else "service"


# After all operations are described


def finish(result: dict[str, Any], generator: Any, **kwargs: Any) -> dict[str, Any]:
    """Describe headers and tags, and name the enumerations of query parameters once."""
    schemas = result["components"]["schemas"]
    names = {tuple(each["enum"]): name for name, each in schemas.items() if "enum" in each}
    for item in result["paths"].values():
        for operation in item.values():
            for parameter in operation.get("parameters", []):
                if "enum" in parameter["schema"]:
                    values = tuple(parameter["schema"]["enum"])
                    name = names.setdefault(values, f"{_camel_case(parameter['name'])}Enum")
                    schemas.setdefault(name, {"type": "string", "enum": list(values)})
                    parameter["schema"] = {"$ref": f"#/components/schemas/{name}"}
    result["components"]["schemas"] = dict(sorted(schemas.items()))
    result["components"]["headers"] = HEADERS
    statuses = {
        int(status)
        for item in result["paths"].values()
        for operation in item.values()
        for status, answer in operation["responses"].items()
        if PROBLEM_TYPE in answer.get("content", {})
    }
    result["components"]["examples"] = {f"Problem{status}": _problem(status) for status in sorted(statuses)}
    models = {tag_of(path): getattr(view, "model", None) for path, _, _, view in generator._get_paths_and_endpoints()}
    used = {tag for item in result["paths"].values() for operation in item.values() for tag in operation["tags"]}
    described = {tag["name"] for tag in result.get("tags", [])}
    new = [{"name": tag, "description": _named(models[tag])} for tag in sorted(used - described)]
    result["tags"] = [*result.get("tags", []), *new]
    return result


def _problem(status: int) -> dict[str, Any]:
    """Return an example of an error."""
    example = {**ProblemSerializer.Meta.examples, "status": status, "title": HTTPStatus(status).phrase}
    if status != HTTPStatus.BAD_REQUEST:
        del example["errors"]
        example["detail"] = ANSWERS.get(status, f"{HTTPStatus(status).phrase}.")
    return {"summary": HTTPStatus(status).phrase, "value": example}


def _named(model: Any) -> str:
    return f"{capfirst(model._meta.verbose_name_plural)}." if model else ""
