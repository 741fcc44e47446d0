"""The audit log's table refuses to be rewritten, by triggers."""

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from django.db import transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.operations.base import Operation

REFUSED = "The audit log can only be added to."

# Whether the log itself says that a row was purged.
PURGED = """EXISTS (
            SELECT 1 FROM audit_log purged WHERE purged.action = 'purge' AND purged.outcome = 'success'
            AND purged.object_id = {key} AND purged.object_type = {kind}
        )"""

# What AuditEntryQuerySet.erase_personal_data does, and nothing else.
MAY_BE_ERASED = """
        (NEW.changes = OLD.changes OR NEW.changes = '{{}}' AND ({row_purged} OR {owner_purged}))
        AND (NEW.ip {is_same} OLD.ip OR NEW.ip IS NULL AND {actor_purged})
"""

FIXED = ("id", "at", "action", "outcome", "user_id", "object_type", "object_id", "owner_id", "request_id")


def _permitted(text: str, is_same: str, *, checked: bool) -> str:
    """Return the condition for an UPDATE. `checked`: a row counts as purged only if it is really gone."""

    def purged(kind: str, key: str) -> str:
        told = PURGED.format(kind=kind, key=key)
        return f"({told} AND audit_log_row_is_gone({kind}, {key}))" if checked else told

    fixed = " AND ".join(f"NEW.{name} {is_same} OLD.{name}" for name in FIXED)
    erased = MAY_BE_ERASED.format(
        is_same=is_same,
        row_purged=purged("OLD.object_type", "OLD.object_id"),
        owner_purged=purged("'users'", f"CAST(OLD.owner_id AS {text})"),
        actor_purged=purged("'users'", f"CAST(OLD.user_id AS {text})"),
    )
    return f"({fixed} AND {erased})"


def _postgresql_function(*, checked: bool) -> str:
    # Names mean what they mean in the log's own schema: a temporary table could pose as one of ours.
    path = "SET search_path = pg_catalog, @schema@, pg_temp" if checked else ""
    return f"""
    CREATE OR REPLACE FUNCTION audit_log_refuse() RETURNS trigger LANGUAGE plpgsql {path} AS $$ BEGIN
        IF TG_OP = 'UPDATE' THEN
            IF {_permitted("varchar", "IS NOT DISTINCT FROM", checked=checked)} THEN
                RETURN NEW;
            END IF;
        END IF;
        RAISE EXCEPTION '{REFUSED}' USING ERRCODE = 'restrict_violation';
    END $$
    """


# The key is compared as the column's own type, so that the index of the primary key answers.
POSTGRESQL_IS_GONE = """
    CREATE OR REPLACE FUNCTION audit_log_row_is_gone(kind text, key text) RETURNS boolean LANGUAGE plpgsql
    SET search_path = pg_catalog, @schema@, pg_temp AS $$
    DECLARE
        relation regclass := to_regclass(quote_ident(kind));
        key_type text;
        is_there boolean;
    BEGIN
        IF relation IS NULL THEN
            RETURN true;  -- so is its table
        END IF;
        SELECT format_type(atttypid, atttypmod) INTO STRICT key_type FROM pg_attribute
            WHERE attrelid = relation AND attname = 'id' AND NOT attisdropped;
        EXECUTE format('SELECT EXISTS (SELECT 1 FROM %s WHERE id = $1::%s)', relation, key_type)
            INTO is_there USING key;
        RETURN NOT is_there;
    END $$
"""

POSTGRESQL = [
    _postgresql_function(checked=False),
    """
    CREATE TRIGGER audit_log_append_only BEFORE UPDATE OR DELETE ON audit_log
        FOR EACH ROW EXECUTE FUNCTION audit_log_refuse()
    """,
    """
    CREATE TRIGGER audit_log_no_truncate BEFORE TRUNCATE ON audit_log
        FOR EACH STATEMENT EXECUTE FUNCTION audit_log_refuse()
    """,
]


def _sqlite_trigger(*, checked: bool) -> str:
    permitted = _permitted("text", "IS", checked=checked)
    return f"""
    CREATE TRIGGER audit_log_no_update BEFORE UPDATE ON audit_log WHEN NOT {permitted} BEGIN
        SELECT RAISE(ABORT, '{REFUSED}');
    END
    """


