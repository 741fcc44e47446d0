from decimal import Decimal
from importlib import import_module

import pytest
from django.apps import apps as current_apps
from django.contrib.auth.hashers import is_password_usable
from django.core.management.base import CommandError
from django.db import connection
from django.db.migrations.loader import MigrationLoader

from stocks.models import Stock
from users.models import User

migration = import_module("stocks.migrations.0002_default_users")


@pytest.fixture(params=["historical", "present"])
def apps(request):
    """Return the historical models of the migration, and the current models."""
    if request.param == "present":
        return current_apps
    return MigrationLoader(None).project_state(("stocks", "0002_default_users")).apps


@pytest.fixture
def empty(db):
    User.all_objects.all().purge()


@pytest.fixture
def seeded(empty):
    seed(current_apps)


def seed(apps):
    migration.seed(apps, connection.schema_editor())


def remove(apps):
    migration.remove_untouched(apps, connection.schema_editor())


def usernames():
    return set(User.objects.values_list("username", flat=True))


def test_empty_database_gets_alice_and_bob(empty, apps):
    seed(apps)
    assert list(User.objects.order_by("username").values_list("username", "email", "name", "gender", "age")) == [
        ("alice", "alice@example.com", "Alice", "Female", 25),
        ("bob", "bob@example.com", "Bob", "Male", 30),
    ]


def test_each_default_user_has_one_stock(empty, apps):
    seed(apps)
    rows = Stock.objects.order_by("name").values_list("owner__username", "name", "quantity", "price", "is_active")
    assert list(rows) == [("alice", "AAPL", 10, Decimal("175.5"), True), ("bob", "GOOG", 5, Decimal("140.25"), True)]


def test_default_users_have_no_privileges(seeded):
    assert not User.objects.filter(is_staff=True).exists()
    assert not User.objects.filter(is_superuser=True).exists()
    assert set(User.objects.values_list("version", flat=True)) == {1}


@pytest.mark.parametrize("password", ["!default", "default", "alice", "bob", "!"])
@pytest.mark.parametrize("username", ["alice", "bob"])
def test_default_users_cannot_log_in(seeded, anonymous, username, password):
    assert anonymous.post("/api/v1/auth/login", {"username": username, "password": password}).status_code == 401
    assert not is_password_usable(User.objects.get(username=username).password)


def test_migrated_database_is_seeded_once(seeded, apps):
    seed(apps)
    assert (User.objects.count(), Stock.objects.count()) == (2, 2)


def test_database_with_users_is_not_seeded(empty, apps, make_user):
    make_user(username="somebody")
    seed(apps)
    assert usernames() == {"somebody"}


def test_database_with_deleted_users_is_not_seeded(empty, make_user):
    make_user(username="somebody").delete()
    seed(MigrationLoader(None).project_state(("stocks", "0002_default_users")).apps)
    assert usernames() == set()


def test_seed_defaults_false_seeds_nothing(empty, apps, settings):
    settings.SEED_DEFAULTS = False
    seed(apps)
    assert usernames() == set()


def test_reversal_removes_unchanged_defaults(seeded, apps):
    remove(apps)
    assert usernames() == set()
    assert not Stock.objects.exists()


def test_reversal_deletes_rows_permanently(seeded):
    remove(MigrationLoader(None).project_state(("stocks", "0002_default_users")).apps)
    assert not User.all_objects.exists()
    assert not Stock.all_objects.exists()


def change_user():
    User.objects.get(username="alice").save()
    User.objects.filter(username="alice").update(bio="Hello")


def set_password():
    alice = User.objects.get(username="alice")
    alice.set_password("analytical-engine-1843")
    alice.save()


def change_stock():
    Stock.objects.filter(owner__username="alice").update(price=1)


def add_stock():
    Stock.objects.create(owner=User.objects.get(username="alice"), name="MSFT", price=1, quantity=1)


@pytest.mark.parametrize("change", [change_user, set_password, change_stock, add_stock])
def test_reversal_keeps_changed_users(seeded, apps, change):
    change()
    remove(apps)
    assert usernames() == {"alice"}
    assert Stock.objects.filter(owner__username="alice", name="AAPL").exists()


def test_reversal_keeps_other_users(seeded, apps, make_user, make_stock):
    stock = make_stock(make_user(username="somebody"))
    remove(apps)
    assert usernames() == {"somebody"}
    assert list(Stock.objects.all()) == [stock]


def test_migration_after_reversal_seeds_again(seeded):
    historical = MigrationLoader(None).project_state(("stocks", "0002_default_users")).apps
    remove(historical)
    seed(historical)
    assert usernames() == {"alice", "bob"}


def test_reversal_names_symbols_with_new_characters(make_user, make_stock):
    migration_0004 = import_module("stocks.migrations.0004_symbols_with_more_signs")
    apps = MigrationLoader(None).project_state(("stocks", "0004_symbols_with_more_signs")).apps
    make_stock(make_user(), name="BRK.B-1")
    migration_0004.refuse_new_signs(apps, connection.schema_editor())
    stock = make_stock(make_user(), name="^GSPC")
    stock.delete()
    with pytest.raises(CommandError, match=rf"Rename 1 stocks first, beginning with \^GSPC \(id {stock.pk}\)"):
        migration_0004.refuse_new_signs(apps, connection.schema_editor())
