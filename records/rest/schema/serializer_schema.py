"""The OpenAPI description of serializers and their fields."""

import copy
from typing import Any

from drf_spectacular.drainage import get_override
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.plumbing import ResolvedComponent, is_serializer
from rest_framework import serializers

from records.models import SoftDeletable
from records.rest.columns import is_reference, serializer_for
from records.rest.schema.components import camel_case
from records.rest.schema.examples import example_of
from records.rest.schema.keywords import add_integer_format, describe_bounds, describe_size, relax_for_responses
from records.rest.schema.patterns import describe_text
from records.rest.schema.responses import DELETION_PROPERTIES
from records.rest.serializers import RecordSerializer
from records.rest.strict import StrictFieldsMixin


class SerializerSchema(AutoSchema):
    """drf-spectacular's description of serializers, completed by what their fields and validators accept."""

    def _map_basic_serializer(self, serializer: Any, direction: Any) -> dict[str, Any]:
        schema: dict[str, Any] = super()._map_basic_serializer(serializer, direction)
        meta = getattr(serializer, "Meta", None)
        schema.pop("description", None)  # the docstring of the class, which describes the code
        if description := get_override(serializer, "description", getattr(meta, "description", "")):
            schema["description"] = description
        if direction == "request":
            self._complete_request(schema, serializer)
        elif isinstance(serializer, RecordSerializer):
            self._complete_row(schema, serializer)
        alternatives = getattr(meta, "required_together", None)
        if direction == "request" and alternatives and not getattr(serializer, "partial", False):
            return self._alternatives(serializer, schema, alternatives)
        return schema

    def _complete_request(self, schema: dict[str, Any], serializer: Any) -> None:
        properties = schema.get("properties", {})
        if properties and isinstance(serializer, StrictFieldsMixin):
            schema["additionalProperties"] = False
        for name in set(getattr(getattr(serializer, "Meta", None), "staff_fields", ())) & properties.keys():
            description = properties[name].get("description", "")
            if "taff" not in description:
                properties[name]["description"] = f"{description} Staff only.".strip()

    def _complete_row(self, schema: dict[str, Any], serializer: RecordSerializer) -> None:
        properties = schema.get("properties", {})
        # Responses have all columns, whether or not a request requires them.
        schema["required"] = sorted(name for name in properties if not properties[name].get("writeOnly"))
        is_registered = type(serializer) is registered_serializer(serializer)
        if issubclass(serializer.Meta.model, SoftDeletable) and is_registered:
            schema["properties"] = properties | {
                name: column | {"description": f"{column['description']} Only in lists with `is_deleted=true`."}
                for name, column in DELETION_PROPERTIES.items()
            }

    def _alternatives(self, serializer: Any, schema: dict[str, Any], alternatives: list[list[str]]) -> dict[str, Any]:
        """Return a schema for each set of fields that is required together."""
        references = []
        for names in alternatives:
            variant = copy.deepcopy(schema)
            variant["required"] = sorted({*schema.get("required", []), *names})
            variant = self._postprocess_serializer_schema(variant, serializer, "request")
            for name in names:
                variant["properties"][name].pop("nullable", None)
            base = self._get_serializer_name(serializer, "request").removesuffix("Request")
            component = ResolvedComponent(
                name=f"{base}With{''.join(map(camel_case, names))}Request",
                type=ResolvedComponent.SCHEMA,
                schema=variant,
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
        _add_keywords(schema, field, is_request=direction == "request")
        schema |= getattr(field, "schema", {})
        schema.pop("title", None)
        if isinstance(field.parent, serializers.Serializer) and "oneOf" not in schema:
            example = getattr(getattr(field.parent, "Meta", None), "examples", {}).get(field.field_name)
            example = example_of(field) if example is None else example
            if example is not None:
                schema["example"] = example
        return schema

    def _insert_field_validators(self, field: Any, schema: Any) -> None:
        """Do nothing, because `_map_serializer_field` reads the validators."""

    def _map_choices(self, field: Any, direction: Any) -> dict[str, Any]:
        """Return a reference to an enumeration that is named after the field."""
        parent = field.parent
        model = getattr(getattr(parent, "Meta", None), "model", None)
        owner = model.__name__ if model else type(parent).__name__.removesuffix("Serializer")
        values = [value for value in field.choices if value not in ("", None)]
        kind = "integer" if all(isinstance(value, int) for value in values) else "string"
        references = [self._enumeration(f"{owner}{camel_case(field.field_name)}Enum", {"type": kind, "enum": values})]
        if field.allow_blank and "" not in values:
            references.append(self._enumeration("BlankEnum", {"type": "string", "enum": [""]}))
        if field.allow_null:
            references.append(self._enumeration("NullEnum", {"enum": [None]}))
        meta = self._get_serializer_field_meta(field, direction)
        meta.pop("minLength", None)
        described: dict[str, Any] = meta | ({"allOf": references} if len(references) == 1 else {"oneOf": references})
        return described

    def _enumeration(self, name: str, schema: dict[str, Any]) -> dict[str, Any]:
        component = ResolvedComponent(name=name, type=ResolvedComponent.SCHEMA, schema=schema, object=name)
        self.registry.register_on_missing(component)
        reference: dict[str, Any] = component.ref
        return reference


def registered_serializer(serializer: RecordSerializer) -> Any:
    return serializer_for(serializer.Meta.model)


def _add_keywords(schema: dict[str, Any], field: Any, *, is_request: bool) -> None:
    """Add what the field and its validators accept to its schema."""
    match schema.get("type"):
        case "integer" | "number":
            describe_bounds(schema, field)
            if is_reference(field):
                schema["minimum"] = 1  # ids are positive
            if not is_request:
                relax_for_responses(schema)
            add_integer_format(schema)
        case "string":
            describe_text(schema, field, is_request=is_request)
        case "array" | "object":
            describe_size(schema, field)
