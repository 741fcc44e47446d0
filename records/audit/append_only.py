"""Triggers that make the table of the audit log append-only."""

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from django.apps import apps
from django.conf import settings
from django.db import transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.operations.base import Operation

REFUSED = "The audit log can only be added to."

# True if an entry records the purge of the row.
PURGED = """EXISTS (
            SELECT 1 FROM audit_log purged WHERE purged.action = 'purge' AND purged.outcome = 'success'
            AND purged.object_id = {key} AND purged.object_type = {kind}
        )"""

# True for the updates of AuditEntryQuerySet.erase_personal_data.
MAY_BE_ERASED = """
        (NEW.changes = OLD.changes OR NEW.changes = '{{}}' AND ({row_purged} OR {owner_purged}))
        AND (NEW.ip {is_same} OLD.ip OR NEW.ip IS NULL AND {actor_purged})
"""

FIXED = ("id", "at", "action", "outcome", "user_id", "object_type", "object_id", "owner_id", "request_id")


def _permitted(text: str, is_same: str, *, row_gone: bool) -> str:
    """Return the condition under which an UPDATE is permitted. With `row_gone`, purged rows must not exist."""

    def purged(kind: str, key: str) -> str:
        is_purged = PURGED.format(kind=kind, key=key)
        return f"({is_purged} AND audit_log_row_is_gone({kind}, {key}))" if row_gone else is_purged

    fixed = " AND ".join(f"NEW.{name} {is_same} OLD.{name}" for name in FIXED)
    erased = MAY_BE_ERASED.format(
        is_same=is_same,
        row_purged=purged("OLD.object_type", "OLD.object_id"),
        owner_purged=purged("'@users@'", f"CAST(OLD.owner_id AS {text})"),
        actor_purged=purged("'@users@'", f"CAST(OLD.user_id AS {text})"),
    )
    return f"({fixed} AND {erased})"


def _postgresql_function(*, row_gone: bool) -> str:
    # Look up names in the schema of the audit log only: a temporary table could shadow one of ours.
    path = "SET search_path = pg_catalog, @schema@, pg_temp" if row_gone else ""
    return f"""
    CREATE OR REPLACE FUNCTION audit_log_refuse() RETURNS trigger LANGUAGE plpgsql {path} AS $$ BEGIN
        IF TG_OP = 'UPDATE' THEN
            IF {_permitted("varchar", "IS NOT DISTINCT FROM", row_gone=row_gone)} THEN
                RETURN NEW;
            END IF;
        END IF;
        RAISE EXCEPTION '{REFUSED}' USING ERRCODE = 'restrict_violation';
    END $$
    """


# The key is converted to the type of the column, so that the index of the primary key is used.
POSTGRESQL_IS_GONE = """
    CREATE OR REPLACE FUNCTION audit_log_row_is_gone(kind text, key text) RETURNS boolean LANGUAGE plpgsql
    SET search_path = pg_catalog, @schema@, pg_temp AS $$
    DECLARE
        relation regclass := to_regclass(quote_ident(kind));
        key_type text;
        is_there boolean;
    BEGIN
        IF relation IS NULL THEN
            RETURN true;  -- the table was dropped
        END IF;
        SELECT format_type(atttypid, atttypmod) INTO STRICT key_type FROM pg_attribute
            WHERE attrelid = relation AND attname = 'id' AND NOT attisdropped;
        EXECUTE format('SELECT EXISTS (SELECT 1 FROM %s WHERE id = $1::%s)', relation, key_type)
            INTO is_there USING key;
        RETURN NOT is_there;
    END $$
"""

POSTGRESQL = [
    _postgresql_function(row_gone=False),
    """
    CREATE TRIGGER audit_log_append_only BEFORE UPDATE OR DELETE ON audit_log
        FOR EACH ROW EXECUTE FUNCTION audit_log_refuse()
    """,
    """
    CREATE TRIGGER audit_log_no_truncate BEFORE TRUNCATE ON audit_log
        FOR EACH STATEMENT EXECUTE FUNCTION audit_log_refuse()
    """,
]


def _sqlite_trigger(*, row_gone: bool) -> str:
    permitted = _permitted("text", "IS", row_gone=row_gone)
    return f"""
    CREATE TRIGGER audit_log_no_update BEFORE UPDATE ON audit_log WHEN NOT {permitted} BEGIN
        SELECT RAISE(ABORT, '{REFUSED}');
    END
    """


