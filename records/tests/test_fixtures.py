"""dumpdata and loaddata between both databases, with deleted rows, with and without the audit log."""

import json
import os
from datetime import UTC, datetime, timedelta

import pytest
from django.apps import apps
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth.models import Group, Permission
from django.contrib.contenttypes.models import ContentType
from django.core.management import call_command
from django.db import connection
from django.utils import timezone

from records.audit.models import AuditEntry
from records.models.changes import Change
from records.tests.processes import run_python
from stocks.models import Stock
from users.models import Identity, RateLimit, Session, SpentToken, User

FORMATS = ["json", "jsonl", "xml", "yaml"]
NATURAL = ["", "--natural-foreign", "--natural-primary", "--natural-foreign --natural-primary"]
WITHOUT_LOG = "--exclude records.AuditEntry"
#: Models whose rows `migrate` creates in every database.
SYSTEM = {ContentType, Permission}


def value_of(row, field):
    """Return the value of a column. Replace the id of a system row by its natural key."""
    if field.related_model in SYSTEM:
        other = getattr(row, field.name)
        return other and other.natural_key()
    return getattr(row, field.attname)


def contents(*excluded):
    """Return the rows of each table, as lists of column and value."""
    tables = {}
    for model in apps.get_models(include_auto_created=True):
        if model in SYSTEM or model in excluded:
            continue
        fields = [
            field for field in model._meta.concrete_fields if not (model._meta.auto_created and field.primary_key)
        ]
        rows = [[(field.attname, value_of(row, field)) for field in fields] for row in model._base_manager.all()]
        tables[model._meta.db_table] = sorted(rows, key=repr)
    return tables


@pytest.fixture(autouse=True)
def _fresh_content_types():
    """Clear the cache: flushing assigns new ids to content types, and the end of the test rolls them back."""
    ContentType.objects.clear_cache()
    yield
    ContentType.objects.clear_cache()


@pytest.fixture
def all_models_data(make_user, make_stock):
    """Create rows of every model."""
    # The ids of content types have gaps, as after the removal of a resource.
    ContentType.objects.create(app_label="gone", model="thing").delete()
    # A content type without a model exists only in the fixture.
    stale = ContentType.objects.create(app_label="stale", model="thing")
    Permission.objects.create(codename="view_thing", name="Can view thing", content_type=stale)
    group = Group.objects.create(name="Editors")
    group.permissions.set(Permission.objects.filter(codename__in=["view_stock", "change_stock", "view_thing"]))
    ada, grace, left = (make_user(username=name, email=f"{name}@example.com") for name in ("Ada", "grace", "left"))
    ada.groups.add(group)
    ada.user_permissions.add(Permission.objects.get(codename="view_user"))
    ada.bio = "Line\r\nline \u2028 – <&> 中"
    ada.save()
    User.objects.filter(pk=grace.pk).update(name="Grace", age=85)
    first = make_stock(ada, price="99999999999.9999", quantity=2**63 - 1)
    make_stock(ada, name="MSFT").delete(reason="sold")
    twin = make_stock(ada, quantity=1)
    Stock.all_objects.filter(pk=twin.pk).update(created_at=first.created_at)
    make_stock(left)
    left.delete(reason="left")
    purged = make_user(username="purged")
    make_stock(purged)
    User.all_objects.filter(pk=purged.pk).purge()
    soon = timezone.now() + timedelta(days=1)
    for user in (ada, left):
        Session.objects.create(user=user, expires_at=soon, user_agent="curl/8", family_hash=f"{user.pk}")
        Identity.objects.create(user=user, provider="example", subject=f"subject {user.pk}")
    RateLimit.objects.create(key="login:1", hits=[1.5], expires_at=soon)
    SpentToken.objects.create(token_hash="abc", expires_at=soon)
    kind = ContentType.objects.get_for_model(Stock)
    LogEntry.objects.create(
        user=ada, content_type=kind, object_id="1", object_repr="x", action_flag=CHANGE, change_message="[]"
    )
    return ada


def dump(path, *options):
    call_command("dumpdata", *options, output=str(path), verbosity=0)
    return path


def load(path):
    call_command("loaddata", str(path), verbosity=0)


def flush_database():
    # PostgreSQL refuses to truncate a table with pending deferred checks.
    connection.check_constraints()
    call_command("flush", interactive=False, verbosity=0)
    ContentType.objects.clear_cache()


