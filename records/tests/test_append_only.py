"""The database refuses to rewrite the audit log; a purge erases only the personal data of the purged rows."""

from importlib import import_module

import pytest
from django.contrib.admin.models import LogEntry
from django.core.management import call_command
from django.db import DatabaseError, connection, transaction
from django.db.migrations.executor import MigrationExecutor

from records.audit.models import AuditEntry
from records.audit.reversal import record_models
from records.models.changes import Change
from records.tests.browser import opened_form
from records.tests.factories import create_row
from stocks.models import Stock
from users.models import User


@pytest.fixture
def entry(owner):
    owner.patch("/api/v1/users/me", {"name": "Ada"})
    return AuditEntry.objects.filter(action="update").latest("id")


def execute(sql, *params):
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(sql, params)
        return cursor.rowcount


WRITES = [
    "UPDATE audit_log SET changes = '{}' WHERE id = %s",
    "UPDATE audit_log SET ip = NULL WHERE id = %s",
    "UPDATE audit_log SET user_id = 1 WHERE id = %s",
    "UPDATE audit_log SET user_id = NULL WHERE id = %s",
    "UPDATE audit_log SET action = 'login' WHERE id = %s",
    "UPDATE audit_log SET at = '2001-01-01' WHERE id = %s",
    "UPDATE audit_log SET id = id + 1000000 WHERE id = %s",
    "DELETE FROM audit_log WHERE id = %s",
]


@pytest.mark.parametrize("sql", WRITES)
def test_database_refuses_to_rewrite_an_entry(entry, sql):
    with pytest.raises(DatabaseError, match="can only be added to"):
        execute(sql, entry.pk)
    assert AuditEntry.objects.get(pk=entry.pk).changes == {"name": [None, "Ada"]}


@pytest.mark.parametrize(
    "write",
    [
        lambda entries: entries.update(ip=None),
        lambda entries: entries.delete(),
        lambda entries: entries.get().delete(),
        lambda entries: entries._raw_delete("default"),
    ],
)
def test_orm_cannot_rewrite_an_entry(entry, write):
    with pytest.raises(DatabaseError, match="can only be added to"), transaction.atomic():
        write(AuditEntry.objects.filter(pk=entry.pk))


@pytest.mark.skipif("connection.vendor != 'postgresql'", reason="SQLite has no TRUNCATE")
def test_table_cannot_be_truncated(entry):
    with pytest.raises(DatabaseError, match="can only be added to"):
        execute("TRUNCATE audit_log")


@pytest.mark.parametrize("sql", [sql for sql in WRITES if "'{}'" not in sql and "ip = NULL" not in sql])
def test_purge_allows_erasing_only_personal_data(owner, entry, sql):
    User.all_objects.filter(pk=owner.user.pk).purge()
    with pytest.raises(DatabaseError, match="can only be added to"):
        execute(sql, entry.pk)


def test_values_cannot_be_replaced_after_a_purge(owner, entry):
    User.all_objects.filter(pk=owner.user.pk).purge()
    with pytest.raises(DatabaseError, match="can only be added to"):
        execute("""UPDATE audit_log SET changes = '{"name": [null, "Eve"]}' WHERE id = %s""", entry.pk)


@pytest.mark.parametrize(("outcome", "action"), [("failure", "purge"), ("success", "delete")])
def test_failed_purge_or_deletion_allows_no_erasure(owner, entry, outcome, action):
    AuditEntry.objects.record(User, action, [Change(owner.user.pk, owner.user.pk)], outcome=outcome)
    with pytest.raises(DatabaseError, match="can only be added to"):
        execute("UPDATE audit_log SET changes = '{}' WHERE id = %s", entry.pk)


# Forged purges


def forge_purge(model, key, owner_id=None):
    AuditEntry.objects.record(model, "purge", [Change(key, owner_id)])


ERASURES = ["UPDATE audit_log SET changes = '{}' WHERE id = %s", "UPDATE audit_log SET ip = NULL WHERE id = %s"]


@pytest.mark.parametrize("sql", ERASURES)
@pytest.mark.parametrize("state", ["live", "deleted"])
def test_forged_purge_of_a_user_erases_nothing(owner, entry, sql, state):
    if state == "deleted":
        owner.user.delete()
    forge_purge(User, owner.user.pk, owner.user.pk)
    with pytest.raises(DatabaseError, match="can only be added to"):
        execute(sql, entry.pk)
    stored = AuditEntry.objects.get(pk=entry.pk)
    assert (stored.changes, stored.ip) == ({"name": [None, "Ada"]}, "127.0.0.1")


