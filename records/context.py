"""The context of the code that is running: a request or a management command, and who acts in it."""

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

from django.http import HttpRequest
from django.utils.functional import SimpleLazyObject, empty


class RequestContext(NamedTuple):
    """A request that is being answered. `get_client_address` is called only when an address is needed."""

    request: HttpRequest
    get_client_address: Callable[[], str | None]


class RecordedAction(NamedTuple):
    """How the audit log names changes that are more than the creation, update or deletion of a row."""

    action: str
    by_owner: bool  # record the owner of each row as the user, for requests without a signed-in user


_request: ContextVar[RequestContext | None] = ContextVar("request", default=None)
_request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
_recorded_action: ContextVar[RecordedAction | None] = ContextVar("recorded_action", default=None)


@contextmanager
def activate_request(request_id: str, context: RequestContext) -> Iterator[None]:
    """Run this block in the context of a request."""
    tokens = _request.set(context), _request_id.set(request_id)
    try:
        yield
    finally:
        _request.reset(tokens[0])
        _request_id.reset(tokens[1])


def activate_command(name: str) -> None:
    """Give a management command an id so that its changes can be found and undone together, as a request's can."""
    _request_id.set(f"{name[:27]}-{uuid.uuid4()}")


@contextmanager
def record_as(action: str, *, by_owner: bool = False) -> Iterator[None]:
    """Record ordinary changes made in this block under `action`; a purge keeps its name."""
    token = _recorded_action.set(RecordedAction(action, by_owner))
    try:
        yield
    finally:
        _recorded_action.reset(token)


def recorded_action() -> RecordedAction | None:
    return _recorded_action.get()


def request_id() -> str | None:
    """Return the id of the current request or command; None outside of both."""
    return _request_id.get()


def actor_id() -> int | None:
    """Return the id of the user that authentication set on the request; None if anonymous and outside of requests."""
    return _authenticated_id(_request_attribute("user"))


def loaded_actor_id() -> int | None:
    """Return the id of the signed-in user if it is already loaded; this never queries the database."""
    user = _request_attribute("user")
    if isinstance(user, SimpleLazyObject) and getattr(user, "_wrapped", empty) is empty:
        return None
    return _authenticated_id(user)


def client_address() -> str | None:
    """Return the IP address of the client; None outside of requests."""
    context = _request.get()
    return context.get_client_address() if context is not None else None


def login_session() -> Any:
    """Return the session that authenticated the current request; None if there is none or it is not loaded yet."""
    return _request_attribute("login_session")


def _authenticated_id(user: Any) -> int | None:
    return user.pk if user is not None and user.is_authenticated else None


def _request_attribute(name: str) -> Any:
    context = _request.get()
    return getattr(context.request, name, None) if context is not None else None
