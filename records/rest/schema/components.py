"""Components that operations share, added when all operations are described."""

from http import HTTPStatus
from typing import Any

from django.utils.text import capfirst

from records.http.problems import PROBLEM_TYPE
from records.rest.schema.responses import DESCRIPTIONS, HEADERS, ProblemSerializer


def camel_case(name: str) -> str:
    return "".join(part[:1].upper() + part[1:] for part in name.split("_"))


def tag_of(path: str) -> str:
    return path.removeprefix("/api/v1/").split("/")[0] if path.startswith("/api/v1/") else "service"


def add_components(result: dict[str, Any], generator: Any, **kwargs: Any) -> dict[str, Any]:
    """Add headers, examples, tags and the enumerations of query parameters."""
    operations = [operation for item in result["paths"].values() for operation in item.values()]
    _name_enumerations(result["components"]["schemas"], operations)
    result["components"]["schemas"] = dict(sorted(result["components"]["schemas"].items()))
    result["components"]["headers"] = HEADERS
    statuses = sorted({status for operation in operations for status in _problem_statuses(operation)})
    result["components"]["examples"] = {f"Problem{status}": _problem(status) for status in statuses}
    _describe_tags(result, operations, generator)
    return result


def _describe_tags(result: dict[str, Any], operations: list[dict[str, Any]], generator: Any) -> None:
    """Describe the tags of resources by the names of their models."""
    models = {tag_of(path): getattr(view, "model", None) for path, _, _, view in generator._get_paths_and_endpoints()}
    used = {tag for operation in operations for tag in operation["tags"]}
    described = {tag["name"] for tag in result.get("tags", [])}
    new = [{"name": tag, "description": _tag_description(models[tag])} for tag in sorted(used - described)]
    result["tags"] = [*result.get("tags", []), *new]


def _name_enumerations(schemas: dict[str, Any], operations: list[dict[str, Any]]) -> None:
    """Replace the enumerations of query parameters by references to one component for each."""
    names = {tuple(schema["enum"]): name for name, schema in schemas.items() if "enum" in schema}
    parameters = (parameter for operation in operations for parameter in operation.get("parameters", []))
    for parameter in parameters:
        if "enum" in parameter["schema"]:
            values = tuple(parameter["schema"]["enum"])
            name = names.setdefault(values, f"{camel_case(parameter['name'])}Enum")
            schemas.setdefault(name, {"type": "string", "enum": list(values)})
            parameter["schema"] = {"$ref": f"#/components/schemas/{name}"}


def _problem_statuses(operation: dict[str, Any]) -> list[int]:
    responses = operation["responses"].items()
    return [int(status) for status, response in responses if PROBLEM_TYPE in response.get("content", {})]


def _problem(status: int) -> dict[str, Any]:
    """Return an example of an error."""
    example = {**ProblemSerializer.Meta.examples, "status": status, "title": HTTPStatus(status).phrase}
    if status != HTTPStatus.BAD_REQUEST:
        del example["errors"]
        example["detail"] = DESCRIPTIONS.get(status, f"{HTTPStatus(status).phrase}.")
    return {"summary": HTTPStatus(status).phrase, "value": example}


def _tag_description(model: Any) -> str:
    return f"{capfirst(model._meta.verbose_name_plural)}." if model else ""
