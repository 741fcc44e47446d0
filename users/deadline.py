"""A limit to how long talking to an outside party may take in all.

A timeout of a socket limits the wait for the next byte only: a peer that sends one byte at a time holds a thread for as
long as it likes.
"""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_present = threading.local()


class Deadline:
    """The connections that were opened in a `deadline` block."""

    def __init__(self) -> None:
        self.is_over = False
        self._lock = threading.Lock()
        self._connections: list[socket.socket] = []

    def add(self, connection: socket.socket) -> None:
        with self._lock:
            if not self.is_over:
                # A duplicate, because TLS takes the original away; shutting either down ends the connection.
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
    """Raise TimeoutError in place of the error of a connection that had to be ended after `seconds`.

    Applies to the connections that this thread opens in the block and hands to `watch`.
    """
    present = _present.deadline = Deadline()
    timer = threading.Timer(seconds, present.end)
    timer.daemon = True
    timer.start()
    try:
        yield
    except Exception:
        if present.is_over:
            raise TimeoutError(f"It took longer than {seconds:g} s.") from None
        raise
    finally:
        _present.deadline = None
        timer.cancel()
        present.close()


def watch(connection: socket.socket) -> socket.socket:
    """End `connection` when the present deadline is over."""
    present = getattr(_present, "deadline", None)
    if present is not None:
        present.add(connection)
    return connection