SQLITE = [
    _sqlite_trigger(checked=False),
    # INSERT OR REPLACE deletes without asking the trigger of deletions.
    f"""
    CREATE TRIGGER audit_log_no_replace BEFORE INSERT ON audit_log
        WHEN EXISTS (SELECT 1 FROM audit_log WHERE id = NEW.id) BEGIN
        SELECT RAISE(ABORT, '{REFUSED}');
    END
    """,  # noqa: S608 — no value of anybody's
    f"""
    CREATE TRIGGER audit_log_no_delete BEFORE DELETE ON audit_log BEGIN
        SELECT RAISE(ABORT, '{REFUSED}');
    END
    """,
]

UNDO = {
    "postgresql": [
        "DROP TRIGGER IF EXISTS audit_log_append_only ON audit_log",
        "DROP TRIGGER IF EXISTS audit_log_no_truncate ON audit_log",
        "DROP FUNCTION IF EXISTS audit_log_refuse()",
        "DROP FUNCTION IF EXISTS audit_log_row_is_gone(text, text)",
    ],
    "sqlite": [
        "DROP TRIGGER IF EXISTS audit_log_no_update",
        "DROP TRIGGER IF EXISTS audit_log_no_delete",
        "DROP TRIGGER IF EXISTS audit_log_no_replace",
    ],
}

DO = {"postgresql": POSTGRESQL, "sqlite": SQLITE}

CHECK = {
    # Without touching the table, which others use meanwhile.
    "postgresql": [POSTGRESQL_IS_GONE, _postgresql_function(checked=True)],
    "sqlite": ["DROP TRIGGER audit_log_no_update", _sqlite_trigger(checked=True)],
}

UNCHECK = {
    "postgresql": [
        _postgresql_function(checked=False),
        "DROP FUNCTION IF EXISTS audit_log_row_is_gone(text, text)",
    ],
    "sqlite": ["DROP TRIGGER audit_log_no_update", _sqlite_trigger(checked=False)],
}


class AppendOnly(Operation):
    """Refuses UPDATE, DELETE and TRUNCATE of the audit log."""

    reversible = True

    def state_forwards(self, app_label: str, state: Any) -> None:
        pass

    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        _execute(schema_editor.connection, DO)

    def database_backwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        _execute(schema_editor.connection, UNDO)

    def describe(self) -> str:
        return "Refuse to rewrite the audit log"


class CheckPurges(Operation):
    """Lets values of the log be erased only where the row is gone, whatever the log says of a purge."""

    reversible = True

    def state_forwards(self, app_label: str, state: Any) -> None:
        pass

    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        _execute(schema_editor.connection, CHECK)

    def database_backwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        _execute(schema_editor.connection, UNCHECK)

    def describe(self) -> str:
        return "Erase values of the audit log only where the row is gone"


def register_functions(connection: BaseDatabaseWrapper, **kwargs: Any) -> None:
    """Give SQLite, whose triggers cannot look into a table by its name, a function that does."""
    if connection.vendor == "sqlite":
        wrapper = weakref.ref(connection)  # the function lives as long as the connection, and must not keep it
        connection.connection.create_function("audit_log_row_is_gone", 2, partial(_is_gone_from_sqlite, wrapper))


def _is_gone_from_sqlite(wrapper: Callable[[], Any], kind: str, key: str) -> bool:
    execute = wrapper().connection.execute
    # From `main`: a temporary table could pose as one of ours.
    if not execute("SELECT 1 FROM main.sqlite_master WHERE type = 'table' AND name = ?", [kind]).fetchone():
        return True  # so is its table
    table = '"' + kind.replace('"', '""') + '"'
    # UUIDs are stored without their hyphens.
    found = execute(f"SELECT 1 FROM main.{table} WHERE id IN (?, replace(?, '-', ''))", [key, key])  # noqa: S608
    return found.fetchone() is None


@contextmanager
def lifted(connection: BaseDatabaseWrapper) -> Iterator[None]:
    """For emptying the whole database, log included; the refusal is back when this ends, however it ends."""
    if "audit_log" not in connection.introspection.table_names():
        yield
        return
    with transaction.atomic(using=connection.alias):
        _execute(connection, UNDO)
        yield
        _execute(connection, DO)
        _execute(connection, CHECK)


def _execute(connection: BaseDatabaseWrapper, statements: dict[str, list[str]]) -> None:
    with connection.cursor() as cursor:
        schema = ""
        if connection.vendor == "postgresql":
            cursor.execute("SELECT quote_ident(current_schema())")
            [schema] = cursor.fetchone()
        for statement in statements[connection.vendor]:
            cursor.execute(statement.replace("@schema@", schema))
