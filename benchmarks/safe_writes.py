"""Count lost and doubled writes of clients that write the same rows at once, over connections that break.

    python benchmarks/safe_writes.py [--writes 10000] [--sqlite]

It starts a server with two workers, on a temporary PostgreSQL server or a SQLite file, and kills a worker every five
seconds. Eight clients each read a row, add 1 to its quantity and write it with If-Match. Then they create rows with an
Idempotency-Key, each key by two clients at once, and close every fifth connection before the response arrives. A
request without a response is repeated.
"""

import argparse
import http.client
import json
import os
import random
import secrets
import signal
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any

from postgres import temporary_server
from servers import THIS_SERVICE, running

CLIENTS = 8
KILL_SECONDS = 5
PAIRS = CLIENTS // 2
#: No response, a key that is in use, a service that is not available: the request is sent again.
UNANSWERED = {0, HTTPStatus.CONFLICT, HTTPStatus.SERVICE_UNAVAILABLE}
#: Of a hundred keyed requests, how many do not wait for their response.
ABORTED = 20
PASSWORD = secrets.token_urlsafe(16)
STOCKS = "/api/v1/stocks"
STOCK = {"name": "AAPL", "price": 1, "quantity": 1}


class Client:
    """A client that connects again whenever its connection breaks."""

    def __init__(self, port: int, token: str = "") -> None:
        self._port = port
        self._headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
        self._connection: http.client.HTTPConnection | None = None

    def send(
        self, method: str, path: str, body: Any = None, *, aborts: bool = False, **headers: str
    ) -> tuple[int, Any, Any]:
        """Return status, body and headers of the response; status 0 if there is none."""
        if self._connection is None:
            self._connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            self._connection.request(method, path, body and json.dumps(body), self._headers | named)
            if aborts:
                raise ConnectionAbortedError
            response = self._connection.getresponse()
            text = response.read()
            return response.status, json.loads(text) if text else None, response.headers
        except (OSError, http.client.HTTPException):
            self._connection.close()
            self._connection = None
            return 0, None, {}


def increment(client: Client, path: str, codes: Counter[Any]) -> None:
    """Add 1 to the quantity of the row, once: by reading it again if others changed it meanwhile."""
    status = HTTPStatus.PRECONDITION_FAILED
    while status == HTTPStatus.PRECONDITION_FAILED:
        read, row, headers = client.send("GET", path)
        if read != HTTPStatus.OK:
            continue
        conditions = {"If_Match": headers["ETag"], "Idempotency_Key": secrets.token_urlsafe(12)}
        status = 0
        while status in UNANSWERED:
            status, _, _ = client.send("PATCH", path, {"quantity": row["quantity"] + 1}, **conditions)
            codes[status] += 1
    assert status == HTTPStatus.OK, status


def create(client: Client, key: str, codes: Counter[Any]) -> None:
    """Create a row with this key, and repeat the request until it is answered."""
    status = 0
    while status in UNANSWERED:
        aborts = random.randrange(100) < ABORTED
        status, _, headers = client.send("POST", STOCKS, STOCK, aborts=aborts, Idempotency_Key=key)
        codes[status if "Idempotent-Replayed" not in headers else "replayed"] += 1
    assert status == HTTPStatus.CREATED, status


def together(work: Callable[[int], None], times: int) -> None:
    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(lambda number: [work(number) for _ in range(times)], range(CLIENTS)))


@contextmanager
def killed_workers(pid: int) -> Iterator[list[int]]:
    """Kill a worker every few seconds; yield the list of those that were killed."""
    killed: list[int] = []
    ended = threading.Event()

    def kill() -> None:
        while not ended.wait(KILL_SECONDS):
            workers = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            with suppress(ProcessLookupError, IndexError):
                worker = int(random.choice(workers))
                os.kill(worker, signal.SIGKILL)
                killed.append(worker)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield killed
    finally:
        ended.set()
        thread.join()


def measure(url: str, writes: int) -> None:
    environment = {"DATABASE_URL": url, "SECRET_KEY": secrets.token_urlsafe(64), "EMAIL_URL": "dummymail://",
                   "DJANGO_SUPERUSER_PASSWORD": PASSWORD, "LOG_LEVEL": "CRITICAL"}  # fmt: skip
    with running(THIS_SERVICE, environment) as server:
        login = {"username": "admin", "password": PASSWORD}
        _, tokens, _ = Client(server.port).send("POST", "/api/v1/auth/login", login)
        clients = [Client(server.port, tokens["access_token"]) for _ in range(CLIENTS)]
        _, row, _ = clients[0].send("POST", STOCKS, STOCK)
        path, times = f"{STOCKS}/{row['id']}", writes // CLIENTS
        codes: Counter[Any] = Counter()
        with killed_workers(server.pid) as killed:
            together(lambda number: increment(clients[number], path, codes), times)
            _, after, _ = clients[0].send("GET", path)
        while after is None:
            _, after, _ = clients[0].send("GET", path)
        report("increments with If-Match and a key", times * CLIENTS, after["quantity"] - 1, codes, len(killed))
        before = count(clients[0])
        keys = [secrets.token_urlsafe(12) for _ in range(times * CLIENTS // 2)]
        queues = [iter(keys[number % PAIRS :: PAIRS]) for number in range(CLIENTS)]
        codes = Counter()
        with killed_workers(server.pid) as killed:
            together(lambda number: create(clients[number], next(queues[number]), codes), len(keys) // PAIRS)
        report(
            "creations with a key, each sent by two clients", len(keys), count(clients[0]) - before, codes, len(killed)
        )


def count(client: Client) -> int:
    while True:
        status, page, _ = client.send("GET", f"{STOCKS}?size=1&count=exact")
        if status == 200:
            return int(page["total"])


def report(name: str, expected: int, found: int, codes: Counter[Any], killed: int) -> None:
    """Print how many writes were lost and doubled, and the responses; 0 is a request without one."""
    print(f"{name}: {expected:,} writes, {max(0, expected - found)} lost, {max(0, found - expected)} doubled")
    described = ", ".join(f"{number:,} × {code!s}" for code, number in codes.most_common())
    print(f"    responses: {described}; {killed} workers were killed", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--writes", type=int, default=10_000)
    parser.add_argument("--sqlite", action="store_true", help="Use a SQLite file.")
    options = parser.parse_args()
    if options.sqlite:
        with tempfile.TemporaryDirectory() as folder:
            measure(f"sqlite:///{folder}/db.sqlite3", options.writes)
        return
    with temporary_server() as postgres:
        measure(postgres.create_database("safe_writes"), options.writes)


if __name__ == "__main__":
    sys.exit(main())
