"""Requests wait for the database at most LOCK_TIMEOUT and STATEMENT_TIMEOUT."""

import logging
import os
import sqlite3
import subprocess
import sys
from contextlib import contextmanager

import psycopg2
import pytest
from django.conf import settings
from django.db import connection
from psycopg2.extensions import parse_dsn

from config import postgresql
from conftest import Client

POSTGRESQL = connection.vendor == "postgresql"
only_postgresql = pytest.mark.skipif(not POSTGRESQL, reason="needs PostgreSQL")
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def limit(monkeypatch):
    """Return a function that sets the limits of the test connection, in milliseconds."""

    def limit(**limits: int) -> None:
        if POSTGRESQL:
            options = postgresql.limited(connection.settings_dict, **limits)["OPTIONS"]
        else:
            options = connection.settings_dict["OPTIONS"] | {"timeout": limits["lock"] / 1000}
        monkeypatch.setitem(connection.settings_dict, "OPTIONS", options)
        connection.close()

    yield limit
    connection.close()


@contextmanager
def locked(table: str):
    """Lock a table from another connection. On SQLite, lock the database for writers."""
    if POSTGRESQL:
        other = psycopg2.connect(**connection.get_connection_params())
        other.cursor().execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
    else:
        other = sqlite3.connect(connection.settings_dict["NAME"], isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        other.close()


@pytest.mark.parametrize("table", ["stocks", "users", "sessions"])
def test_locked_table_is_503_within_the_limit(make_user, limit, table):
    client = Client(make_user())
    limit(statement=5000, lock=300)
    with locked(table):
        answer = client.post("/api/v1/stocks", {"name": "AAPL", "price": 1, "quantity": 1})
    assert (answer.status_code, answer.headers["Content-Type"]) == (503, "application/problem+json")
    assert int(answer.headers["Retry-After"]) > 0
    assert "in use by another transaction" in answer.json()["detail"]
    assert client.post("/api/v1/stocks", {"name": "AAPL", "price": 1, "quantity": 1}).status_code == 201


@only_postgresql
def test_default_lock_limit_applies_to_requests(make_user):
    client = Client(make_user())
    connection.close()
    with locked("stocks"):
        assert client.get("/api/v1/stocks").status_code == 503


@only_postgresql
def test_readiness_does_not_wait_for_a_lock(client, limit):
    limit(statement=5000, lock=200)
    with locked("django_migrations"):
        answer = client.get("/health/ready")
    assert (answer.status_code, answer.json()) == (503, {"status": "unavailable", "missing": ["database"]})


@only_postgresql
def test_slow_statement_is_503(make_user, limit):
    client = Client(make_user())
    limit(statement=300, lock=300)

    def sleep(execute, sql, params, many, context):
        return execute("SELECT pg_sleep(5)", None, False, context)

    with connection.execute_wrapper(sleep):
        answer = client.get("/api/v1/stocks")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")
    assert "too long" in answer.json()["detail"]
    assert client.get("/api/v1/stocks").status_code == 200


@only_postgresql
def test_limits_need_no_query(make_user, limit, django_assert_num_queries):
    limit(statement=5000, lock=300)
    with django_assert_num_queries(1), connection.cursor() as cursor:
        cursor.execute("SHOW lock_timeout")
        assert cursor.fetchone() == ("300ms",)


def manage(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    """Run a management command on the test database."""
    parameters = connection.get_connection_params()
    url = "postgres://{user}@{host}:{port}/{dbname}".format(**{"port": 5432, "host": ""} | parameters)
    environment = {"PATH": os.environ["PATH"], "SECRET_KEY": settings.SECRET_KEY, "DATABASE_URL": url} | environment
    command = [sys.executable, "manage.py", *arguments]
    return subprocess.run(command, cwd=settings.BASE_DIR, env=environment, capture_output=True, text=True)


SHOW = (
    "from django.db import connection as c; k = c.cursor(); k.execute('SHOW statement_timeout'); print(k.fetchone()[0])"
)


@only_postgresql
def test_commands_have_no_time_limit():
    """Maintenance commands ignore a limit of one millisecond. Other connections keep theirs."""
    for command in (["dumpdata", "users"], ["purge_deleted"], ["migrate", "--verbosity", "0"], ["showmigrations"]):
        process = manage(*command, STATEMENT_TIMEOUT="0.001", LOCK_TIMEOUT="0.001")
        assert (command, process.returncode, process.stderr) == (command, 0, "")
    process = manage("shell", "-c", SHOW, STATEMENT_TIMEOUT="7")
    assert process.stdout.splitlines()[-1] == "7s"


# Poolers


@pytest.fixture
def pooler(monkeypatch):
    """Refuse the startup parameter `options`, as PgBouncer does, and return the attempted connections."""
    attempts = []

    class Connection(psycopg2.extensions.connection):
        def __init__(self, dsn: str, **kwargs):
            attempts.append(parse_dsn(dsn))
            if "options" in attempts[-1]:
                raise psycopg2.OperationalError("FATAL:  unsupported startup parameter: options")
            super().__init__(dsn, **kwargs)

    monkeypatch.setattr(postgresql, "connection", Connection)
    monkeypatch.setattr(postgresql, "_without_limits", set())
    return attempts


@only_postgresql
def test_pooler_that_refuses_timeouts_is_used_without_them(pooler, limit, client, caplog):
    limit(statement=10000, lock=3000)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert client.get("/").status_code == 200
            connection.close()
    assert ["options" in parameters for parameters in pooler] == [True, False, False]
    [warning] = [record.getMessage() for record in caplog.records if record.name == "config.postgresql"]
    assert 'ALTER ROLE "postgres" SET statement_timeout = 10000' in warning or "SET lock_timeout = 3000" in warning
    assert "password" not in warning


@only_postgresql
def test_other_connection_errors_keep_the_limits():
    parameters = connection.get_connection_params() | {"dbname": "no such database"}
    with pytest.raises(psycopg2.OperationalError, match="no such database"):
        psycopg2.connect(**parameters)
    assert not postgresql._without_limits