SQLITE = [
    _sqlite_trigger(row_gone=False),
    # INSERT OR REPLACE deletes rows without running the trigger of deletions.
    f"""
    CREATE TRIGGER audit_log_no_replace BEFORE INSERT ON audit_log
        WHEN EXISTS (SELECT 1 FROM audit_log WHERE id = NEW.id) BEGIN
        SELECT RAISE(ABORT, '{REFUSED}');
    END
    """,  # noqa: S608 - a constant
    f"""
    CREATE TRIGGER audit_log_no_delete BEFORE DELETE ON audit_log BEGIN
        SELECT RAISE(ABORT, '{REFUSED}');
    END
    """,
]

DROP_TRIGGERS = {
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

CREATE_TRIGGERS = {"postgresql": POSTGRESQL, "sqlite": SQLITE}

REQUIRE_ROW_GONE = {
    # Replaces functions only, because altering the table would wait for its readers.
    "postgresql": [POSTGRESQL_IS_GONE, _postgresql_function(row_gone=True)],
    "sqlite": ["DROP TRIGGER audit_log_no_update", _sqlite_trigger(row_gone=True)],
}

ALLOW_EXISTING_ROW = {
    "postgresql": [
        _postgresql_function(row_gone=False),
        "DROP FUNCTION IF EXISTS audit_log_row_is_gone(text, text)",
    ],
    "sqlite": ["DROP TRIGGER audit_log_no_update", _sqlite_trigger(row_gone=False)],
}


class AppendOnly(Operation):
    """Refuse UPDATE, DELETE and TRUNCATE of the audit log, except for erasing the values of purged rows."""

    reversible = True

    def state_forwards(self, app_label: str, state: Any) -> None:
        pass

    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        _execute(schema_editor.connection, CREATE_TRIGGERS)

    def database_backwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        _execute(schema_editor.connection, DROP_TRIGGERS)

    def describe(self) -> str:
        return "Refuse to rewrite the audit log"


class CheckPurges(Operation):
    """Permit erasing values only if the row does not exist any more, in addition to the entry of its purge."""

    reversible = True

    def state_forwards(self, app_label: str, state: Any) -> None:
        pass

    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        _execute(schema_editor.connection, REQUIRE_ROW_GONE)

    def database_backwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        _execute(schema_editor.connection, ALLOW_EXISTING_ROW)

    def describe(self) -> str:
        return "Erase values of the audit log only where the row is gone"


def register_functions(connection: BaseDatabaseWrapper, **kwargs: Any) -> None:
    """Add a function to SQLite, because its triggers cannot query a table by a name in a column."""
    if connection.vendor == "sqlite":
        wrapper = weakref.ref(connection)  # the connection owns the function: a strong reference would be a cycle
        connection.connection.create_function("audit_log_row_is_gone", 2, partial(_is_gone_in_sqlite, wrapper))


def _is_gone_in_sqlite(wrapper: Callable[[], Any], kind: str, key: str) -> bool:
    execute = wrapper().connection.execute
    # In `main`, because a temporary table could shadow one of ours.
    if not execute("SELECT 1 FROM main.sqlite_master WHERE type = 'table' AND name = ?", [kind]).fetchone():
        return True  # the table was dropped
    table = '"' + kind.replace('"', '""') + '"'
    # SQLite stores UUIDs without hyphens.
    cursor = execute(f"SELECT 1 FROM main.{table} WHERE id IN (?, replace(?, '-', ''))", [key, key])  # noqa: S608
    return cursor.fetchone() is None


@contextmanager
def without_triggers(connection: BaseDatabaseWrapper) -> Iterator[None]:
    """Remove the triggers in this block, for `flush`. A transaction restores them if the block fails."""
    if "audit_log" not in connection.introspection.table_names():
        yield
        return
    with transaction.atomic(using=connection.alias):
        _execute(connection, DROP_TRIGGERS)
        yield
        _execute(connection, CREATE_TRIGGERS)
        _execute(connection, REQUIRE_ROW_GONE)


def _execute(connection: BaseDatabaseWrapper, statements: dict[str, list[str]]) -> None:
    users = apps.get_model(settings.AUTH_USER_MODEL)._meta.db_table
    with connection.cursor() as cursor:
        schema = ""
        if connection.vendor == "postgresql":
            cursor.execute("SELECT quote_ident(current_schema())")
            [schema] = cursor.fetchone()
        for statement in statements[connection.vendor]:
            cursor.execute(statement.replace("@schema@", schema).replace("@users@", users))
