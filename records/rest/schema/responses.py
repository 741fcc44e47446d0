"""Descriptions of responses and headers."""

from typing import Any

from rest_framework import serializers

from records.rest.schema import safe_writes
from records.rest.schema.keywords import INT64

#: Default description of responses by status.
DESCRIPTIONS = {
    200: "OK.",
    201: "Created.",
    202: "Accepted.",
    204: "Done; the answer has no body.",
    207: "With `atomic=false`: the good rows are stored, and each row has its own status.",
    302: "Found.",
    304: "The row is still the one that `If-None-Match` names.",
    400: "The request is wrong; `errors` names the fields or parameters at fault.",
    401: "The request has no valid credentials.",
    403: "The caller may not do this.",
    404: "There is no such row, or the caller may not see it.",
    406: "The service has none of the media types in `Accept`.",
    409: "The request conflicts with the present state.",
    412: "The row has changed since it was read; `ETag` is its current tag. Nothing was stored.",
    413: "The body is too large.",
    415: "The service cannot read this media type.",
    422: "The `Idempotency-Key` belongs to another request, or its response is too large to be kept.",
    428: "The service requires `If-Match`.",
    429: "Too many requests: try again after `Retry-After` seconds.",
    502: "Another service did not answer as it should.",
    503: "The database, or something else that is needed, cannot be reached: try again after `Retry-After` seconds.",
}

#: Components under `headers`.
HEADERS: dict[str, dict[str, Any]] = {
    **safe_writes.HEADERS,
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
        "schema": INT64 | {"minimum": 0},
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

#: The request header of every operation.
REQUEST_ID: dict[str, Any] = {
    "name": "X-Request-ID",
    "in": "header",
    "required": False,
    "description": "The caller's own id of the request: 1–64 letters, digits or `. _ : -`. Any other is replaced.",
    "schema": {"type": "string"},
}

#: Response headers by status. `X-Request-ID` is on every response.
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
    "deleted_by": INT64 | {"nullable": True, "description": "Id of the user who deleted it.", "example": 1},
    "deletion_reason": {"type": "string", "description": "Why it was deleted.", "example": "Sold"},
}


class ProblemSerializer(serializers.Serializer[Any]):
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
