from decimal import Decimal
from importlib import import_module

import pytest
from django.apps import apps as present_apps
from django.contrib.auth.hashers import is_password_usable
from django.core.management.base import CommandError
from django.db import connection
from django.db.migrations.loader import MigrationLoader

from stocks.models import Stock
from users.models import User

migration = import_module("stocks.migrations.0002_default_users")


@pytest.fixture(params=["historical", "present"])
def apps(request):
    """The models that the migration sees, and those of today."""
    if request.param == "present":
        return present_apps
    return MigrationLoader(None).project_state(("stocks", "0002_default_users")).apps


@pytest.fixture
def empty(db):
    User.all_objects.all().purge()


@pytest.fixture
def seeded(empty):
    seed(present_apps)


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


def test_each_default_holds_one_stock(empty, apps):
    seed(apps)
    rows = Stock.objects.order_by("name").values_list("owner__username", "name", "quantity", "price", "is_active")
    assert list(rows) == [("alice", "AAPL", 10, Decimal("175.5"), True), ("bob", "GOOG", 5, Decimal("140.25"), True)]


def test_defaults_have_no_privileges(seeded):
    assert not User.objects.filter(is_staff=True).exists()
    assert not User.objects.filter(is_superuser=True).exists()
    assert set(User.objects.values_list("version", flat=True)) == {1}


@pytest.mark.parametrize("password", ["!default", "default", "alice", "bob", "!"])
@pytest.mark.parametrize("username", ["alice", "bob"])
def test_defaults_cannot_log_in(seeded, anonymous, username, password):
    assert anonymous.post("/api/v1/auth/login", {"username": username, "password": password}).status_code == 401
    assert not is_password_usable(User.objects.get(username=username).password)


def test_migrated_database_is_seeded_once(seeded, apps):
    seed(apps)
    assert (User.objects.count(), Stock.objects.count()) == (2, 2)


def test_database_with_users_is_left_alone(empty, apps, make_user):
    make_user(username="somebody")
    seed(apps)
    assert usernames() == {"somebody"}


def test_database_with_deleted_users_is_left_alone(empty, make_user):
    make_user(username="somebody").delete()
    seed(MigrationLoader(None).project_state(("stocks", "0002_default_users")).apps)
    assert usernames() == set()


def test_seed_defaults_false_skips(empty, apps, settings):
    settings.SEED_DEFAULTS = False
    seed(apps)
    assert usernames() == set()


def test_undoing_removes_untouched_defaults(seeded, apps):
    remove(apps)
    assert usernames() == set()
    assert not Stock.objects.exists()


def test_undoing_leaves_no_trace(seeded):
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


@pytest.mark.parametrize("touch", [change_user, set_password, change_stock, add_stock])
def test_undoing_keeps_what_was_touched(seeded, apps, touch):
    touch()
    remove(apps)
    assert usernames() == {"alice"}
    assert Stock.objects.filter(owner__username="alice", name="AAPL").exists()


def test_undoing_keeps_other_users(seeded, apps, make_user, make_stock):
    stock = make_stock(make_user(username="somebody"))
    remove(apps)
    assert usernames() == {"somebody"}
    assert list(Stock.objects.all()) == [stock]


def test_undoing_and_doing_again_seeds_again(seeded):
    historical = MigrationLoader(None).project_state(("stocks", "0002_default_users")).apps
    remove(historical)
    seed(historical)
    assert usernames() == {"alice", "bob"}


def test_going_back_names_symbols_with_new_signs(make_user, make_stock):
    signs = import_module("stocks.migrations.0004_symbols_with_more_signs")
    apps = MigrationLoader(None).project_state(("stocks", "0004_symbols_with_more_signs")).apps
    make_stock(make_user(), name="BRK.B-1")
    signs.refuse_new_signs(apps, connection.schema_editor())
    stock = make_stock(make_user(), name="^GSPC")
    stock.delete()
    with pytest.raises(CommandError, match=rf"Rename 1 stocks first, beginning with \^GSPC \(id {stock.pk}\)"):
        signs.refuse_new_signs(apps, connection.schema_editor())
