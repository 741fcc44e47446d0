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
    schemas = result["components"]["schemas"]
    names = {tuple(schema["enum"]): name for name, schema in schemas.items() if "enum" in schema}
    for item in result["paths"].values():
        for operation in item.values():
            for parameter in operation.get("parameters", []):
                if "enum" in parameter["schema"]:
                    values = tuple(parameter["schema"]["enum"])
                    name = names.setdefault(values, f"{camel_case(parameter['name'])}Enum")
                    schemas.setdefault(name, {"type": "string", "enum": list(values)})
                    parameter["schema"] = {"$ref": f"#/components/schemas/{name}"}
    result["components"]["schemas"] = dict(sorted(schemas.items()))
    result["components"]["headers"] = HEADERS
    statuses = {
        int(status)
        for item in result["paths"].values()
        for operation in item.values()
        for status, response in operation["responses"].items()
        if PROBLEM_TYPE in response.get("content", {})
    }
    result["components"]["examples"] = {f"Problem{status}": _problem(status) for status in sorted(statuses)}
    models = {tag_of(path): getattr(view, "model", None) for path, _, _, view in generator._get_paths_and_endpoints()}
    used = {tag for item in result["paths"].values() for operation in item.values() for tag in operation["tags"]}
    described = {tag["name"] for tag in result.get("tags", [])}
    new = [{"name": tag, "description": _tag_description(models[tag])} for tag in sorted(used - described)]
    result["tags"] = [*result.get("tags", []), *new]
    return result


def _problem(status: int) -> dict[str, Any]:
    """Return an example of an error."""
    example = {**ProblemSerializer.Meta.examples, "status": status, "title": HTTPStatus(status).phrase}
    if status != HTTPStatus.BAD_REQUEST:
        del example["errors"]
        example["detail"] = DESCRIPTIONS.get(status, f"{HTTPStatus(status).phrase}.")
    return {"summary": HTTPStatus(status).phrase, "value": example}


def _tag_description(model: Any) -> str:
    return f"{capfirst(model._meta.verbose_name_plural)}." if model else ""
