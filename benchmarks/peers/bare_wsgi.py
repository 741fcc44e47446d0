"""The limit for a service in Python with threads: a WSGI function, psycopg2 and orjson, without a framework.

It runs the statements with which this service reads and writes rows of users and stocks, and nothing else. It checks no
token, validates nothing and writes no audit log.
"""

import os
import re
import threading
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

import orjson
import psycopg2

#: Owner of new stocks, because the peers do not authenticate.
OWNER_ID = int(os.environ["OWNER_ID"])
DEFAULT_SIZE = 20

STOCK_COLUMNS = "id, name, price, quantity, is_active, owner_id AS user_id, created_at, updated_at, version"
USER_COLUMNS = (
    "id, username, email, name, gender, age, bio, phone_number, is_active, is_verified, is_staff, is_superuser, "
    "oauth_provider, created_at, updated_at, version"
)
LIST = f"SELECT {STOCK_COLUMNS} FROM stocks WHERE deleted_at IS NULL ORDER BY id LIMIT %s"
ONE = f"SELECT {STOCK_COLUMNS} FROM stocks WHERE deleted_at IS NULL AND id = %s LIMIT 1"
USER = f"SELECT {USER_COLUMNS} FROM users WHERE deleted_at IS NULL AND id = %s LIMIT 1"
OF_USER = f"""
    SELECT {STOCK_COLUMNS}, (SELECT COUNT(*) FROM stocks WHERE deleted_at IS NULL AND owner_id = %s) AS total
    FROM stocks WHERE deleted_at IS NULL AND owner_id = %s ORDER BY id LIMIT %s
"""
CREATE = f"""
    INSERT INTO stocks (created_at, updated_at, version, deletion_reason, owner_id, name, price, quantity, is_active)
    VALUES (%s, %s, 1, '', %s, %s, %s, %s, true) RETURNING {STOCK_COLUMNS}
"""

_local = threading.local()


def query(sql: str, *parameters: Any) -> list[dict[str, Any]]:
    """Run a statement on the connection of this thread and return its rows."""
    if not hasattr(_local, "connection"):
        _local.connection = psycopg2.connect(os.environ["DATABASE_URL"])
        _local.connection.autocommit = True
    with _local.connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        names = [column.name for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def list_stocks(environ: dict[str, Any]) -> Any:
    size = int(environ["QUERY_STRING"].removeprefix("size=") or DEFAULT_SIZE)
    return {"items": query(LIST, size + 1)[:size]}


def read_stock(environ: dict[str, Any], stock_id: str) -> Any:
    return query(ONE, int(stock_id))[0]


def create_stock(environ: dict[str, Any]) -> Any:
    body = orjson.loads(environ["wsgi.input"].read())
    now = datetime.now(UTC)
    return query(CREATE, now, now, OWNER_ID, body["name"], body["price"], body["quantity"])[0]


def read_user(environ: dict[str, Any], user_id: str) -> Any:
    user = query(USER, int(user_id))[0]
    stocks, total = _stocks_of(user_id, 100)
    return user | {"stocks": stocks, "stocks_total": total}


def read_user_stocks(environ: dict[str, Any], user_id: str) -> Any:
    stocks, total = _stocks_of(user_id, DEFAULT_SIZE)
    return {"items": stocks, "total": total}


def _stocks_of(user_id: str, limit: int) -> tuple[list[dict[str, Any]], int]:
    stocks = query(OF_USER, int(user_id), int(user_id), limit)
    totals = [stock.pop("total") for stock in stocks]
    return stocks, totals[0] if totals else 0


ROUTES: list[tuple[str, re.Pattern[str], str, Callable[..., Any]]] = [
    ("GET", re.compile(r"/stocks"), "200 OK", list_stocks),
    ("GET", re.compile(r"/stocks/(\d+)"), "200 OK", read_stock),
    ("POST", re.compile(r"/stocks"), "201 Created", create_stock),
    ("GET", re.compile(r"/users/(\d+)"), "200 OK", read_user),
    ("GET", re.compile(r"/users/(\d+)/stocks"), "200 OK", read_user_stocks),
]


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    for method, pattern, status, view in ROUTES:
        match = pattern.fullmatch(environ["PATH_INFO"])
        if match and method == environ["REQUEST_METHOD"]:
            # Decimals become numbers, as in the responses of this service.
            body = orjson.dumps(view(environ, *match.groups()), default=float, option=orjson.OPT_UTC_Z)
            start_response(status, [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
            return [body]
    start_response("404 Not Found", [("Content-Length", "0")])
    return [b""]
