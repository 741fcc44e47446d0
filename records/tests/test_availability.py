"""An unavailable database is answered with 503 and Retry-After, for every kind of failure."""

import contextlib
import os
import sqlite3
from pathlib import Path

import psycopg2
import pytest
from django.db import DatabaseError, OperationalError, connection, connections
from django.test import Client as Browser

from conftest import Client
from records.db.availability import UNAVAILABLE, is_read_only, sqlstate

POSTGRESQL = connection.vendor == "postgresql"
only_postgresql = pytest.mark.skipif(not POSTGRESQL, reason="asks PostgreSQL")
only_sqlite = pytest.mark.skipif(POSTGRESQL, reason="asks SQLite")

#: SQLSTATE → a word of the response. https://www.postgresql.org/docs/current/errcodes-appendix.html
STATES = {
    "08000": "reached", "08003": "reached", "08006": "reached", "25006": "read-only", "25P03": "too long",
    "28000": "reached", "28P01": "reached", "3D000": "reached", "40001": "same time", "40P01": "same time",
    "42501": "permit", "42P01": "migrated", "42703": "migrated", "53000": "too little", "53100": "disk",
    "53200": "too little", "53300": "connection left", "53400": "too little", "55006": "in use", "55P03": "in use",
    "57000": "restarting", "57014": "too long", "57P01": "restarting", "57P02": "restarting", "57P03": "restarting",
    "57P04": "restarting", "58000": "files", "58030": "files", "XX000": "internal", "XX001": "internal",
}  # fmt: skip
#: Result code of SQLite → equivalent SQLSTATE.
CODES = {
    "SQLITE_BUSY": "55P03", "SQLITE_BUSY_SNAPSHOT": "55P03", "SQLITE_LOCKED": "55P03", "SQLITE_READONLY": "25006",
    "SQLITE_READONLY_DBMOVED": "25006", "SQLITE_FULL": "53100", "SQLITE_CANTOPEN": "08000",
    "SQLITE_CANTOPEN_ISDIR": "08000", "SQLITE_CORRUPT": "XX001", "SQLITE_NOTADB": "XX001", "SQLITE_IOERR": "58030",
    "SQLITE_IOERR_WRITE": "58030", "SQLITE_NOMEM": "53200", "SQLITE_INTERRUPT": "57014",
}  # fmt: skip


def fail_as(state: str):
    """Return an execute wrapper that fails with this SQLSTATE: PostgreSQL raises it, SQLite is simulated."""

    def wrapper(execute, sql, params, many, context):
        if POSTGRESQL:
            statement = f"DO $$ BEGIN RAISE EXCEPTION 'secret of /var/lib' USING ERRCODE = '{state}'; END $$"
            # The savepoint keeps the transaction of the test usable.
            context["cursor"].cursor.execute("SAVEPOINT failing")
            try:
                return execute(statement, None, False, context)
            finally:
                context["cursor"].cursor.execute("ROLLBACK TO SAVEPOINT failing")
        name = next((name for name, equivalent in CODES.items() if equivalent == state), None)
        cause = sqlite3.OperationalError("secret of /var/lib")
        cause.sqlite_errorname = name
        with context["connection"].wrap_database_errors:
            raise cause

    return wrapper


def assert_unavailable(answer, word: str = "") -> None:
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) > 0
    assert word in answer.content.decode()
    assert not any(secret in answer.content.decode() for secret in ("secret", "/var", "SELECT", "psycopg", "sqlite"))


@pytest.mark.parametrize("state", STATES if POSTGRESQL else sorted(set(CODES.values())))
@pytest.mark.parametrize("method", ["get", "post"])
def test_database_failure_is_503_in_the_api(owner, state, method):
    with connection.execute_wrapper(fail_as(state)):
        answer = getattr(owner, method)("/api/v1/stocks", {"name": "AAPL", "price": 1, "quantity": 1})
    assert_unavailable(answer, STATES[state])
    assert answer.headers["Content-Type"] == "application/problem+json"


@pytest.fixture
def browser(superuser):
    browser = Browser(raise_request_exception=False, headers={"accept": "text/html"})
    browser.force_login(superuser.user)
    return browser


@pytest.mark.parametrize("state", ["08006", "25006", "40P01", "53100", "55P03", "57014", "57P01", "XX000"])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("get", "/admin/"),
        ("get", "/admin/stocks/stock/"),
        ("post", "/admin/stocks/stock/add/"),
        ("post", "/admin/login/"),
        ("get", "/api/v1/stocks"),
        ("get", "/api/login"),
    ],
)
def test_database_failure_is_a_page_for_browsers(browser, state, method, path):
    state = state if POSTGRESQL or state in CODES.values() else "58030"
    person = {"username": "ada", "password": "analytical-engine-1843", "name": "A", "price": 1, "quantity": 1}
    with connection.execute_wrapper(fail_as(state)):
        answer = getattr(browser, method)(path, person)
    if path == "/api/login" and answer.status_code == 200:
        return  # the login page needs no database
    assert_unavailable(answer, STATES[state])
    assert answer.headers["Content-Type"].startswith("text/html")


