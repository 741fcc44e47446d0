"""The tables may be in any schema that the URL's search_path names, and pg_trgm in any other."""

import os
import subprocess
import sys
import uuid
from urllib.parse import quote

import psycopg2
import pytest
from django.conf import settings
from django.db import connection

pytestmark = [
    pytest.mark.skipif(connection.vendor != "postgresql", reason="asks PostgreSQL"),
    pytest.mark.django_db(transaction=True),
]


@pytest.fixture
def database():
    """The connection parameters of a new, empty database."""
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


def manage(database, *arguments: str, query: str = "") -> None:
    address = f"{quote(str(database.get('host', '')), safe='')}:{database.get('port', 5432)}"
    user = ":".join(quote(database[name], safe="") for name in ("user", "password") if database.get(name))
    url = f"postgres://{user}@{address}/{database['dbname']}?{query}"
    environment = {"PATH": os.environ["PATH"], "SECRET_KEY": settings.SECRET_KEY, "DATABASE_URL": url}
    command = [sys.executable, "manage.py", *arguments]
    done = subprocess.run(command, cwd=settings.BASE_DIR, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def schemas(database) -> set[str]:
    return {row[0] for row in execute(database, "SELECT DISTINCT schemaname FROM pg_tables WHERE tablename = 'stocks'")}


@pytest.mark.parametrize(
    ("extension", "search_path"),
    [("extensions", ""), ("public", "app"), ('"Odd schema"', "app,public"), ("app", '"$user",app')],
)
def test_migrations_find_trigrams_wherever_they_are(database, extension, search_path):
    execute(
        database,
        "CREATE SCHEMA app",
        f"CREATE SCHEMA IF NOT EXISTS {extension}",
        f"CREATE EXTENSION pg_trgm SCHEMA {extension}",
    )
    query = f"options={quote(f'-csearch_path={search_path}')}" if search_path else ""
    manage(database, "migrate", "--verbosity", "0", query=query)
    assert schemas(database) == {"app" if search_path else "public"}
    manage(database, "migrate", "stocks", "zero", "--verbosity", "0", query=query)


def test_extension_is_made_where_the_tables_are(database):
    execute(database, "CREATE SCHEMA app")
    manage(database, "migrate", "--verbosity", "0", query="options=-csearch_path%3Dapp")
    manage(database, "loaddata", "demo", "--verbosity", "0", query="options=-csearch_path%3Dapp")
    assert schemas(database) == {"app"}
    found = execute(
        database, "SET search_path = app", "SELECT indexdef FROM pg_indexes WHERE indexname = 'stocks_search'"
    )
    assert "gin_trgm_ops" in found[0][0]
    assert execute(database, "SELECT count(*) > 100 FROM app.stocks") == [(True,)]
