"""The audit log's table refuses to be rewritten, by triggers."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.operations.base import Operation

REFUSED = "The audit log can only be added to."

# What AuditEntryQuerySet.erase_personal_data does, and nothing else: the log itself must tell that the row was purged.
MAY_BE_ERASED = """
        (NEW.changes = OLD.changes OR NEW.changes = '{{}}' AND EXISTS (
            SELECT 1 FROM audit_log purged WHERE purged.action = 'purge' AND purged.outcome = 'success'
            AND (purged.object_id = OLD.object_id AND purged.object_type = OLD.object_type
                OR purged.object_id = CAST(OLD.owner_id AS {text}) AND purged.object_type = 'users')
        ))
        AND (NEW.ip {is_same} OLD.ip OR NEW.ip IS NULL AND EXISTS (
            SELECT 1 FROM audit_log purged WHERE purged.action = 'purge' AND purged.outcome = 'success'
            AND purged.object_id = CAST(OLD.user_id AS {text}) AND purged.object_type = 'users'
        ))
"""
FIXED = ("id", "at", "action", "outcome", "user_id", "object_type", "object_id", "owner_id", "request_id")


def _permitted(text: str, is_same: str) -> str:
    fixed = " AND ".join(f"NEW.{name} {is_same} OLD.{name}" for name in FIXED)
    return f"({fixed} AND {MAY_BE_ERASED.format(text=text, is_same=is_same)})"


POSTGRESQL = [
    f"""
    CREATE FUNCTION audit_log_refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF TG_OP = 'UPDATE' THEN
            IF {_permitted("varchar", "IS NOT DISTINCT FROM")} THEN
                RETURN NEW;
            END IF;
        END IF;
        RAISE EXCEPTION '{REFUSED}' USING ERRCODE = 'restrict_violation';
    END $$
    """,
    """
    CREATE TRIGGER audit_log_append_only BEFORE UPDATE OR DELETE ON audit_log
        FOR EACH ROW EXECUTE FUNCTION audit_log_refuse()
    """,
    """
    CREATE TRIGGER audit_log_no_truncate BEFORE TRUNCATE ON audit_log
        FOR EACH STATEMENT EXECUTE FUNCTION audit_log_refuse()
    """,
]
SQLITE = [
    f"""
    CREATE TRIGGER audit_log_no_update BEFORE UPDATE ON audit_log WHEN NOT {_permitted("text", "IS")} BEGIN
        SELECT RAISE(ABORT, '{REFUSED}');
    END
    """,
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
    ],
    "sqlite": [
        "DROP TRIGGER IF EXISTS audit_log_no_update",
        "DROP TRIGGER IF EXISTS audit_log_no_delete",
        "DROP TRIGGER IF EXISTS audit_log_no_replace",
    ],
}
DO = {"postgresql": POSTGRESQL, "sqlite": SQLITE}


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


def _execute(connection: BaseDatabaseWrapper, statements: dict[str, list[str]]) -> None:
    with connection.cursor() as cursor:
        for statement in statements[connection.vendor]:
            cursor.execute(statement)