@pytest.mark.parametrize(
    "path", ["/account/forgot-password", "/docs", "/redoc", "/openapi.json", "/ping", "/health/live"]
)
def test_static_pages_work_without_database(browser, path):
    with connection.execute_wrapper(fail_as("08006" if POSTGRESQL else "08000")):
        assert browser.get(path, headers={"accept": "*/*"}).status_code == 200


def test_failed_statement_is_not_repeated(owner):
    statements = []

    def record(execute, *statement):
        statements.append(statement)
        return fail_as("55P03")(execute, *statement)

    for accept in ("application/json", "text/html"):
        statements.clear()
        with connection.execute_wrapper(record):
            assert_unavailable(owner.get("/api/v1/stocks", headers={"accept": accept}))
        assert len(statements) == 1


@pytest.mark.parametrize("name", CODES)
def test_sqlite_code_maps_to_sqlstate(name):
    cause = sqlite3.OperationalError("…")
    cause.sqlite_errorname = name
    error = DatabaseError("…")
    error.__cause__ = cause
    assert sqlstate(error)[:2] == CODES[name][:2]


@pytest.mark.parametrize("state", ["22012", "42601", "0A000", "P0001"])
@only_postgresql
def test_programming_error_is_not_503(owner, state):
    with connection.execute_wrapper(fail_as(state)):
        assert owner.get("/api/v1/stocks").status_code in {400, 500}


# Real failures


@contextlib.contextmanager
def read_only():
    """Let the database refuse writes as a standby server or a write-protected disk does."""
    with connection.cursor() as cursor:
        cursor.execute("SET default_transaction_read_only = on" if POSTGRESQL else "PRAGMA query_only = ON")
        try:
            yield
        finally:
            cursor.execute("RESET default_transaction_read_only" if POSTGRESQL else "PRAGMA query_only = OFF")


WRITES = [
    ("post", "/api/v1/stocks", {"name": "AAPL", "price": 1, "quantity": 1}),
    ("patch", "/api/v1/users/me", {"bio": "Hello"}),
    (
        "post",
        "/api/v1/auth/register",
        {"email": "b@example.com", "username": "bea", "password": "analytical-engine-1843"},
    ),
    ("post", "/api/v1/auth/login", {"username": "ada", "password": "wrong"}),
    ("post", "/api/v1/auth/request-password-reset", {"email": "ada@example.com"}),
    ("post", "/api/v1/auth/logout", None),
]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("method", "path", "body"), WRITES)
def test_write_to_a_read_only_database_is_503(make_user, method, path, body):
    client = Client(make_user(username="ada", email="ada@example.com"))
    with read_only():
        assert_unavailable(getattr(client, method)(path, body), "read-only")
        assert client.get("/api/v1/stocks").status_code == 200
    assert getattr(client, method)(path, body).status_code != 503


@pytest.mark.django_db(transaction=True)
def test_read_only_database_is_a_page_in_the_admin(make_user):
    browser = Browser(raise_request_exception=False, headers={"accept": "text/html"})
    browser.force_login(make_user(is_staff=True, is_superuser=True))
    with read_only():
        assert browser.get("/admin/stocks/stock/").status_code == 200
        for path in ("/admin/auth/group/add/", "/admin/logout/"):
            answer = browser.post(path, {"name": "Readers"})
            assert_unavailable(answer, "read-only")
            assert answer.headers["Content-Type"].startswith("text/html")


@pytest.mark.django_db(transaction=True)
def test_readiness_fails_while_the_database_is_read_only(client):
    with read_only():
        ready, index = client.get("/health/ready"), client.get("/")
        assert_unavailable(ready)
        assert ready.json() == {"status": "unavailable", "missing": ["writable database"]}
        assert_unavailable(index)
        assert (index.json()["status"], index.json()["database"]) == ("unhealthy", "read-only")
        assert_unavailable(client.get("/", headers={"accept": "text/html"}), "read-only")
        assert client.get("/health/live").status_code == 200
    assert client.get("/health/ready").status_code == 200


@pytest.mark.parametrize("change", ["RENAME TO away", "RENAME COLUMN price TO away"])
def test_unmigrated_database_is_503(owner, change):
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE stocks " + change)
    assert_unavailable(owner.get("/api/v1/stocks"), "not migrated")


