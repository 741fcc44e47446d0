"""Conditional requests, idempotency keys and dry runs in OpenAPI."""

from typing import Any

from rest_framework.permissions import SAFE_METHODS

from records.models.idempotency import MAX_KEY_LENGTH

_TAGS = r'(W/)?"[!#-~]*"(, (W/)?"[!#-~]*")*'
_HEADER: dict[str, Any] = {"in": "header", "required": False}

DRY_RUN = {
    "name": "dry_run",
    "in": "query",
    "required": False,
    "description": "`true`: respond as the write would, and store nothing.",
    "schema": {"type": "boolean"},
}
IDEMPOTENCY_KEY = _HEADER | {
    "name": "Idempotency-Key",
    "description": "A new random text for each write. The same request with the same key is done once, and answered "
    "alike for 24 hours.",
    "schema": {"type": "string", "minLength": 1, "maxLength": MAX_KEY_LENGTH, "pattern": "^[!-~]([ -~]*[!-~])?$"},
}
IF_MATCH = _HEADER | {
    "name": "If-Match",
    "description": "The `ETag` of the row that was read: 412 if the row has changed since.",
    "schema": {"type": "string", "pattern": rf"^(\*|{_TAGS})$"},
}
IF_NONE_MATCH = _HEADER | {
    "name": "If-None-Match",
    "description": "The `ETag` of the row that the client has: 304 if it is still the same.",
    "schema": {"type": "string", "pattern": rf"^(\*|{_TAGS})$"},
}

#: Components under `headers`.
HEADERS: dict[str, dict[str, Any]] = {
    "ETag": {
        "description": "The version of the row, and a digest of this response.",
        "schema": {"type": "string", "example": '"7-9uLeuGP1RkE"'},
    },
    "Idempotent-Replayed": {
        "description": "`true` if the request was answered before, and this is the same answer.",
        "schema": {"type": "string", "pattern": "^true$"},
    },
    "X-Dry-Run": {
        "description": "`true` if nothing was stored.",
        "schema": {"type": "string", "pattern": "^true$"},
    },
}


class SafeOperation:
    """What an operation of a view accepts and answers because of safe writes."""

    def __init__(self, view: Any, method: str) -> None:
        action = getattr(view, "action", None)
        conditional: frozenset[str] = getattr(view, "conditional_actions", frozenset())
        self._is_write = bool(getattr(view, "has_safe_writes", False)) and method not in SAFE_METHODS
        self._is_conditional = self._is_write and action in conditional
        self._is_row_read = method == "GET" and (action == "retrieve" or action in conditional)
        self._shows_row = self._is_row_read or (self._is_conditional and method != "DELETE") or action == "create"

    def parameters(self) -> list[dict[str, Any]]:
        return [
            *([DRY_RUN, IDEMPOTENCY_KEY] if self._is_write else []),
            *([IF_MATCH] if self._is_conditional else []),
            *([IF_NONE_MATCH] if self._is_row_read else []),
        ]

    def error_statuses(self) -> list[int]:
        return [*([409, 422] if self._is_write else []), *([412, 428] if self._is_conditional else [])]

    def other_statuses(self) -> list[int]:
        """Return the statuses of responses without a body."""
        return [304] if self._is_row_read else []

    def headers(self, status: int) -> list[str]:
        """Return the names of the headers of responses with this status."""
        has_tag = status in {304, 412} or (self._shows_row and status in {200, 201})
        is_replayable = self._is_write and status < 500
        return [*(["ETag"] if has_tag else []), *(["Idempotent-Replayed", "X-Dry-Run"] if is_replayable else [])]