@pytest.mark.parametrize("natural", NATURAL)
@pytest.mark.parametrize(
    ("name", "others"), [*((name, "") for name in FORMATS), ("json", "--all"), ("json", WITHOUT_LOG)]
)
def test_loading_into_the_same_database_changes_nothing(all_models_data, tmp_path, name, natural, others):
    path = dump(tmp_path / f"all.{name}", f"--format={name}", *natural.split(), *others.split())
    before = contents()
    load(path)
    load(path)
    assert contents() == before


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("natural", ["", "--natural-foreign"])
def test_loading_into_an_empty_database_restores_every_row(all_models_data, tmp_path, name, natural):
    path = dump(tmp_path / f"all.{name}", f"--format={name}", *natural.split())
    before, log = contents(AuditEntry), list(AuditEntry.objects.order_by("id").values())
    flush_database()
    load(path)
    loaded = contents()
    assert contents(AuditEntry) == before
    assert list(AuditEntry.objects.order_by("id").values())[: len(log)] == log
    load(path)
    assert contents() == loaded


@pytest.mark.parametrize("natural", NATURAL[2:])
def test_natural_keys_are_loaded_into_an_empty_database(all_models_data, tmp_path, natural):
    def rows():
        people = User.all_objects.order_by("username").values_list("username", "email", "created_at", "deleted_at")
        stocks = Stock.all_objects.order_by("owner__username", "name", "quantity")
        columns = ("owner__username", "name", "price", "quantity", "version", "created_at", "updated_at", "deletion")
        others = [Identity.objects.order_by("subject").values_list("user__username", "subject")]
        others += [Session.objects.order_by("id").values_list("user__username", "id")]
        others += [User.groups.through.objects.values_list("user__username", "group__name")]
        return [list(people), list(stocks.values_list(*columns)), *map(list, others)]

    User.objects.filter(username__in=["alice", "bob"]).purge()
    path = dump(tmp_path / "all.json", *natural.split(), *WITHOUT_LOG.split())
    before = rows()
    flush_database()
    User.objects.create_user("somebody")
    Stock.objects.create(owner=User.objects.get(), name="AAPL", price=1, quantity=1)
    load(path)
    load(path)
    User.objects.filter(username="somebody").purge()
    assert rows() == before


def test_audit_log_loaded_after_the_rows_is_added_once(all_models_data, tmp_path):
    rows = dump(tmp_path / "rows.json", *WITHOUT_LOG.split())
    log = dump(tmp_path / "log.json", "records.AuditEntry")
    before = [{**entry, "id": None} for entry in AuditEntry.objects.order_by("id").values()]
    flush_database()
    load(rows)
    own = AuditEntry.objects.count()
    load(log)
    load(log)
    after = [{**entry, "id": None} for entry in AuditEntry.objects.order_by("id").values()]
    assert len(after) == own + len(before)
    assert all(entry in after for entry in before)
    AuditEntry.objects.record(User, "login", [Change("1", 1)])  # the next id is free


def test_audit_log_does_not_restore_erased_values(owner, make_stock, tmp_path):
    make_stock(owner.user)
    log = dump(tmp_path / "log.json", "records")
    User.objects.filter(pk=owner.user.pk).purge()
    before = contents()
    load(log)
    assert contents() == before


def test_excluded_audit_log_is_not_loaded(owner, make_stock, tmp_path):
    log = dump(tmp_path / "log.json", "records")
    flush_database()
    call_command("loaddata", str(log), "--exclude", "records", verbosity=0)
    assert not AuditEntry.objects.exists()


def test_fixture_with_milliseconds_matches_existing_rows(all_models_data, tmp_path):
    """Django's own dumpdata truncates times to milliseconds."""
    fixture = json.loads(dump(tmp_path / "all.json", "--natural-primary").read_text())
    for row in fixture:
        moments = {name: value for name, value in row["fields"].items() if name.endswith("_at") or name == "at"}
        row["fields"] |= {name: value and f"{value[:23].rstrip('Z')}Z" for name, value in moments.items() if value}
    (tmp_path / "cut.json").write_text(json.dumps(fixture))
    log = AuditEntry.objects.exclude(action="update")

    def state():
        times = Stock.all_objects.order_by("pk").values_list("created_at", flat=True)
        return list(times), log.count(), User.all_objects.count(), Identity.objects.count()

    before = state()
    load(tmp_path / "cut.json")
    assert state() == before


