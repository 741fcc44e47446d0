"""Migrations on PostgreSQL: in any schema, with a separate owner role, and while tables are in use."""

import os
import shutil
import socket
import subprocess
import sys
import time
import uuid
from contextlib import contextmanager
from urllib.parse import quote

import psycopg2
import pytest
from django.conf import settings
from django.core.management import CommandError, call_command
from django.db import IntegrityError, OperationalError, connection
from psycopg2.errors import InsufficientPrivilege, RestrictViolation

from config import postgresql
from conftest import skip_or_fail
from records.db import migrating
from records.db.migrating import owners_connection
from users.models import User

pytestmark = [
    pytest.mark.skipif(connection.vendor != "postgresql", reason="needs PostgreSQL"),
    pytest.mark.django_db(transaction=True),
]


@pytest.fixture
def database():
    """Create an empty database and return its connection parameters."""
    name = f"{connection.settings_dict['NAME']}_{uuid.uuid4().hex[:8]}"
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {connection.ops.quote_name(name)}")
    yield connection.get_connection_params() | {"dbname": name}
    with connection.cursor() as cursor:
        cursor.execute(f"DROP DATABASE {connection.ops.quote_name(name)} WITH (FORCE)")


def execute(database, *statements: str) -> list[tuple]:
    other = psycopg2.connect(**database)
    other.autocommit = True
    with other.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
        rows = cursor.fetchall() if cursor.description else []
    other.close()
    return rows


def url_of(database, query: str = "") -> str:
    address = f"{quote(str(database.get('host', '')), safe='')}:{database.get('port', 5432)}"
    user = ":".join(quote(database[name], safe="") for name in ("user", "password") if database.get(name))
    return f"postgres://{user}@{address}/{database['dbname']}?{query}"


def start(url: str, *arguments: str, **environment: str) -> subprocess.Popen:
    environment = {"PATH": os.environ["PATH"], "SECRET_KEY": settings.SECRET_KEY, "DATABASE_URL": url} | environment
    command = [sys.executable, "manage.py", *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=settings.BASE_DIR, env=environment, text=True, **pipes)


def manage(url: str, *arguments: str, **environment: str) -> str:
    command = start(url, *arguments, **environment)
    output, errors = command.communicate(timeout=300)
    assert (command.returncode, errors) == (0, "")
    return output


def schemas(database) -> set[str]:
    return {row[0] for row in execute(database, "SELECT DISTINCT schemaname FROM pg_tables WHERE tablename = 'stocks'")}


@pytest.mark.parametrize(
    ("extension", "search_path"),
    [("extensions", ""), ("public", "app"), ('"Odd schema"', "app,public"), ("app", '"$user",app')],
)
def test_migrations_find_pg_trgm_in_any_schema(database, extension, search_path):
    execute(
        database,
        "CREATE SCHEMA app",
        f"CREATE SCHEMA IF NOT EXISTS {extension}",
        f"CREATE EXTENSION pg_trgm SCHEMA {extension}",
    )
    url = url_of(database, f"options={quote(f'-csearch_path={search_path}')}" if search_path else "")
    manage(url, "migrate", "--verbosity", "0")
    assert schemas(database) == {"app" if search_path else "public"}
    manage(url, "migrate", "stocks", "zero", "--verbosity", "0")


def test_extension_is_created_in_the_schema_of_the_tables(database):
    execute(database, "CREATE SCHEMA app")
    url = url_of(database, "options=-csearch_path%3Dapp")
    manage(url, "migrate", "--verbosity", "0")
    manage(url, "loaddata", "demo", "--verbosity", "0")
    assert schemas(database) == {"app"}
    indexes = execute(
        database, "SET search_path = app", "SELECT indexdef FROM pg_indexes WHERE indexname = 'stocks_search'"
    )
    assert "gin_trgm_ops" in indexes[0][0]
    assert execute(database, "SELECT count(*) > 100 FROM app.stocks") == [(True,)]


# Real connections


def connect(url: str) -> tuple:
    """Connect as the service does with this DATABASE_URL."""
    parameters = postgresql.limited(postgresql.read_url(url), statement=5000, lock=1000)
    service = type(connection._connections["default"])(connection.settings_dict | parameters, "default")
    try:
        service.ensure_connection()
        with service.connection.cursor() as cursor:
            cursor.execute("SELECT current_database(), current_user, current_setting('search_path')")
            return cursor.fetchone()
    finally:
        if service.connection is not None:
            service.connection.close()


def test_url_with_escapes_hosts_and_options_connects(database):
    name, role, search_path = connect(url_of(database, "options=-csearch_path%3Dapp,public"))
    assert (name, role, search_path) == (database["dbname"], database["user"], "app,public")
    first_host_is_down = url_of(database).replace("@", "@127.0.0.1:1,")
    assert connect(first_host_is_down)[0] == database["dbname"]


