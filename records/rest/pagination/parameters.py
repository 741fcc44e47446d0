"""The query parameters of lists: their names, for requests and OpenAPI alike, and how they are read."""

import re
from collections.abc import Iterable
from typing import Any

from django.http import QueryDict
from rest_framework.exceptions import ValidationError

from records.db.validators import BIGINT_MAX
from records.http.hints import did_you_mean, excerpt
from records.rest.columns import DELETION_COLUMNS, api_columns
from records.rest.pagination.counting import COUNTS, MAX_EXACT_COUNT
from records.rest.pagination.keyset import SORT_ALIASES

MAX_OFFSET = 100_000
MAX_PAGE_SIZE = 200
#: The parameters of every list, which `describe` describes in this order.
PARAMETERS = ("page", "size", "skip", "limit", "cursor", "count", "sort_by", "sort_order", "fields")


def read_integer(params: QueryDict, name: str, *, default: int, minimum: int, maximum: int | None = None) -> int:
    text = params.get(name)
    if text is None:
        return default
    if not re.fullmatch(r"-?[0-9]+", text):
        raise ValidationError({name: ["A whole number is required."]})
    # Long digit strings exceed every limit, and int() takes quadratic time.
    value = int(text) if len(text) < 18 else -BIGINT_MAX if text.startswith("-") else BIGINT_MAX
    if value < minimum or (maximum is not None and value > maximum):
        bounds = f"at least {minimum}" if maximum is None else f"from {minimum} to {maximum}"
        raise ValidationError({name: [f"Must be {bounds}."]})
    return value


def read_count(params: QueryDict) -> str:
    """Return the parameter `count`, "" if it was not sent."""
    mode = str(params.get("count", ""))
    if "count" in params and mode not in COUNTS:
        raise ValidationError({"count": [f"Must be one of {', '.join(COUNTS)}."]})
    return mode


def refuse_together(params: QueryDict, names: Iterable[str], message: str) -> None:
    """Raise ValidationError if one of these parameters was sent."""
    for name in names:
        if name in params:
            raise ValidationError({name: [message]})


def selected_fields(
    params: QueryDict, serializer_class: Any, *, with_deletion: bool = False, extra: Iterable[str] = ()
) -> list[str] | None:
    """Return the fields of the response that `fields=` names; None for all.

    With `with_deletion` the response also has DELETION_COLUMNS; `extra` are fields that are no columns.
    """
    known = [*api_columns(serializer_class), *extra, *(DELETION_COLUMNS if with_deletion else ())]
    if "fields" not in params:
        return known if with_deletion else None
    names = list(dict.fromkeys(name.strip() for name in str(params["fields"]).split(",")))
    for name in names:
        if name not in known:
            raise ValidationError({"fields": [f"Unknown field '{excerpt(name)}'.{did_you_mean(name, known)}"]})
    return names


def describe(view: Any) -> list[dict[str, Any]]:
    """Return the OpenAPI parameters of a list.

    The schemas have no `default`, because generated clients would send it, and `page` cannot be sent with `cursor`.
    """
    schemas: dict[str, tuple[str, dict[str, Any]]] = {
        "page": ("1-based page; 1 if absent.", {"type": "integer", "minimum": 1, "maximum": MAX_OFFSET + 1}),
        "size": ("Rows a page; 20 if absent.", {"type": "integer", "minimum": 1, "maximum": MAX_PAGE_SIZE}),
        "skip": (
            "Rows to pass over, instead of `page` and `size`.",
            {"type": "integer", "minimum": 0, "maximum": MAX_OFFSET},
        ),
        "limit": (
            "Rows at the most, with `skip`; 100 if absent.",
            {"type": "integer", "minimum": 1, "maximum": MAX_PAGE_SIZE},
        ),
        "cursor": (
            (
                "Paging at any depth, instead of `page`, `skip` and `limit`: start with an empty `cursor=`, go on with "
                "the `cursor` in `links.next`."
            ),
            {"type": "string"},
        ),
        "count": (
            f"How to count. Default: exactly up to {MAX_EXACT_COUNT:,} rows.",
            {"type": "string", "enum": list(COUNTS)},
        ),
        "sort_by": _sort_by(view),
        "sort_order": (
            "Direction of keys without `-`; `asc` if absent.",
            {"type": "string", "enum": ["asc", "desc"]},
        ),
    }
    described = [_parameter(name, *schemas[name]) for name in PARAMETERS if name in schemas]
    next(parameter for parameter in described if parameter["name"] == "cursor")["allowEmptyValue"] = True
    return [*described, describe_fields(api_columns(view.serializer_class) if view.serializer_class else ())]


def describe_fields(names: Iterable[str]) -> dict[str, Any]:
    """Return the OpenAPI parameter `fields`. OpenAPI cannot express that it removes required fields."""
    known = ", ".join(names)
    description = f"Comma-separated names of the fields to return, instead of all in the schema. Known: {known}."
    return _parameter("fields", description, {"type": "string", "minLength": 1})


def _parameter(name: str, description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": False, "description": description, "schema": schema}


def _sort_by(view: Any) -> tuple[str, dict[str, Any]]:
    aliases = {alias: name for alias, name in SORT_ALIASES.items() if name in view.sort_fields}
    names = list(dict.fromkeys([*view.sort_fields, *aliases]))
    sortable, key = ", ".join(names), "|".join(names)
    spellings = ["|".join([name, *(alias for alias in aliases if aliases[alias] == name)]) for name in view.sort_fields]
    unique = "".join(rf"(?!.*\b(?:{spelling})\b.*\b(?:{spelling})\b)" for spelling in spellings)
    default = f" Default: {view.default_sort}." if view.default_sort else ""
    return (
        f"Comma-separated, `-` for descending. Known: {sortable}.{default}",
        {"type": "string", "pattern": f"^{unique}-?({key})(,-?({key}))*$"},
    )
