"""The OpenAPI description of filter parameters."""

from typing import Any

from drf_spectacular.extensions import OpenApiFilterExtension

from records.rest.schema.keywords import filter_schema


class RecordFilterExtension(OpenApiFilterExtension):
    target_class = "records.rest.filters.RecordFilterBackend"
    priority = 1  # before drf-spectacular's own extension, which drops the help texts

    def get_schema_operation_parameters(self, auto_schema: Any, *args: Any, **kwargs: Any) -> list[dict[str, Any]]:
        filterset_class = auto_schema.view.filterset_class
        return [
            {
                "name": name,
                "in": "query",
                "required": False,
                "description": declared.extra["help_text"],
                "schema": filter_schema(declared),
            }
            for name, declared in (filterset_class.base_filters.items() if filterset_class else ())
        ]
