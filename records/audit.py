"""Who acts in this request, under which id, and what they are about."""

import ipaddress
import json
import logging
import re
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, NamedTuple

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.utils.functional import SimpleLazyObject, empty

logger = logging.getLogger("records.requests")

_request: ContextVar[HttpRequest | None] = ContextVar("request", default=None)
_request_id: ContextVar[str | None] = ContextVar("request_id", default=None)

SANE_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")


class Act(NamedTuple):
    """What is being done, where that is more than to create, update or delete a row."""

    action: str
    by_owner: bool  # nobody is signed in, but whose row it is has shown who they are


_act: ContextVar[Act | None] = ContextVar("act", default=None)


@contextmanager
def doing(action: str, *, by_owner: bool = False) -> Iterator[None]:
    """The log calls the changes made meanwhile so."""
    token = _act.set(Act(action, by_owner))
    try:
        yield
    finally:
        _act.reset(token)


def present_act() -> Act | None:
    return _act.get()


def begin_command(name: str) -> None:
    """Give what a command does an id, as a request has one: its changes can be found and undone together."""
    _request_id.set(f"{name[:27]}-{uuid.uuid4()}")


def request_id() -> str | None:
    """The id of the request being answered, or of the command being run; None outside of both."""
    return _request_id.get()


def actor_id() -> int | None:
    """The id of the user who acts in this request; None for strangers and outside of requests."""
    user = getattr(_request.get(), "user", None)
    return user.pk if user is not None and user.is_authenticated else None


def known_actor_id() -> int | None:
    """Return the id of the signed-in user if it is known already; never asks the database who that is."""
    user = getattr(_request.get(), "user", None)
    if isinstance(user, SimpleLazyObject) and getattr(user, "_wrapped", empty) is empty:
        return None
    return user.pk if user is not None and user.is_authenticated else None


def actor_ip() -> str | None:
    """Where the present request comes from; None outside of requests."""
    request = _request.get()
    return client_ip(request) if request is not None else None


def login_session() -> Any:
    """The session by which the present request's user is signed in, if it is a user's and already known."""
    return getattr(_request.get(), "login_session", None)


def client_ip(request: HttpRequest) -> str | None:
    """The caller's address; what X-Forwarded-For says counts only through TRUSTED_PROXIES of them."""
    addresses = [request.META.get("REMOTE_ADDR") or ""]
    if settings.TRUSTED_PROXIES and (forwarded := request.META.get("HTTP_X_FORWARDED_FOR")):
        hops = forwarded.split(",")
        # Each proxy appends whom it heard: counted from the right, since anybody can write what stands on the left.
        hop = hops[-min(settings.TRUSTED_PROXIES, len(hops))].strip()
        # Some write the port too: 192.0.2.7:4711, [2001:db8::7]:4711.
        addresses.insert(0, re.sub(r"^\[(.*)\](:\d+)?$|^([^:]*):\d+$", r"\1\3", hop))
    for address in addresses:
        with suppress(ValueError):
            parsed = ipaddress.ip_address(address)
            return str(getattr(parsed, "ipv4_mapped", None) or parsed)
    return None


def client_network(request: HttpRequest) -> str | None:
    """Whom to count as one caller: an IPv4 address, or the IPv6 network of one connection (/64, RFC 6177)."""
    ip = client_ip(request)
    return str(ipaddress.ip_network(f"{ip}/64", strict=False)) if ip and ":" in ip else ip


class RequestContextMiddleware:
    """Gives each request an id, the caller's own if it sent a sane one, and a line in the log."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        started = time.perf_counter()
        sent = request.headers.get("X-Request-ID", "")
        identifier = sent if SANE_REQUEST_ID.fullmatch(sent) else str(uuid.uuid4())
        tokens = _request.set(request), _request_id.set(identifier)
        try:
            response = self.get_response(request)
            response["X-Request-ID"] = identifier
            milliseconds = (time.perf_counter() - started) * 1000
            # The path without its query, which may carry what belongs in no log; %r keeps line breaks out.
            line = (request.method, request.path[:1000], response.status_code, milliseconds, known_actor_id() or "-")
            logger.info("%s %r %d %.1fms user=%s", *line)
            return response
        finally:
            _request.reset(tokens[0])
            _request_id.reset(tokens[1])


class RequestContextFilter(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id = request_id() or "-"
        record.user_id = known_actor_id()
        return True


class JSONFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat().replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "request_id": getattr(record, "request_id", "-"),
            "user_id": getattr(record, "user_id", None),
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry)