@only_sqlite
@pytest.mark.parametrize("unwritable", ["stocks.sqlite3", "."])
def test_write_protected_file_is_detected_as_read_only(db, tmp_path, monkeypatch, unwritable):
    file = tmp_path / "stocks.sqlite3"
    database = connections.create_connection("default")
    monkeypatch.setitem(database.settings_dict, "NAME", str(file))
    assert not is_read_only(database)
    original_access = os.access
    # Root, as which the tests may run, ignores file permissions.
    monkeypatch.setattr(
        os, "access", lambda path, mode: Path(path) != tmp_path / unwritable and original_access(path, mode)
    )
    assert is_read_only(database)
    database.close()


@only_sqlite
@pytest.mark.django_db(transaction=True)
def test_full_disk_is_503(staff):
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA page_count")
        cursor.execute(f"PRAGMA max_page_count = {cursor.fetchone()[0]}")
        try:
            people = [{"username": f"full{number}", "email": f"full{number}@example.com"} for number in range(100)]
            answers = (staff.post("/api/v1/users", person | {"bio": "x" * 2000}) for person in people)
            assert_unavailable(next(answer for answer in answers if answer.status_code != 201), "disk")
        finally:
            cursor.execute("PRAGMA max_page_count = 1073741823")


@only_postgresql
@pytest.mark.django_db(transaction=True)
def test_terminated_connection_is_503(make_user):
    client = Client(make_user())

    def terminate(execute, sql, params, many, context):
        return execute("SELECT pg_terminate_backend(pg_backend_pid())", None, False, context)

    try:
        with connection.execute_wrapper(terminate):
            assert_unavailable(client.get("/api/v1/stocks"))
    finally:
        connection.close()  # the test client does not close connections after a request
    assert client.get("/api/v1/stocks").status_code == 200


@pytest.mark.parametrize("path", ["/ping", "/health/live", "/ping/", "/health/live/", "/ping?nonsense=1"])
@pytest.mark.parametrize("method", ["get", "head", "options", "post"])
def test_liveness_check_needs_no_database(browser, owner, path, method, django_assert_num_queries):
    with django_assert_num_queries(0):
        for client in (browser, owner):
            assert getattr(client, method)(path).status_code < 500


def test_constraint_violation_is_400(staff):
    assert staff.post("/api/v1/users", {"username": "twice", "email": "twice@example.com"}).status_code == 201
    assert staff.post("/api/v1/users", {"username": "twice", "email": "other@example.com"}).status_code == 400


def test_full_sqlstate_takes_precedence_over_its_class():
    assert UNAVAILABLE["57014"] != UNAVAILABLE["57"]


# Connections that died between two requests


@pytest.fixture
def next_request(transactional_db, owner):
    """Return a function that requests the owner's row as the first request does on a connection of an earlier one."""

    def request(method="get", path="/api/v1/users/me", body=None):
        connection.close_if_unusable_or_obsolete()  # as at the start of each request
        assert not connection.health_check_done
        return getattr(owner, method)(path, body)

    return request


def kill_connection():
    own_id = connection.connection.info.backend_pid
    other = connection.copy()
    with other.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s, 5000)", [own_id])
    other.close()


@only_postgresql
@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("get", "/api/v1/users/me", None),
        ("patch", "/api/v1/users/me", {"age": 30}),
        ("post", "/api/v1/auth/login", {"username": "x", "password": "y"}),
    ],
)
def test_dead_connection_is_replaced(next_request, method, path, body):
    expected = next_request(method, path, body).status_code
    kill_connection()
    assert next_request(method, path, body).status_code == expected
    assert next_request().status_code == 200


def test_living_connection_is_not_checked_before_a_read(next_request, monkeypatch):
    monkeypatch.setattr(connection, "is_usable", lambda: pytest.fail("The connection is checked."))
    assert next_request().status_code == 200


@only_postgresql
def test_database_that_stays_away_is_503(next_request, monkeypatch):
    assert next_request().status_code == 200
    kill_connection()
    monkeypatch.setattr(connection, "get_new_connection", fail_to_connect)
    assert_unavailable(next_request(), "reached")


def fail_to_connect(params):
    raise psycopg2.OperationalError("connection refused")


def test_failing_read_is_not_repeated_on_a_living_connection(next_request):
    statements = []

    def fail(execute, sql, params, many, context):
        statements.append(sql)
        raise OperationalError("canceling statement due to statement timeout")

    with connection.execute_wrapper(fail):
        assert_unavailable(next_request())
    assert len(statements) == 1
