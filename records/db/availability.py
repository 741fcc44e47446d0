"""Classify database errors and detect read-only databases, alike on PostgreSQL and SQLite."""

import logging
import os
import re
import sqlite3
from collections.abc import Callable
from typing import Any, TypeVar

from django.db import DatabaseError, Error, InterfaceError, OperationalError
from django.db.backends.base.base import BaseDatabaseWrapper

logger = logging.getLogger(__name__)

R = TypeVar("R")

CONNECTION_FAILED = "08000"
INSUFFICIENT_PRIVILEGE = "42501"
DEADLOCK = "40P01"

#: SQLite result code (https://www.sqlite.org/rescode.html) → SQLSTATE of the same error on PostgreSQL.
SQLITE_STATES = {
    "SQLITE_BUSY": "55P03",
    "SQLITE_CANTOPEN": "08001",
    "SQLITE_CORRUPT": "XX001",
    "SQLITE_FULL": "53100",
    "SQLITE_INTERRUPT": "57014",
    "SQLITE_IOERR": "58030",
    "SQLITE_LOCKED": "55P03",
    "SQLITE_NOMEM": "53200",
    "SQLITE_NOTADB": "XX001",
    "SQLITE_PERM": "08001",
    "SQLITE_PROTOCOL": "55P03",
    "SQLITE_READONLY": "25006",
}
#: Start of the message → SQLSTATE, for errors that share SQLite's generic code SQLITE_ERROR.
SQLITE_MESSAGES = {
    r"no such table": "42P01",
    r"no such column|table \S+ has no column": "42703",
    r"Expression tree is too large|too many|LIKE or GLOB pattern too complex|parser stack overflow": "54001",
}


def sqlstate(error: BaseException) -> str:
    """Return the five-character SQLSTATE of an error from Django's database layer, or "" if it has none.

    See https://www.postgresql.org/docs/current/errcodes-appendix.html
    """
    cause: Any = error.__cause__ or error.__context__
    if isinstance(cause, (DatabaseError, InterfaceError)):
        return sqlstate(cause)  # the error that broke the transaction, behind a TransactionManagementError
    if isinstance(cause, sqlite3.Error) and (name := getattr(cause, "sqlite_errorname", None)):
        return _sqlite_state(name, str(cause))
    if code := getattr(cause, "pgcode", None):
        return str(code)
    # The client library reports connections that fail or break, without an SQLSTATE.
    return CONNECTION_FAILED if isinstance(error, (OperationalError, InterfaceError)) else ""


def _sqlite_state(name: str, message: str) -> str:
    if name == "SQLITE_ERROR":
        return next((state for start, state in SQLITE_MESSAGES.items() if re.match(start, message)), "")
    # The name of an extended code starts with that of the primary code: SQLITE_READONLY_DIRECTORY.
    return SQLITE_STATES.get("_".join(name.split("_")[:2]), "")


def read_with_reconnect(connection: Any, read: Callable[[], R]) -> R:
    """Return the result of `read`; if it finds that the connection of an earlier request is dead, reconnect and repeat.

    This replaces Django's `SELECT 1` before the first statement of a request. `read` must not change anything.
    """
    is_unchecked = connection.health_check_enabled and not connection.health_check_done
    if not is_unchecked or connection.connection is None or not connection.get_autocommit():
        return read()
    connection.health_check_done = True
    try:
        return read()
    except Error:
        if connection.is_usable():
            raise
        connection.close()
        return read()


def is_read_only(connection: BaseDatabaseWrapper) -> bool:
    """Return True if the database currently refuses writes. Costs one query."""
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            # Also "on" on a standby server and with default_transaction_read_only of the role or database.
            cursor.execute("SELECT current_setting('transaction_read_only') = 'on'")
            return bool(cursor.fetchone()[0])
        cursor.execute(
            "SELECT query_only, (SELECT file FROM pragma_database_list WHERE name = 'main') FROM pragma_query_only"
        )
        query_only, file = cursor.fetchone()
    if query_only or re.search(r"[?&](mode=ro|immutable=1)\b", str(connection.settings_dict["NAME"])):
        return True
    # SQLite writes its journal to the same directory. An in-memory database has no file.
    return bool(file) and not (os.access(file, os.W_OK) and os.access(os.path.dirname(file), os.W_OK))


#: SQLSTATE or its class → message of the 503 response. The longest match wins.
UNAVAILABLE = {
    "08": "The database cannot be reached at the moment. Please try again.",
    "25006": "The database is read-only at the moment: nothing was changed. Please try again later.",
    "25P03": "The database ended the transaction because it took too long. Please try again.",
    "25P04": "The database ended the transaction because it took too long. Please try again.",
    "28": "The database cannot be reached at the moment. Please try again.",
    "3D": "The database cannot be reached at the moment. Please try again.",
    "40": "Another request changed the same rows at the same time: nothing was changed. Please try again.",
    "42501": "The database does not permit this to the service. Please try again later.",
    "42703": "The database is not migrated to this version of the service yet. Please try again later.",
    "42P01": "The database is not migrated to this version of the service yet. Please try again later.",
    "53": "The database has too little memory, disk space or connections at the moment. Please try again later.",
    "53100": "The disk of the database is full: nothing was changed. Please try again later.",
    "53300": "The database has no connection left at the moment. Please try again.",
    "55006": "What was asked for is in use by another transaction. Please try again.",
    "55P03": "What was asked for is in use by another transaction. Please try again.",
    "57": "The database is restarting. Please try again.",
    "57014": "The database took too long, and the request was cancelled. Please try again.",
    "58": "The database cannot read or write its files at the moment. Please try again later.",
    "XX": "The database has an internal error. Please try again later.",
}


def unavailability(error: BaseException) -> str | None:
    """Return the message of a 503 response if the database is unavailable, else None. Log the error."""
    state = sqlstate(error)
    for length in (5, 2):
        if message := UNAVAILABLE.get(state[:length]):
            # Errors of these classes may also be bugs: log the stack trace.
            trace = error if state.startswith(("42", "XX")) else None
            logger.error("Database unavailable (%s): %s", state, str(error).strip().splitlines()[:1], exc_info=trace)
            return message
    return None
