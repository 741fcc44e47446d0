"""Change PostgreSQL tables that are in use.

An ALTER TABLE waits for every transaction that has read the table, and blocks all later reads until then. Therefore it
waits for one second only, fails, and is retried after a pause.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self

from django.conf import settings
from django.contrib.postgres.operations import AddIndexConcurrently
from django.core.management.base import CommandError
from django.db import Error, OperationalError, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.postgresql.schema import DatabaseSchemaEditor
from django.db.migrations.operations import AddIndex

from records.db.availability import sqlstate

#: Seconds to pause before each retry, so that blocked requests can proceed: about a minute in total.
PAUSES = (1, 1, 2, 4, 8, 8, 8, 8, 8)
#: SQLSTATE of a lock timeout and of a deadlock.
IN_USE = {"55P03", "40P01"}


def limit_lock_waits(connection: BaseDatabaseWrapper) -> None:
    """Limit lock waits of the current transaction to one second, and lift its statement timeout."""
    with connection.cursor() as cursor:
        # LOCAL, because a pooler may reuse the connection for another client after the transaction.
        cursor.execute("SET LOCAL lock_timeout = '1s'; SET LOCAL statement_timeout = 0")


class SchemaEditor(DatabaseSchemaEditor):
    """Limit lock waits inside transactions. Outside of one, a timeout would leave an invalid index behind."""

    def __enter__(self) -> Self:
        editor = super().__enter__()
        if self.atomic_migration:
            limit_lock_waits(self.connection)
        return editor


class AddIndexInUse(AddIndexConcurrently):
    """Create an index without blocking writes of a table, in a migration with `atomic = False`.

    An index that an interrupted attempt has left behind is replaced.
    """

    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        if schema_editor.connection.vendor != "postgresql":
            AddIndex.database_forwards(self, app_label, schema_editor, from_state, to_state)
            return
        name = schema_editor.quote_name(self.index.name)
        schema_editor.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
        super().database_forwards(app_label, schema_editor, from_state, to_state)

    def database_backwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        if schema_editor.connection.vendor != "postgresql":
            AddIndex.database_backwards(self, app_label, schema_editor, from_state, to_state)
            return
        # Unlike its creation, the removal of an index waits for readers. The next attempt removes what is left.
        schema_editor.execute("SET lock_timeout = '1s'")
        try:
            super().database_backwards(app_label, schema_editor, from_state, to_state)
        finally:
            schema_editor.execute("RESET lock_timeout")


@contextmanager
def owners_connection(alias: str) -> Iterator[BaseDatabaseWrapper]:
    """Replace the connection `alias` by one of the tables' owner (MIGRATION_DATABASE_URL) without time limits.

    On SQLite and inside a transaction, keep the connection.
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


def retry_while_in_use(run: Callable[[], object], write: Callable[[str], object]) -> None:
    """Run an operation that rolls back as a whole, and retry it while other transactions hold the locks it needs.

    Raise CommandError after the last attempt.
    """
    for pause in PAUSES:
        try:
            run()
            return
        except OperationalError as error:
            if sqlstate(error) not in IN_USE:
                raise
            write(f"A table is in use by another transaction. Trying again in {pause} s.")
            time.sleep(pause)
    try:
        run()
    except OperationalError as error:
        if sqlstate(error) not in IN_USE:
            raise
        raise CommandError(
            "A table stays in use by another transaction. The remaining steps were not run. End that transaction "
            "and run the command again. To find it: SELECT pid, usename, state, query FROM pg_stat_activity "
            "WHERE xact_start < now() - interval '5 seconds'"
        ) from None
