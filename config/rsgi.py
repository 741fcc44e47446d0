"""The RSGI application that Granian serves: bodies are read on the event loop, Django runs in threads.

A WSGI server occupies a thread while a body arrives, so that a few slow clients stop the service. Here a request gets
a thread when its body is complete.

RSGI: https://github.com/emmett-framework/granian/blob/master/docs/spec/RSGI.md. WSGI: PEP 3333.
"""

import asyncio
import gc
import logging
import os
import signal
import sys
import threading
import time
from collections import deque
from http import HTTPStatus
from io import BytesIO
from queue import SimpleQueue
from typing import Any

from django.conf import settings

from config.wsgi import application as wsgi_application
from records.http.bodies import UNREAD_BODY, UnreadBodyError
from records.http.limits import BODY_TOO_LARGE
from users.delivery import courier

logger = logging.getLogger(__name__)

#: Seconds within which a body must arrive.
BODY_SECONDS = 10
#: Paths that a separate thread answers, so that they respond while all other threads wait for the database.
LIVENESS_PATHS = frozenset({"/ping", "/ping/", "/health/live", "/health/live/"})
#: Beginning of the paths that contact OpenID Connect providers.
SIGN_IN_PATHS = "/api/v1/auth/oauth/"
#: Seconds that a worker may take to finish its requests after its parent has died.
ORPHAN_SECONDS = 10
#: Seconds during which a stopping worker asks its clients to close their connections.
DRAIN_SECONDS = 1
#: The signal on which a worker of Granian stops accepting connections and finishes its requests.
STOP = signal.SIGINT
CLOSE_CONNECTION = "config.close_connection"
INCOMPLETE = "The request body ended before it was complete."


class Threads:
    """Runs requests in threads and resumes their coroutines.

    An executor of the standard library takes 70 µs more CPU per request: it locks two futures and wakes the event loop
    for each.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, count: int, name: str) -> None:
        self._loop = loop
        self._waiting: SimpleQueue[tuple[dict[str, Any], Any, asyncio.Future[None]]] = SimpleQueue()
        self._finished: deque[asyncio.Future[None]] = deque()
        self._will_resume = False
        for number in range(count):
            threading.Thread(target=self._work, name=f"{name}-{number}", daemon=True).start()

    async def respond(self, environ: dict[str, Any], protocol: Any) -> None:
        future = self._loop.create_future()
        self._waiting.put((environ, protocol, future))
        await future

    def _work(self) -> None:
        while True:
            environ, protocol, future = self._waiting.get()
            try:
                _respond(environ, protocol)
            except Exception:  # Granian answers 500 when the coroutine ends without a response
                logger.exception("A request crashed outside of Django.")
            # Append before reading the flag; _resume clears the flag before emptying the queue. So none is missed.
            self._finished.append(future)
            if not self._will_resume:
                self._will_resume = True
                self._loop.call_soon_threadsafe(self._resume)

    def _resume(self) -> None:
        self._will_resume = False
        while self._finished:
            future = self._finished.popleft()
            if not future.done():
                future.set_result(None)


class Application:
    """Runs the WSGI application of Django for Granian's RSGI workers."""

    _is_draining = False

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._threads = Threads(loop, settings.WEB_THREADS, "request")
        self._liveness_thread = Threads(loop, 1, "liveness")
        # A provider that responds slowly occupies these threads only.
        self._sign_in_threads = (
            Threads(loop, settings.SIGN_IN_THREADS, "sign-in") if settings.SIGN_IN_THREADS else self._threads
        )
        loop.add_signal_handler(signal.SIGTERM, self._drain, loop)  # instead of Granian's, which stops at once
        courier.start()
        threading.Thread(target=_stop_with_parent, args=(os.getppid(),), name="parent", daemon=True).start()
        gc.collect()
        gc.freeze()  # what was loaded stays: garbage collections need not visit it

    def _drain(self, loop: asyncio.AbstractEventLoop) -> None:
        """Let clients close idle connections first: a request that is sent while we close one would be lost."""
        self._is_draining = True
        loop.call_later(DRAIN_SECONDS, os.kill, os.getpid(), STOP)

    async def __rsgi__(self, scope: Any, protocol: Any) -> None:
        environ = _environ(scope)
        try:
            body = await _read_body(environ, protocol)
        except UnreadBodyError as error:
            environ[UNREAD_BODY], body = error, b""
        environ["wsgi.input"] = BytesIO(body)
        if body or "CONTENT_LENGTH" in environ:
            environ["CONTENT_LENGTH"] = str(len(body))
        environ[CLOSE_CONNECTION] = self._is_draining and scope.http_version != "2"
        await self._threads_for(scope.path).respond(environ, protocol)

    def _threads_for(self, path: str) -> Threads:
        if path in LIVENESS_PATHS:
            return self._liveness_thread
        return self._sign_in_threads if path.startswith(SIGN_IN_PATHS) else self._threads


