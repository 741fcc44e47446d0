"""The OpenAPI schema of a page."""

from typing import Any

from records.rest.pagination.counting import MAX_EXACT_COUNT
from records.rest.pagination.parameters import MAX_PAGE_SIZE

LINK = {"type": "string", "format": "uri-reference", "nullable": True}
INTEGER = {"type": "integer", "format": "int64", "nullable": True}


def describe_response(rows: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a page whose `items` have the schema `rows`."""
    properties: dict[str, dict[str, Any]] = {
        "items": rows | {"description": "The rows of this page."},
        "total": INTEGER | {"description": "Number of matching rows; null with `count=none`.", "example": 150},
        "total_is_estimate": {
            "type": "boolean",
            "description": f"Whether `total` is the planner's guess, past {MAX_EXACT_COUNT:,} rows.",
        },
        "page": INTEGER | {"description": "1-based number of this page; null by cursor.", "example": 1},
        "size": {
            "type": "integer",
            "minimum": 1,
            "maximum": MAX_PAGE_SIZE,
            "description": "Rows a page.",
            "example": 10,
        },
        "pages": INTEGER | {"description": "Number of pages; null with `count=none`.", "example": 15},
        "has_next": {"type": "boolean", "description": "Whether rows follow."},
        "has_prev": {"type": "boolean", "description": "Whether rows come before."},
        "links": {
            "type": "object",
            "description": "The neighbouring pages, with all other parameters kept.",
            "required": ["first", "prev", "next", "last"],
            "properties": {
                "first": {"type": "string", "format": "uri-reference"},
                "prev": LINK,
                "next": LINK,
                "last": LINK | {"description": "Null where the total is unknown or a guess."},
            },
        },
    }
    return {"type": "object", "required": list(properties), "properties": properties}
