"""Handlers of bulk writes, for every viewset of records."""

from http import HTTPStatus
from typing import Any

from rest_framework.exceptions import APIException, PermissionDenied, ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from records.rest.bulk.operations import Create, Delete, Operation, Update
from records.rest.bulk.rows import Batch
from records.rest.checks import Candidate
from records.rest.permissions import SINGLE_ACTIONS

ATOMIC = "atomic"
#: Actions whose body is always an array.
BULK_ACTIONS = frozenset(SINGLE_ACTIONS)


class BulkWrites:
    """Accept an array of rows for POST, PATCH and DELETE of a collection."""

    action: Any
    model: Any
    request: Any

    def known_parameters(self) -> frozenset[str]:
        known: frozenset[str] = super().known_parameters()  # type: ignore[misc]
        return known | {ATOMIC} if self.action == "create" or self.action in BULK_ACTIONS else known

    # Handlers

    def bulk_create(self, request: Request) -> Response:
        """Create the rows of an array."""
        response = self._write_many(Create, request)
        if response.status_code == HTTPStatus.CREATED:
            response["Location"] = request.path
        return response

    def bulk_update(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return self._write_many(Update, request)

    def bulk_destroy(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return self._write_many(Delete, request)

    def refuse_atomic(self, request: Request) -> None:
        """Raise ValidationError for a request about one row that has a parameter of those about many."""
        if ATOMIC in request.query_params:
            raise ValidationError({ATOMIC: ["This parameter is for an array of rows only."]})

    def _write_many(self, kind: type[Operation], request: Request) -> Response:
        batch = Batch(request.data, is_atomic=_is_atomic(request))
        try:
            items = kind(self, batch).run()
        finally:
            request._request.refused_keys = batch.forbidden_keys()  # type: ignore[attr-defined]
        if batch.is_atomic:
            return Response({"deleted": len(items)} if kind is Delete else {"items": items}, status=kind.success)
        return Response(_results(kind, batch, items), status=HTTPStatus.MULTI_STATUS)

    # Hooks

    def written_rows(self, instances: list[Any]) -> list[dict[str, Any]]:
        """Return the responses of rows that were just written."""
        raise NotImplementedError

    def added_values(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Return the values of a new row that the request does not contain."""
        return {}

    def deletion_options(self) -> dict[str, Any]:
        """Return the arguments of `delete()` that the request names."""
        return {}

    def refused_rows(self, rows: list[Any]) -> dict[Any, APIException]:
        """Return the key of each stored row that the user may not change or delete, with the error."""
        permissions = self.get_permissions()  # type: ignore[attr-defined]
        return {
            row.pk: PermissionDenied(getattr(permission, "message", None))
            for row in rows
            for permission in permissions
            if not permission.has_object_permission(self.request, self, row)
        }

    def refused_changes(self, candidates: list[Candidate]) -> dict[Any, APIException]:
        """Return the key of each row that the user may change but not in this way, with the error."""
        return {}


def _results(kind: type[Operation], batch: Batch, items: list[dict[str, Any]]) -> dict[str, Any]:
    written = iter(items)
    results: list[dict[str, Any]] = []
    for row in batch.rows:
        if row.errors:
            results.append({"index": row.index, "status": int(row.status), "errors": row.errors})
        else:
            item = next(written)
            results.append({"index": row.index, "status": int(kind.row_success)} | ({"item": item} if item else {}))
    return {"succeeded": len(items), "failed": len(results) - len(items), "results": results}


def _is_atomic(request: Request) -> bool:
    value = request.query_params.get(ATOMIC, "true").lower()
    if value not in {"true", "false"}:
        raise ValidationError({ATOMIC: ["Must be true or false."]})
    return value == "true"
