"""A limit to the total time of a conversation with a remote server.

The timeout of a socket limits only the wait for the next byte: a server that sends single bytes could hold a thread
indefinitely.
"""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_current = threading.local()


class Deadline:
    """The connections that were opened in a `deadline` block."""

    def __init__(self) -> None:
        self.is_over = False
        self._lock = threading.Lock()
        self._connections: list[socket.socket] = []

    def add(self, connection: socket.socket) -> None:
        with self._lock:
            if not self.is_over:
                # Keep a duplicate, because TLS detaches the original; shutting either down ends the connection.
                self._connections.append(connection.dup())
                return
        connection.close()
        raise TimeoutError

    def end(self) -> None:
        with self._lock:
            self.is_over = True
            for connection in self._connections:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with self._lock:
            for connection in self._connections:
                connection.close()
            self._connections.clear()


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Shut down the connections of this block after `seconds` and raise TimeoutError for the error that follows.

    The connections are those that this thread opens in the block and passes to `watch`.
    """
    current = _current.deadline = Deadline()
    timer = threading.Timer(seconds, current.end)
    timer.daemon = True
    timer.start()
    try:
        yield
    except Exception:
        if current.is_over:
            raise TimeoutError(f"The conversation took longer than {seconds:g} s.") from None
        raise
    finally:
        _current.deadline = None
        timer.cancel()
        current.close()


def watch(connection: socket.socket) -> socket.socket:
    """Shut down `connection` when the current deadline expires."""
    current = getattr(_current, "deadline", None)
    if current is not None:
        current.add(connection)
    return connection