def test_forged_purge_of_an_owner_erases_no_entries_of_their_rows(owner, make_stock):
    stock = make_stock(owner.user)
    forge_purge(User, owner.user.pk, owner.user.pk)
    with pytest.raises(DatabaseError, match="can only be added to"):
        execute(
            "UPDATE audit_log SET changes = '{}' WHERE id = %s", AuditEntry.objects.of_row(Stock, stock.pk).get().pk
        )


@pytest.mark.parametrize("kind", record_models())
def test_forged_purge_of_any_row_erases_nothing(db, kind):
    row = create_row(record_models()[kind])
    [entry] = AuditEntry.objects.of_row(type(row), row.pk)
    forge_purge(type(row), row.pk)
    with pytest.raises(DatabaseError, match="can only be added to"):
        execute("UPDATE audit_log SET changes = '{}' WHERE id = %s", entry.pk)
    type(row).all_objects.filter(pk=row.pk).purge()
    assert AuditEntry.objects.get(pk=entry.pk).changes == {}


def test_values_of_a_purged_missing_row_can_be_erased(owner, make_stock):
    stock = make_stock(owner.user)
    [entry] = AuditEntry.objects.of_row(Stock, stock.pk)
    execute("DELETE FROM stocks WHERE id = %s", stock.pk)
    with pytest.raises(DatabaseError, match="can only be added to"):
        execute("UPDATE audit_log SET changes = '{}' WHERE id = %s", entry.pk)
    forge_purge(Stock, stock.pk)
    assert execute("UPDATE audit_log SET changes = '{}' WHERE id = %s", entry.pk) == 1


def test_temporary_table_does_not_bypass_the_check(owner, entry):
    forge_purge(User, owner.user.pk)
    execute("CREATE TEMPORARY TABLE users (id bigint PRIMARY KEY)")
    try:
        with pytest.raises(DatabaseError, match="can only be added to"):
            execute("UPDATE audit_log SET changes = '{}' WHERE id = %s", entry.pk)
    finally:
        execute("DROP TABLE users" if connection.vendor == "sqlite" else "DROP TABLE pg_temp.users")


@pytest.mark.skipif("connection.vendor != 'postgresql'", reason="SQLite has no schemas")
def test_search_path_does_not_bypass_the_check(owner, entry):
    forge_purge(User, owner.user.pk)
    with connection.cursor() as cursor:
        cursor.execute("CREATE SCHEMA decoy")
        cursor.execute("CREATE TABLE decoy.users (id bigint PRIMARY KEY)")
        cursor.execute(
            "CREATE FUNCTION decoy.audit_log_row_is_gone(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT true'"
        )
        cursor.execute("SET LOCAL search_path = decoy, public")
    with pytest.raises(DatabaseError, match="can only be added to"):
        execute("UPDATE public.audit_log SET changes = '{}' WHERE id = %s", entry.pk)


def test_values_of_a_removed_table_can_be_erased(owner, make_stock):
    [entry] = AuditEntry.objects.of_row(Stock, make_stock(owner.user).pk)
    columns = "at, action, outcome, user_id, 'shelves', object_id, owner_id, changes, ip, request_id"
    execute(
        f"INSERT INTO audit_log ({columns.replace(chr(39) + 'shelves' + chr(39), 'object_type')}) "
        f"SELECT {columns} FROM audit_log WHERE id = %s",
        entry.pk,
    )
    shelf_entries = AuditEntry.objects.filter(object_type="shelves")
    execute("UPDATE audit_log SET changes = changes WHERE object_type = 'shelves'")
    User.all_objects.filter(pk=owner.user.pk).purge()
    assert shelf_entries.get().changes == {}


@pytest.mark.skipif("connection.vendor != 'sqlite'", reason="SQLite's own")
def test_entry_cannot_be_replaced(entry):
    columns = "id, at, 'login', outcome, user_id, object_type, object_id, owner_id, changes, ip, request_id"
    names = columns.replace("'login'", "action")
    with pytest.raises(DatabaseError, match="can only be added to"):
        execute(f"INSERT OR REPLACE INTO audit_log ({names}) SELECT {columns} FROM audit_log WHERE id = %s", entry.pk)


def test_flush_asks_for_confirmation_before_any_query(owner, monkeypatch, capsys, django_assert_num_queries):
    monkeypatch.setattr("builtins.input", lambda question: "no")
    with django_assert_num_queries(0):
        call_command("flush")
    assert "Cancelled. No rows were deleted." in capsys.readouterr().out


