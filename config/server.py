"""Granian with one listening socket that all workers share."""

import resource
import socket
import time
from typing import Any

from granian._granian import SocketHolder
from granian.http import HTTP1Settings, HTTP2Settings
from granian.server import Server

BACKLOG = 2048

#: Slow and idle connections occupy a file descriptor and memory, but no thread.
MAX_CONNECTIONS_PER_WORKER = 4096

#: File descriptors that a worker needs besides those of its clients.
OTHER_FILES = 200

HEADER_SECONDS = 10

HEADER_BYTES = 128 * 1024

#: Seconds to wait until the workers of a killed server release the port.
PORT_SECONDS = 3

HTTP1 = HTTP1Settings(header_read_timeout=HEADER_SECONDS * 1000, max_buffer_size=HEADER_BYTES)

HTTP2 = HTTP2Settings(max_headers_size=HEADER_BYTES, max_concurrent_streams=100)


def bound_socket(host: str, port: int) -> socket.socket:
    """Return a socket bound to `host` and `port`; raise OSError or OverflowError if that is impossible.

    It listens when the first worker starts. Until then connections are refused, which load balancers handle.
    """
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    deadline = time.monotonic() + PORT_SECONDS
    while True:
        try:
            listener.bind((host, port))
            return listener
        except OSError:
            if time.monotonic() > deadline:
                listener.close()
                raise
            time.sleep(0.1)


def _connections() -> int:
    """Return the number of connections of a worker, and raise the limit of file descriptors accordingly."""
    wanted = MAX_CONNECTIONS_PER_WORKER + OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    allowed = wanted if soft == resource.RLIM_INFINITY else min(wanted, soft)
    return max(1, allowed - OTHER_FILES)


class SharedSocketServer(Server):  # type: ignore[misc,valid-type]
    """A server whose workers accept connections from one queue.

    On Linux, Granian gives each worker a separate socket, and resets the connections that wait in it when the worker
    ends.
    """

    def __init__(self, listener: socket.socket, **options: Any) -> None:
        host, port = listener.getsockname()[:2]
        super().__init__(
            address=host, port=port, backlog=BACKLOG, backpressure=_connections(),
            http1_settings=HTTP1, http2_settings=HTTP2, **options,
        )  # fmt: skip
        self._listener = listener

    def _init_shared_socket(self) -> None:
        self._listener.set_inheritable(True)
        self._ssp, self._sso = None, self._listener
        self._sfd = self._listener.fileno()
        self._shd = SocketHolder(self._sfd, False, BACKLOG)  # type: ignore[call-arg]