def test_socket_directory_connects(database):
    [(directories,)] = execute(database, "SHOW unix_socket_directories")
    port = database.get("port", 5432)
    sockets = [path for path in directories.split(", ") if os.path.exists(f"{path}/.s.PGSQL.{port}")]
    if not sockets:
        pytest.skip("The server has no socket on this machine.")
    user = quote(database["user"], safe="")
    for url in (
        f"postgres://{user}@{quote(sockets[0], safe='')}:{port}/{database['dbname']}",
        f"postgres://{user}@/{database['dbname']}?host={sockets[0]}&port={port}",
    ):
        assert connect(url)[0] == database["dbname"]


def test_connect_timeout_of_the_url_is_used():
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts connections and sends nothing
        started = time.monotonic()
        with pytest.raises(OperationalError, match="timeout expired"):
            connect(f"postgres://u@127.0.0.1:{silent.getsockname()[1]}/d?connect_timeout=2")
        assert time.monotonic() - started < 5


# While tables are in use


@contextmanager
def reading(database, table: str):
    """Hold the lock of a reader whose transaction is idle."""
    reader = psycopg2.connect(**database)
    reader.cursor().execute(f"SELECT * FROM {table} LIMIT 1")
    try:
        yield
    finally:
        reader.close()


def longest_read(database, table: str, seconds: float) -> float:
    """Read the table repeatedly and return the duration of the slowest read."""
    longest, end = 0.0, time.monotonic() + seconds
    while (started := time.monotonic()) < end:
        execute(database, f"SELECT * FROM {table} LIMIT 1")
        longest = max(longest, time.monotonic() - started)
        time.sleep(0.02)
    return longest


def test_blocked_migration_does_not_block_reads(database):
    manage(url_of(database), "migrate", "--verbosity", "0")
    with reading(database, "stocks"):
        command = start(url_of(database), "migrate", "stocks", "zero", "--verbosity", "0")
        while not (line := command.stderr.readline()).startswith("A table is in use"):
            assert line, "The command has ended."
        assert longest_read(database, "stocks", 5) < 2
        assert command.poll() is None
    command.communicate(timeout=60)
    assert command.returncode == 0
    assert schemas(database) == set()


def test_first_attempt_of_a_blocked_migration_does_not_block_reads(database):
    """The first attempt times out after about one second."""
    manage(url_of(database), "migrate", "--verbosity", "0")
    with reading(database, "stocks"):
        command = start(url_of(database), "migrate", "stocks", "zero", "--verbosity", "0")
        assert longest_read(database, "stocks", 8) < 2
        assert command.poll() is None
        command.kill()
        command.communicate()


@pytest.fixture
def short_pauses(monkeypatch):
    monkeypatch.setattr(migrating, "PAUSES", (0.1, 0.1))


@pytest.mark.parametrize("table", ["audit_log", "users"])
def test_blocked_flush_fails_and_deletes_nothing(short_pauses, make_user, capsys, table):
    user = make_user()
    with reading(connection.get_connection_params(), table), pytest.raises(CommandError, match="stays in use"):
        call_command("flush", interactive=False)
    assert capsys.readouterr().err.count("Trying again") == 2
    assert User.objects.filter(pk=user.pk).exists()
    with pytest.raises(IntegrityError, match="only be added to"), connection.cursor() as cursor:
        cursor.execute("DELETE FROM audit_log")


def test_blocked_migrate_fails_with_a_message(short_pauses, monkeypatch):
    class RefusedError(Exception):
        pgcode = "55P03"

    def refuse(*args, **options):
        raise OperationalError("canceling statement due to lock timeout") from RefusedError()

    monkeypatch.setattr("django.core.management.commands.migrate.Command.handle", refuse)
    with pytest.raises(CommandError, match="stays in use"):
        call_command("migrate")


def test_other_errors_are_not_retried(monkeypatch):
    attempts = []

    def fail(*args, **options):
        attempts.append(1)
        raise OperationalError("could not extend file")

    monkeypatch.setattr("django.core.management.commands.migrate.Command.handle", fail)
    with pytest.raises(OperationalError, match="could not extend"):
        call_command("migrate")
    assert len(attempts) == 1


def test_migrations_have_only_a_lock_timeout(database):
    """The timeouts of the service do not apply to migrations."""
    limits = {"STATEMENT_TIMEOUT": "0.001", "LOCK_TIMEOUT": "0.001"}
    manage(url_of(database), "migrate", "--verbosity", "0", **limits)
    with owners_connection("default") as owner, owner.cursor() as cursor:
        cursor.execute("SELECT current_setting('statement_timeout'), current_setting('lock_timeout')")
        assert cursor.fetchone() == ("0", "0")
        with owner.schema_editor() as editor:
            cursor.execute("SELECT current_setting('statement_timeout'), current_setting('lock_timeout')")
            assert cursor.fetchone() == ("0", "1s")
            assert editor.connection is owner
    assert connection.connection is None or not connection.in_atomic_block


