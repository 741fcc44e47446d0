"""Tests against a running `manage.py serve`, over sockets."""

import http.client
import itertools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from django.conf import settings
from django.db import connection

from conftest import import_or_skip

ROOT = Path(settings.BASE_DIR)
PASSWORD = "nanoseconds-of-wire-1952"
#: Longer than the server needs on a busy machine, shorter than a slow client keeps a thread.
TIMEOUT = 5
KEY = "only-for-tests-4e1f0c9a7b5d83260fb17c4d9ae2553f8061bd7c"


def is_true_soon(condition: Callable[[], bool]) -> bool:
    """Return whether the condition becomes true within a minute."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with suppress(OSError):
            if condition():
                return True
        time.sleep(0.2)
    return False


class Server:
    """A running service with its own database."""

    def __init__(self, database_url: str, **environment: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.database_url = database_url
        self.environment = environment
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "manage.py", "serve"],
            cwd=ROOT,
            env=os.environ
            | {
                "DATABASE_URL": self.database_url, "SECRET_KEY": KEY, "PORT": str(self.port), "WEB_THREADS": "4",
                "DJANGO_SUPERUSER_PASSWORD": PASSWORD, "EMAIL_URL": "dummymail://",
            }
            | self.environment,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        assert is_true_soon(lambda: self.get("/health/ready").status == 200), "The server did not start."

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)

    def request(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Any:
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT)) as client:
            default_headers = {"Content-Type": "application/json"} if body is not None else {}
            client.request(method, path, None if body is None else json.dumps(body), default_headers | (headers or {}))
            response = client.getresponse()
            response.text = response.read().decode()  # type: ignore[attr-defined]
            return response

    def get(self, path: str) -> Any:
        return self.request("GET", path)

    def login(self) -> dict[str, str]:
        answer = self.request("POST", "/api/v1/auth/login", {"username": "admin", "password": PASSWORD})
        return {"Authorization": f"Bearer {json.loads(answer.text)['access_token']}"}

    def workers(self) -> list[int]:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(pid) for pid in children.split()]


@pytest.fixture(scope="module")
def database_url(django_db_setup, django_db_blocker, tmp_path_factory):
    if connection.vendor == "sqlite":
        yield f"sqlite:///{tmp_path_factory.mktemp('server') / 'db.sqlite3'}"
        return
    database = connection.settings_dict
    name = f"server_{os.getpid()}"
    address = {"host": database["HOST"], "port": database["PORT"], "user": database["USER"]}
    with closing(psycopg2.connect(dbname="postgres", password=database["PASSWORD"], **address)) as admin:
        admin.autocommit = True
        admin.cursor().execute(f"CREATE DATABASE {name}")
        password = f":{database['PASSWORD']}" if database["PASSWORD"] else ""
        yield f"postgres://{database['USER']}{password}@{database['HOST']}:{database['PORT']}/{name}"
        admin.cursor().execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="module")
def server(database_url):
    server = Server(database_url)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def credentials(server):
    return server.login()


@pytest.fixture
def stock(server, credentials):
    answer = server.request("POST", "/api/v1/stocks", {"name": "AAPL", "price": 1.5, "quantity": 3}, credentials)
    return f"/api/v1/stocks/{json.loads(answer.text)['id']}"


def price(server, credentials, stock) -> float:
    return json.loads(server.request("GET", stock, headers=credentials).text)["price"]


def head(method: str, path: str, *headers: str, **more: str) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", "Content-Type: application/json", *headers]
    return "\r\n".join([*lines, *(f"{name}: {value}" for name, value in more.items()), "", ""]).encode()


def read_response(client: socket.socket) -> tuple[int, str]:
    """Return status and body of the response on this connection, or status 0 if it was closed without one."""
    response = http.client.HTTPResponse(client)
    try:
        response.begin()
    except http.client.RemoteDisconnected:
        return 0, ""
    return response.status, response.read().decode()


# Slow clients


SLOW_REQUESTS = {
    "sized": (head("POST", "/api/v1/auth/login", "Content-Length: 1000") + b"{", b" "),
    "chunked": (head("POST", "/api/v1/auth/login", "Transfer-Encoding: chunked") + b"1\r\n{\r\n", b"1\r\n \r\n"),
    "admin": (head("POST", "/admin/login/", "Content-Length: 1000"), b"a"),
    "header": (b"GET /ping HTTP/1.1\r\nHos", b"t"),
    "silent": (head("POST", "/api/v1/auth/login", "Content-Length: 10") + b"{", b""),
}


@pytest.fixture(scope="module")
def slow_responses(server):
    """The responses to 200 clients that send a byte per second, or nothing, for 12 seconds, while others are served."""
    with ExitStack() as open_sockets:
        clients = [
            (kind, open_sockets.enter_context(server.connect()))
            for kind in SLOW_REQUESTS
            for _ in range(200 // len(SLOW_REQUESTS))
        ]
        for kind, client in clients:
            client.sendall(SLOW_REQUESTS[kind][0])
        started = time.monotonic()
        while time.monotonic() - started < 12:
            for path in ("/ping", "/health/ready", "/api/v1"):
                assert server.get(path).status == 200
            for kind, client in clients:
                with suppress(OSError):  # closed by the server already
                    client.sendall(SLOW_REQUESTS[kind][1])
            time.sleep(1)
        return [(kind, *read_response(client)) for kind, client in clients]


def test_slow_clients_are_disconnected_without_blocking_others(slow_responses):
    answers = {(kind, status) for kind, status, _ in slow_responses}
    assert answers == {("sized", 408), ("chunked", 408), ("admin", 408), ("header", 0), ("silent", 408)}


def test_slow_body_is_408(slow_responses):
    details = {json.loads(body)["detail"] for kind, _, body in slow_responses if kind in {"sized", "silent"}}
    assert details == {"The request body did not arrive within 10 seconds."}


# Framing


@pytest.mark.parametrize("length", [None, 14])
def test_http2_body_is_read(server, credentials, stock, length):
    config, connection, events = (import_or_skip(f"h2.{name}") for name in ("config", "connection", "events"))
    body = b'{"price": 2.5}'
    pairs = [(":method", "PATCH"), (":scheme", "http"), (":authority", "localhost"), (":path", stock)]
    pairs += [("content-type", "application/json"), ("authorization", credentials["Authorization"])]
    pairs += [("content-length", str(length))] if length else []
    with server.connect() as client:
        http2 = connection.H2Connection(config.H2Configuration(header_encoding="utf-8"))
        http2.initiate_connection()
        http2.send_headers(1, pairs)
        http2.send_data(1, body, end_stream=True)
        client.sendall(http2.data_to_send())
        status = None
        while status is None:
            for event in http2.receive_data(client.recv(65536)):
                if isinstance(event, events.ResponseReceived):
                    status = dict(event.headers)[":status"]
    assert status == "200"
    assert price(server, credentials, stock) == 2.5


@pytest.mark.parametrize("length", ["", "\r\nContent-Length: 3"])
def test_chunked_body_is_read(server, credentials, stock, length):
    """Transfer-Encoding wins over Content-Length (RFC 9112, section 6.3)."""
    with server.connect() as client:
        client.sendall(head("PATCH", stock, f"Transfer-Encoding: chunked{length}", **credentials))
        client.sendall(b'8\r\n{"price"\r\n6\r\n: 2.5}\r\n0\r\n\r\n')
        assert read_response(client)[0] == 200
    assert price(server, credentials, stock) == 2.5


@pytest.mark.parametrize(
    ("framing", "body", "is_truncated"),
    [
        ("Content-Length: 40", b'{"price": 2.5}', True),
        ("Transfer-Encoding: chunked", b'e\r\n{"price": 2.5}\r\n', True),
        ("Transfer-Encoding: chunked", b'e\r\n{"price": 2.5}\r\nZZ\r\n', False),
        ("Transfer-Encoding: chunked\r\nTrailer: X-End", b'e\r\n{"price": 2.5}\r\n0\r\nX-End: 1\r\n\r\n', False),
        ("Transfer-Encoding: gzip", b'{"price": 2.5}', False),
        ("Content-Length: 3\r\nContent-Length: 14", b'{"price": 2.5}', False),
        ("Content-Length: +14", b'{"price": 2.5}', False),
    ],
)
def test_incomplete_or_ambiguous_body_is_refused(server, credentials, stock, framing, body, is_truncated):
    with server.connect() as client:
        client.sendall(head("PATCH", stock, framing, **credentials) + body)
        if is_truncated:
            client.shutdown(socket.SHUT_WR)
        assert read_response(client)[0] == 400
    assert price(server, credentials, stock) == 1.5


@pytest.mark.parametrize("path", ["/api/v1/stocks", "/admin/login/", "/nowhere"])
@pytest.mark.parametrize("framing", ["Content-Length: 2000000", "Transfer-Encoding: chunked"])
def test_large_body_is_413_everywhere(server, path, framing):
    with server.connect() as client:
        client.sendall(head("POST", path, framing))
        if "chunked" in framing:
            client.sendall(b"1e8480\r\n" + b"a" * 2_000_000)
        status, body = read_response(client)
    assert (status, json.loads(body)["detail"]) == (413, "The request body is larger than 1 MiB.")


def test_header_with_an_underscore_is_ignored(server):
    answer = server.request("GET", "/ping", headers={"X_Request_ID": "spoofed"})
    assert answer.headers["X-Request-ID"] != "spoofed"


# Processes


def lock_users(database_url: str) -> Any:
    """Return a connection that blocks writes, and on PostgreSQL reads, of users until it is closed."""
    if database_url.startswith("sqlite"):
        import sqlite3

        locker: Any = sqlite3.connect(database_url.removeprefix("sqlite:///"), isolation_level=None)
        locker.execute("BEGIN EXCLUSIVE")
        return locker
    locker = psycopg2.connect(database_url)
    locker.cursor().execute("LOCK TABLE users IN ACCESS EXCLUSIVE MODE")
    return locker


def test_liveness_is_ok_while_all_threads_wait_for_the_database(server, database_url):
    registration = {"email": "wait@example.com", "username": "wait", "password": PASSWORD}
    requests = [
        threading.Thread(target=server.request, args=("POST", "/api/v1/auth/register", registration), daemon=True)
        for _ in range(8)
    ]
    with closing(lock_users(database_url)):
        for request in requests:
            request.start()
        time.sleep(1)
        assert server.get("/ping").status == server.get("/health/live/").status == 200
        assert any(request.is_alive() for request in requests)
    for request in requests:
        request.join()


def test_api_responds_while_some_requests_wait_for_the_database(database_url):
    server = Server(database_url, WEB_THREADS="")  # the default
    registration = {"email": "queue@example.com", "username": "queue", "password": PASSWORD}
    with ExitStack() as closing_server:
        closing_server.callback(server.stop)
        locker = closing_server.enter_context(closing(lock_users(database_url)))
        clients = [closing_server.enter_context(server.connect()) for _ in range(5)]
        body = json.dumps(registration)
        for client in clients:
            client.sendall(head("POST", "/api/v1/auth/register", f"Content-Length: {len(body)}") + body.encode())
        time.sleep(0.5)
        assert server.get("/api/v1").status == 200
        assert not select.select(clients, [], [], 0)[0], "A request did not wait."
        locker.close()


def test_api_responds_while_all_sign_ins_wait_for_a_provider(database_url):
    with ExitStack() as closing_provider:
        provider = closing_provider.enter_context(socket.create_server(("127.0.0.1", 0)))  # accepts and never responds
        provider.settimeout(30)
        url = f"http://127.0.0.1:{provider.getsockname()[1]}/"
        options = {"CLIENT_ID": "stocks", "CLIENT_SECRET": "secret", "DISCOVERY_URL": url}
        server = Server(database_url, **{f"OAUTH_SLOW_{name}": value for name, value in options.items()})
        closing_provider.callback(server.stop)
        sign_ins = [closing_provider.enter_context(server.connect()) for _ in range(12)]
        for sign_in in sign_ins:
            sign_in.sendall(head("GET", "/api/v1/auth/oauth/slow/login"))
        for _ in range(4):
            closing_provider.enter_context(provider.accept()[0])
        assert server.get("/api/v1").status == server.get("/health/ready").status == 200
        assert {read_response(sign_in)[0] for sign_in in sign_ins} == {502}


def test_reload_loses_no_request(server):
    failures: list[Any] = []
    is_finished = threading.Event()

    def send_requests(keeps_connection: bool) -> None:
        client = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        headers = {} if keeps_connection else {"Connection": "close"}
        is_repeated = False
        while not is_finished.is_set():
            try:
                client.request("GET", "/ping", headers=headers)
                response = client.getresponse()
                response.read()
                is_repeated = False
                if response.status != 200:
                    failures.append(response.status)
            except (OSError, http.client.HTTPException) as error:
                # A worker that ends closes connections on which it has read no request yet. Clients repeat a request
                # that was not responded to (RFC 9112, section 9.3.1).
                if is_repeated or not isinstance(error, http.client.RemoteDisconnected | ConnectionError):
                    failures.append(error)
                client.close()
                is_repeated = True
        client.close()

    clients = [threading.Thread(target=send_requests, args=(number % 2 == 0,)) for number in range(4)]
    for client in clients:
        client.start()
    before = server.workers()
    os.kill(server.process.pid, signal.SIGHUP)
    is_replaced = is_true_soon(lambda: not set(server.workers()) & set(before))
    is_finished.set()
    for client in clients:
        client.join()
    assert is_replaced
    assert failures == []


# Safe writes, by two processes


@pytest.fixture(scope="module")
def two_workers(database_url):
    server = Server(database_url, WEB_WORKERS="2", THROTTLE_USER="100000/min")
    yield server
    server.stop()


def responses(server, method, path, body=None, **headers):
    """Yield the responses to a request, which is repeated while there is none, as clients do."""
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    while server.process.poll() is None:
        with suppress(OSError, http.client.HTTPException):
            answer = server.request(method, path, body, headers)
            if answer.status not in {409, 503}:
                yield answer
        time.sleep(0.01)


def first_response(*args, **headers):
    return next(responses(*args, **headers))


def increment(server, path, headers, keys):
    """Add 1 to the quantity, as often as it takes."""
    status = 412
    while status == 412:
        row = first_response(server, "GET", path, **headers)
        body = {"quantity": json.loads(row.text)["quantity"] + 1}
        condition = headers | {"If_Match": row.headers["ETag"], "Idempotency_Key": next(keys)}
        status = first_response(server, "PATCH", path, body, **condition).status
    assert status == 200


def in_threads(operation, count):
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(lambda _: operation(), range(count)))


def test_concurrent_increments_through_two_workers_lose_nothing(two_workers):
    headers = two_workers.login()
    body = {"name": "AAPL", "price": 1.5, "quantity": 1}
    path = first_response(two_workers, "POST", "/api/v1/stocks", body, **headers).headers["Location"]
    keys = map(str, itertools.count())
    in_threads(lambda: [increment(two_workers, path, headers, keys) for _ in range(10)], 4)
    assert json.loads(first_response(two_workers, "GET", path, **headers).text)["quantity"] == 41


def test_write_is_done_once_although_workers_are_killed(two_workers):
    headers = two_workers.login()
    body = {"name": f"K{os.getpid() % 10**6}", "price": 1.5, "quantity": 1}
    keys = [f"killed-{number}" for number in range(30)]
    queue = enumerate(keys * 2)

    def post():
        for position, key in queue:
            if position == len(keys):  # once, because Granian ends when workers die too often
                for worker in two_workers.workers():
                    os.kill(worker, signal.SIGKILL)
            yield key, first_response(two_workers, "POST", "/api/v1/stocks", body, Idempotency_Key=key, **headers)

    answers = [answer for group in in_threads(lambda: list(post()), 4) for answer in group]
    ids = {key: {json.loads(answer.text)["id"] for known, answer in answers if known == key} for key in keys}
    assert all(len(found) == 1 for found in ids.values())
    page = first_response(two_workers, "GET", f"/api/v1/stocks?name={body['name']}&size=1", **headers)
    assert json.loads(page.text)["total"] == len(keys)


def is_running(pid: int) -> bool:
    """Return False also for a zombie, which stays where the first process of a container does not reap it."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def test_workers_end_with_their_parent_and_release_the_port(database_url):
    server = Server(database_url, WEB_WORKERS="2")
    workers = server.workers()
    assert len(workers) >= 2
    server.process.kill()
    server.process.wait()
    server.start()
    try:
        assert is_true_soon(lambda: not any(is_running(pid) for pid in workers))
        assert is_true_soon(lambda: server.get("/ping").status == 200)
    finally:
        server.stop()
