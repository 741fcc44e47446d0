"""Changing tables of PostgreSQL while others use them.

An ALTER TABLE waits for every transaction that has read the table, and every later read waits behind it. So it waits
for a second only, gives way, and is tried again.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self

from django.conf import settings
from django.core.management.base import CommandError
from django.db import Error, OperationalError, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.postgresql.schema import DatabaseSchemaEditor

from records.db.availability import sqlstate

#: Seconds to let others go on before each new attempt: about a minute altogether.
PAUSES = (1, 1, 2, 4, 8, 8, 8, 8, 8)
#: A lock that was not to be had in time, and a deadlock.
IN_USE = {"55P03", "40P01"}


def limit_lock_waits(connection: BaseDatabaseWrapper) -> None:
    """Let the present transaction wait for a lock for a second only, and run as long as it needs."""
    with connection.cursor() as cursor:
        # For this transaction only: a pooler may give the connection to somebody else after it.
        cursor.execute("SET LOCAL lock_timeout = '1s'; SET LOCAL statement_timeout = 0")


class SchemaEditor(DatabaseSchemaEditor):
    """Waits for a lock for a second only; not outside of a transaction, where a failed index would stay behind."""

    def __enter__(self) -> Self:
        editor = super().__enter__()
        if self.atomic_migration:
            limit_lock_waits(self.connection)
        return editor


@contextmanager
def owners_connection(alias: str) -> Iterator[BaseDatabaseWrapper]:
    """Replace the connection `alias` by one that may change tables (MIGRATION_DATABASE_URL) and has no limits.

    On SQLite, and inside of a transaction, it stays as it is.
    """
    service: Any = connections[alias]
    if service.vendor != "postgresql" or service.in_atomic_block:
        yield service
        return
    service.close()
    owner: Any = type(service)(service.settings_dict | settings.MIGRATION_DATABASE, alias)
    owner.SchemaEditorClass = SchemaEditor
    connections[alias] = owner
    try:
        _connect(owner)
        yield owner
    finally:
        owner.close()
        connections[alias] = service


def _connect(owner: BaseDatabaseWrapper) -> None:
    try:
        owner.ensure_connection()
    except Error as error:
        if "NAME" not in settings.MIGRATION_DATABASE:
            raise
        reason = " ".join(str(error).split())
        raise CommandError(f"The database cannot be used, see MIGRATION_DATABASE_URL: {reason}") from None


def retry_while_in_use(run: Callable[[], object], tell: Callable[[str], object]) -> None:
    """Run something that rolls back as a whole, again and again while others hold the locks that it needs.

    Raises CommandError when it gives up.
    """
    for pause in PAUSES:
        try:
            run()
            return
        except OperationalError as error:
            if sqlstate(error) not in IN_USE:
                raise
            tell(f"A table is in use by another transaction. Trying again in {pause} s.")
            time.sleep(pause)
    try:
        run()
    except OperationalError as error:
        if sqlstate(error) not in IN_USE:
            raise
        raise CommandError(
            "A table stays in use by another transaction: what was not done yet is left undone. End that transaction "
            "and run the command again. To find it: SELECT pid, usename, state, query FROM pg_stat_activity "
            "WHERE xact_start < now() - interval '5 seconds'"
        ) from None