# Two roles


@pytest.fixture
def roles(database):
    """Return the connection parameters of the owner role and of the service role."""
    psql = shutil.which("psql") or skip_or_fail("psql is not installed.")
    owner, service = (f"{name} {uuid.uuid4().hex[:8]}" for name in ("owner", "service"))
    execute(database, f'CREATE ROLE "{owner}" LOGIN', f'ALTER DATABASE "{database["dbname"]}" OWNER TO "{owner}"')
    password = 'it\'s "secret"'
    environment = os.environ | {
        "PGHOST": database.get("host", ""),
        "PGPORT": str(database.get("port", 5432)),
        "PGUSER": database["user"],
        "PGPASSWORD": database.get("password", ""),
        "POSTGRES_PASSWORD": password,
    }
    script = str(settings.BASE_DIR / "docker" / "roles.sql")
    command = [psql, "-q", "-v", f"service={service}", "-v", f"owner={owner}", "-f", script, database["dbname"]]
    for _ in range(2):  # the script is idempotent
        subprocess.run(command, env=environment, check=True)
    yield [database | {"user": role, "password": 'it\'s "secret"'} for role in (owner, service)]
    with connection.cursor() as cursor:
        cursor.execute(f"DROP DATABASE {connection.ops.quote_name(database['dbname'])} WITH (FORCE)")
        cursor.execute(f"CREATE DATABASE {connection.ops.quote_name(database['dbname'])}")
        cursor.execute(f'DROP ROLE "{owner}"; DROP ROLE "{service}"')


REQUESTS = """
import json
from django.test import Client
person = {"username": "ada", "password": "analytical-engine-1843"}
def call(method, path, token="", **body):
    headers = {"host": "localhost"} | ({"authorization": f"Bearer {token}"} if token else {})
    answer = getattr(Client(headers=headers), method)(path, body, content_type="application/json")
    print(answer.status_code)
    return answer.json() if answer.content else {}
call("post", "/api/v1/auth/register", email="ada@example.com", **person)
token = call("post", "/api/v1/auth/login", **person)["access_token"]
stock = f"/api/v1/stocks/{call('post', '/api/v1/stocks', token, name='AAPL', price=1, quantity=1)['id']}"
call("patch", stock, token, price=2)
call("get", stock + "/history", token)
call("delete", stock, token)
call("get", "/health/ready")
"""

FORBIDDEN = [
    "ALTER TABLE stocks ADD COLUMN note text",
    "ALTER TABLE audit_log DISABLE TRIGGER ALL",
    "ALTER TABLE audit_log OWNER TO CURRENT_USER",
    "DROP TABLE stocks",
    "DROP TRIGGER audit_log_append_only ON audit_log",
    "DROP FUNCTION audit_log_refuse CASCADE",
    "CREATE OR REPLACE FUNCTION audit_log_refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
    "CREATE TRIGGER aside BEFORE INSERT ON stocks FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    "CREATE TABLE aside (id int)",
    "CREATE TEMPORARY TABLE audit_log (id int)",
    "TRUNCATE audit_log",
    "TRUNCATE stocks",
    "UPDATE audit_log SET action = 'login'",
    "UPDATE audit_log SET changes = '{}'",
    "DELETE FROM audit_log",
    "SET session_replication_role = replica",
    "ALTER DEFAULT PRIVILEGES FOR ROLE postgres GRANT ALL ON TABLES TO CURRENT_USER",
]


def test_service_works_with_a_role_that_cannot_alter_its_tables(roles):
    owner, service = roles
    url = url_of(service)
    errors = start(url, "serve", PORT="8199").communicate()[1]
    assert "MIGRATION_DATABASE_URL" in errors
    assert "permission denied" in errors
    assert "Traceback" not in errors
    manage(url, "migrate", "--verbosity", "0", MIGRATION_DATABASE_URL=url_of(owner))
    assert execute(owner, "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'") == [(owner["user"],)]
    manage(url, "migrate", "--verbosity", "0")  # without pending migrations, the service role suffices
    manage(url, "loaddata", "demo", "--verbosity", "0")
    manage(url, "purge_deleted")
    statuses = manage(url, "shell", "-c", REQUESTS, EMAIL_URL="dummymail://", LOG_LEVEL="CRITICAL").split()[-7:]
    assert statuses == ["201", "200", "201", "200", "200", "204", "200"]
    for statement in FORBIDDEN:
        with pytest.raises((InsufficientPrivilege, RestrictViolation)):
            execute(service, statement)
    manage(url, "flush", "--no-input", MIGRATION_DATABASE_URL=url_of(owner))
    manage(url, "migrate", "stocks", "zero", "--verbosity", "0", MIGRATION_DATABASE_URL=url_of(owner))
