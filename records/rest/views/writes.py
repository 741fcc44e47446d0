"""Writes that cannot lose or repeat anything: conditional requests, idempotency keys and dry runs."""

from collections.abc import Callable, Collection
from functools import partial
from typing import Any, ClassVar

from django.conf import settings
from django.db import connection, transaction
from django.http import HttpResponse
from rest_framework.exceptions import ParseError, ValidationError
from rest_framework.permissions import SAFE_METHODS
from rest_framework.request import Request
from rest_framework.response import Response

from records.rest.entity_tags import (
    PreconditionFailed,
    PreconditionRequired,
    add_entity_tag,
    allows_version,
    entity_tag,
    expected_versions,
    known_tags,
)
from records.rest.idempotency import DRY_RUN, KeyedRequest, is_stored
from records.rest.renderers import ORJSONRenderer

Handler = Callable[..., HttpResponse]


class SafeWriteMixin:
    """Run each write of a viewset as `Idempotency-Key`, `dry_run` and `If-Match` ask for."""

    request: Any
    action: Any
    #: Whether writes accept keys and dry runs. Those under /auth do not, because their answers are secrets.
    has_safe_writes: ClassVar[bool] = True
    #: Actions that write the row of the path, to which `If-Match` applies.
    conditional_actions: ClassVar[frozenset[str]] = frozenset({"update", "partial_update", "destroy", "restore"})
    #: Version of the row that was read or written last; None if rows have no version.
    row_version: int | None = None
    #: Tags of the row that the client has; None if the response does not show a single row.
    client_tags: Collection[str] | None = None

    def dispatch(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        method = str(request.method).lower()
        handler = getattr(self, method, None)
        if self.has_safe_writes and handler is not None and request.method not in SAFE_METHODS:
            setattr(self, method, partial(self.run_write, handler))
        return super().dispatch(request, *args, **kwargs)  # type: ignore[misc]

    def run_write(self, handler: Handler, request: Request, *args: Any, **kwargs: Any) -> HttpResponse:
        self._check_headers()
        keyed, is_dry_run = KeyedRequest.from_request(request), self.is_dry_run()
        if keyed is not None and (stored := keyed.stored_response()):
            return stored
        self.prepare_write()
        handler = partial(handler, request, *args, **kwargs)
        if keyed is None and not is_dry_run:
            return handler()
        with transaction.atomic():
            if keyed is not None:
                keyed.lock()
                if stored := keyed.stored_response():  # the request that held the key has ended
                    return stored
                response = self._keyed_response(handler)
                keyed.store(response)
            else:
                response = handler()
            if is_dry_run:
                _check_deferred_constraints()
                transaction.set_rollback(True)
        return response

    def prepare_write(self) -> None:
        """Do what must not be rolled back with the write, such as counting a wrong password."""

    def _keyed_response(self, handler: Handler) -> HttpResponse:
        """Return the rendered answer of a write; raise the error if it is none to be stored."""
        try:
            with transaction.atomic():
                response = handler()
        except Exception as error:
            response = self.handle_exception(error)  # type: ignore[attr-defined]
            if not is_stored(response.status_code):
                raise
        rendered: HttpResponse = self.finalize_response(self.request, response)
        return rendered.render() if isinstance(rendered, Response) else rendered

    # Dry runs

    def is_dry_run(self) -> bool:
        """Return the parameter `dry_run`; raise ValidationError if it is neither true nor false."""
        value = self.request.query_params.get(DRY_RUN, "false").lower()
        if value not in {"true", "false"}:
            raise ValidationError({DRY_RUN: ["Must be true or false."]})
        return bool(value == "true")

    def write_parameters(self) -> frozenset[str]:
        """Return the names of the query parameters of every write."""
        is_write = self.has_safe_writes and self.request.method not in SAFE_METHODS
        return frozenset({DRY_RUN} if is_write else ())

    # Conditional requests

    def row_response(self, row: dict[str, Any], **options: Any) -> Response:
        """Return a response that shows the row that was read or written last. It gets an entity tag."""
        self.client_tags = known_tags(self.request)
        return Response(row, **options)

    def check_precondition(self, row: Any) -> None:
        """Raise PreconditionFailed if `If-Match` names other versions of this row, which must be locked."""
        header = self.request.META.get("HTTP_IF_MATCH")
        if header is None:
            if settings.REQUIRE_IF_MATCH:
                raise PreconditionRequired
        elif not allows_version(header, row.version):
            tag = entity_tag(row.version, ORJSONRenderer().render(self.current_row(row)))
            raise PreconditionFailed(expected_versions(header), row.version, tag)

    def current_row(self, row: Any) -> dict[str, Any]:
        """Return what a GET of this row responds."""
        raise NotImplementedError

    def _check_headers(self) -> None:
        if "HTTP_IF_MATCH" in self.request.META and self.action not in self.conditional_actions:
            raise ParseError("If-Match applies to requests that write the row of their path, and not to this one.")

    def finalize_response(self, request: Any, response: Any, *args: Any, **kwargs: Any) -> Any:
        response = super().finalize_response(request, response, *args, **kwargs)  # type: ignore[misc]
        if self.write_parameters() and request.query_params.get(DRY_RUN, "").lower() == "true":
            response.headers["X-Dry-Run"] = "true"
        if self.client_tags is not None and isinstance(response, Response) and not response.exception:
            self._add_entity_tag(response, self.client_tags)
        return response

    def _add_entity_tag(self, response: Any, client_tags: Collection[str]) -> None:
        if isinstance(response.accepted_renderer, ORJSONRenderer):  # pages differ with the user and their cookies
            add_entity_tag(response.render(), self.row_version, client_tags)


def _check_deferred_constraints() -> None:
    """Check what a commit would check. SQLite would read all tables, and serializes writes, so that nothing is due."""
    if connection.vendor == "postgresql":
        connection.check_constraints()