# Personal data


def test_purge_leaves_entries_without_personal_data(owner, superuser, entry, make_stock):
    stock = owner.post("/api/v1/stocks", {"name": "AAPL", "price": 1, "quantity": 1}).json()
    superuser.patch(f"/api/v1/stocks/{stock['id']}", {"price": 2})
    before = AuditEntry.objects.count()
    superuser.delete(f"/api/v1/users/{owner.user.pk}?permanent=true")
    own_entries = AuditEntry.objects.filter(owner_id=owner.user.pk)
    assert {str(entry.changes) for entry in own_entries} == {"{}"}
    assert {entry.ip for entry in AuditEntry.objects.filter(user_id=owner.user.pk)} == {None}
    assert AuditEntry.objects.count() == before + 2
    assert {entry.action for entry in own_entries} >= {"create", "update", "purge"}
    # The user and the address of the purge are data of the superuser.
    assert own_entries.get(action="update", object_type="stocks").ip == "127.0.0.1"
    assert own_entries.get(action="purge", object_type="users").user_id == superuser.user.pk


def test_purge_keeps_entries_of_other_users(owner, stranger, make_stock):
    other = make_stock(stranger.user)
    stranger.patch(f"/api/v1/stocks/{other.pk}", {"price": 2})
    User.all_objects.filter(pk=owner.user.pk).purge()
    stored = AuditEntry.objects.of_row(Stock, other.pk).latest("id")
    assert (stored.changes, stored.ip) == ({"price": [175.5, 2]}, "127.0.0.1")


def test_purge_of_a_stock_keeps_entries_of_its_owner(owner, entry, make_stock):
    stock = make_stock(owner.user)
    Stock.all_objects.filter(pk=stock.pk).purge()
    assert {str(entry.changes) for entry in AuditEntry.objects.of_row(Stock, stock.pk)} == {"{}"}
    assert AuditEntry.objects.get(pk=entry.pk).ip == "127.0.0.1"


def test_purge_erases_admin_log_entries(client, make_user, owner):
    client.force_login(make_user(is_staff=True, is_superuser=True))
    page = f"/admin/users/user/{owner.user.pk}/change/"
    client.post(page, opened_form(client, page) | {"username": "renamed"})
    assert LogEntry.objects.get().object_repr == "renamed"
    User.all_objects.filter(pk=owner.user.pk).purge()
    assert (LogEntry.objects.get().object_repr, LogEntry.objects.get().change_message) == ("", "")


# Migrations of the triggers


@pytest.mark.django_db(transaction=True)
def test_flush_empties_the_audit_log_and_keeps_the_triggers(owner):
    assert AuditEntry.objects.exists()
    call_command("flush", interactive=False, verbosity=0)
    assert not AuditEntry.objects.exists()
    User.objects.create_user("ada")
    with pytest.raises(DatabaseError, match="can only be added to"):
        execute("DELETE FROM audit_log")
    [entry] = AuditEntry.objects.of_row(User, forged := User.objects.get().pk)
    forge_purge(User, forged)
    with pytest.raises(DatabaseError, match="can only be added to"):
        execute("UPDATE audit_log SET changes = '{}' WHERE id = %s", entry.pk)


@pytest.mark.django_db(transaction=True)
def test_audit_log_migration_is_reversible(owner):
    executor = MigrationExecutor(connection)
    executor.migrate([("records", None)])
    assert "audit_log" not in connection.introspection.table_names()
    executor = MigrationExecutor(connection)
    executor.migrate([("records", "0001_audit_log")])
    User.objects.create_user("ada")
    with pytest.raises(DatabaseError, match="can only be added to"):
        execute("DELETE FROM audit_log")
    executor = MigrationExecutor(connection)
    executor.migrate(executor.loader.graph.leaf_nodes("records"))


@pytest.mark.django_db(transaction=True)
def test_purge_check_migration_is_reversible(owner):
    erase = "UPDATE audit_log SET changes = '{}' WHERE object_type = 'users' AND action = 'create'"
    forge_purge(User, owner.user.pk)
    executor = MigrationExecutor(connection)
    executor.migrate([("records", "0002_refused_views")])
    executor = MigrationExecutor(connection)
    executor.migrate(executor.loader.graph.leaf_nodes("records"))
    with pytest.raises(DatabaseError, match="can only be added to"):
        execute(erase)


def test_audit_log_migration_has_no_dependencies():
    assert import_module("records.migrations.0001_audit_log").Migration.dependencies == []