def test_loading_an_older_row_creates_a_new_version(owner, make_stock, tmp_path):
    stock = make_stock(owner.user, price=5)
    path = dump(tmp_path / "stocks.json", "stocks")
    Stock.objects.filter(pk=stock.pk).update(price=6)
    load(path)
    stored = Stock.objects.get(pk=stock.pk)
    assert (stored.price, stored.version, stored.created_at) == (5, 3, stock.created_at)
    entry = AuditEntry.objects.of_row(Stock, stock.pk).latest("id")
    assert (entry.action, entry.changes) == ("update", {"price": [6, 5]})


def test_loading_a_later_version_keeps_its_times(owner, make_stock, tmp_path):
    stock = make_stock(owner.user, price=5)
    fixture = json.loads(dump(tmp_path / "stocks.json", "stocks.Stock", f"--pks={stock.pk}").read_text())
    moments = {"created_at": "2026-01-02T03:04:05.000006Z", "updated_at": "2026-02-03T04:05:06.000007Z"}
    fixture[0]["fields"] |= {**moments, "version": 9, "price": "7"}
    (tmp_path / "stocks.json").write_text(json.dumps(fixture))
    for _ in range(2):
        load(tmp_path / "stocks.json")
        stored = Stock.objects.get(pk=stock.pk)
        assert (stored.price, stored.version) == (7, 9)
        assert stored.created_at == datetime(2026, 1, 2, 3, 4, 5, 6, UTC)
        assert stored.updated_at == datetime(2026, 2, 3, 4, 5, 6, 7, UTC)
    stored.price = 8
    stored.save()
    assert stored.version == 10


def test_new_rows_get_unused_ids(all_models_data, make_user, make_stock, tmp_path):
    path = dump(tmp_path / "all.json")
    flush_database()
    load(path)
    assert make_stock(make_user()).pk
    assert Identity.objects.create(user=User.objects.first(), provider="x", subject="y").pk


def test_dumping_the_audit_log_without_ids_warns(db, capsys):
    call_command("dumpdata", "records", "--natural-primary")
    assert "Warning: the audit log refers to rows by their ids" in capsys.readouterr().err
    call_command("dumpdata", "stocks", "--natural-primary")
    call_command("dumpdata", "--natural-primary", *WITHOUT_LOG.split())
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("natural", NATURAL)
def test_loading_the_demo_again_changes_nothing(db, tmp_path, natural):
    load("demo")
    path = dump(tmp_path / "all.json", *natural.split())
    before = contents()
    load("demo")
    load(path)
    load("demo")
    assert contents() == before


# Between the databases of two processes


def manage(database: str, *arguments: str) -> str:
    # Transactional tests leave a database without the default users.
    seeds = str(User.objects.filter(username="alice").exists()).lower()
    environment = os.environ | {"DATABASE_URL": database, "SEED_DEFAULTS": seeds}
    process = run_python("manage.py", *arguments, **environment)
    assert process.returncode == 0, process.stderr
    return process.stdout


def comparable(text: str) -> dict[str, dict]:
    """Return the fields of each row, without the audit entries that loading itself created."""
    rows = json.loads(text)
    tables = {row["model"] for row in rows}
    assert {"users.user", "stocks.stock", "users.session", "users.identity"} <= tables
    dumped = [row for row in rows if not str(row["fields"].get("request_id") or "").startswith("loaddata-")]
    for row in dumped:
        relations = [name for name in ("permissions", "user_permissions") if name in row["fields"]]
        row["fields"] |= {name: sorted(row["fields"][name]) for name in relations}
    return {f"{row['model']} {row.get('pk', row['fields'])}": row["fields"] for row in dumped}


@pytest.mark.parametrize("natural", ["", "--natural-foreign"])
def test_rows_survive_a_copy_to_another_database_and_back(all_models_data, tmp_path, natural):
    """Copy to a new SQLite database and back. On PostgreSQL this tests both directions."""
    # Alice exists in every new database: change her, so that loading has to update her.
    User.objects.filter(username="alice").update(age=26)
    other = f"sqlite:///{tmp_path / 'other.sqlite3'}"
    manage(other, "migrate", "--verbosity", "0")
    exported = dump(tmp_path / "here.json", *natural.split())
    for _ in range(2):
        manage(other, "loaddata", str(exported), "--verbosity", "0")
    reexported = tmp_path / "there.json"
    reexported.write_text(manage(other, "dumpdata", *natural.split()))
    assert comparable(reexported.read_text()) == comparable(exported.read_text())
    flush_database()
    for _ in range(2):
        load(reexported)
    imported = dump(tmp_path / "back.json", *natural.split())
    expected = comparable(exported.read_text())
    assert {key: row for key, row in comparable(imported.read_text()).items() if key in expected} == expected