def _environ(scope: Any) -> dict[str, Any]:
    """Return the WSGI environ of a request, without its body."""
    client, _, _ = scope.client.rpartition(":")
    server, _, port = scope.server.rpartition(":")
    environ = {
        "REQUEST_METHOD": scope.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": scope.path.encode().decode("latin-1"),  # PEP 3333: bytes as Latin-1
        "QUERY_STRING": scope.query_string,
        "REMOTE_ADDR": client.strip("[]"),
        "SERVER_NAME": server.strip("[]"),
        "SERVER_PORT": port,
        "SERVER_PROTOCOL": f"HTTP/{scope.http_version}",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope.scheme,
        "wsgi.errors": sys.stderr,
        "wsgi.input_terminated": True,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    for name, value in scope.headers.items():
        if "_" in name:
            continue  # WSGI could not distinguish X_Forwarded_For from X-Forwarded-For, which proxies set
        key = name.upper().replace("-", "_")
        if key not in {"CONTENT_TYPE", "CONTENT_LENGTH"}:
            key = f"HTTP_{key}"
        if key in environ:
            value = f"{environ[key]}{'; ' if key == 'HTTP_COOKIE' else ','}{value}"
        environ[key] = value
    if "HTTP_HOST" not in environ and scope.authority:
        environ["HTTP_HOST"] = scope.authority  # HTTP/2 sends it as :authority
    return environ


async def _read_body(environ: dict[str, Any], protocol: Any) -> bytes:
    """Return the whole body; raise UnreadBodyError if it is too large, too slow or incomplete."""
    length = environ.get("CONTENT_LENGTH")
    try:
        async with asyncio.timeout(BODY_SECONDS):
            if length is not None:
                return await _read_sized(protocol, length)
            if "HTTP_TRANSFER_ENCODING" in environ or environ["SERVER_PROTOCOL"] == "HTTP/2":
                return await _read_unsized(protocol)
    except TimeoutError:
        raise UnreadBodyError(
            HTTPStatus.REQUEST_TIMEOUT, f"The request body did not arrive within {BODY_SECONDS} seconds."
        ) from None
    return b""


async def _read_sized(protocol: Any, length: str) -> bytes:
    if not length.isdecimal() or len(length) > 18:
        raise UnreadBodyError(HTTPStatus.BAD_REQUEST, "The Content-Length is not a number.")
    _refuse_large(int(length))
    if int(length) == 0:
        return b""
    try:
        body: bytes = await protocol()
        return body
    except RuntimeError:  # the client closed the connection
        raise UnreadBodyError(HTTPStatus.BAD_REQUEST, INCOMPLETE) from None


async def _read_unsized(protocol: Any) -> bytes:
    """Return a body in chunks (HTTP/1.1) or frames (HTTP/2).

    Granian yields an empty chunk at the end, and another one before it if the body is incomplete or has trailers.
    """
    body, empty_chunks = bytearray(), 0
    async for chunk in protocol:
        body += chunk
        empty_chunks += not chunk
        _refuse_large(len(body))
    if empty_chunks > 1:
        raise UnreadBodyError(HTTPStatus.BAD_REQUEST, INCOMPLETE)
    return bytes(body)


def _refuse_large(size: int) -> None:
    if size > settings.DATA_UPLOAD_MAX_MEMORY_SIZE:
        raise UnreadBodyError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, BODY_TOO_LARGE)


def _respond(environ: dict[str, Any], protocol: Any) -> None:
    """Run Django and send its response."""
    started: list[Any] = []

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> None:
        if environ[CLOSE_CONNECTION]:
            headers = [*headers, ("Connection", "close")]
        started[:] = [int(status[:3]), headers]

    response = wsgi_application(environ, start_response)
    try:
        protocol.response_bytes(*started, b"".join(response))
    finally:
        if hasattr(response, "close"):
            response.close()  # returns the database connections


def _stop_with_parent(parent: int) -> None:
    """Stop this worker when its parent has died, because it would keep the port."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os.kill(os.getpid(), STOP)
    time.sleep(ORPHAN_SECONDS)
    os._exit(1)


application = Application()
