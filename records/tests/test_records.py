"""Versions, timestamps and soft deletion of records, for each way of changing a row."""

from decimal import Decimal

import pytest
from django.core.exceptions import ValidationError
from django.db import DatabaseError, IntegrityError, NotSupportedError, connection, transaction
from django.db.models import F
from django.test.utils import CaptureQueriesContext

from stocks.models import Stock
from users.models import User


@pytest.fixture
def stock(owner, make_stock):
    return Stock.objects.get(pk=make_stock(owner.user).pk)


def stored(row):
    return type(row).all_objects.get(pk=row.pk)


def set_clause(queries):
    """Return the SET clause of the only UPDATE in `queries`."""
    [sql] = [query["sql"] for query in queries if " SET " in query["sql"]]
    return sql.partition(" SET ")[2].partition(" WHERE ")[0]


# Saving


def test_new_row_starts_at_version_one(stock):
    assert (stock.version, stock.created_at <= stock.updated_at) == (1, True)


def test_save_writes_only_changed_columns(stock):
    stock.price = Decimal("2")
    with CaptureQueriesContext(
        connection,
    ) as queries:
        stock.save()
    assert {name for name in Stock._meta._forward_fields_map if f'"{name}" =' in set_clause(queries)} == {
        "price",
        "updated_at",
        "version",
    }


def test_patch_writes_only_changed_columns(owner, stock):
    with CaptureQueriesContext(connection) as queries:
        owner.patch(f"/api/v1/stocks/{stock.pk}", {"price": 2, "quantity": stock.quantity})
    assert '"quantity" =' not in set_clause(queries)
    assert '"price" =' in set_clause(queries)


def test_save_without_a_change_writes_nothing(stock, django_assert_num_queries):
    with django_assert_num_queries(0):
        stock.save()
        stock.save(update_fields=["price"])


@pytest.mark.django_db(transaction=True)
def test_save_right_after_creation_writes_nothing(owner, make_stock, django_assert_num_queries):
    stock = make_stock(owner.user, price=Decimal("1.5"))
    with django_assert_num_queries(0):
        stock.save()


@pytest.mark.django_db(transaction=True)
def test_save_twice_writes_once(stock, django_assert_num_queries):
    stock.price = Decimal("2")
    stock.save()
    with django_assert_num_queries(0):
        stock.save()
    assert stored(stock).version == 2


@pytest.mark.parametrize("unchanged", [{"price": 175.5, "quantity": 10}, {"name": "AAPL"}, {"name": "aapl"}, {}])
def test_patch_without_a_change_keeps_the_version(owner, stock, unchanged):
    body = owner.patch(f"/api/v1/stocks/{stock.pk}", unchanged).json()
    assert (body["version"], stored(stock).updated_at) == (1, stock.updated_at)


def test_update_fields_writes_only_these(stock):
    stock.price, stock.quantity = Decimal("2"), 99
    stock.save(update_fields=["price"])
    assert (stored(stock).price, stored(stock).quantity) == (2, 10)
    stock.save()
    assert stored(stock).quantity == 99


def test_save_does_not_write_deferred_columns(stock):
    partial = Stock.objects.only("price").get(pk=stock.pk)
    Stock.objects.filter(pk=stock.pk).update(quantity=99)
    partial.price = Decimal("2")
    partial.save()
    assert (stored(stock).price, stored(stock).quantity) == (2, 99)


def test_concurrent_saves_of_different_columns_are_kept(stock):
    other = stored(stock)
    stock.price, other.quantity = Decimal("2"), 99
    stock.save()
    other.save()
    row = stored(stock)
    assert (row.price, row.quantity, row.version) == (2, 99, 3)


def test_save_updates_version_of_the_instance(stock):
    stock.price = Decimal("2")
    stock.save()
    assert stock.version == 2


def test_saved_expression_is_applied_once(stock):
    stock.quantity = F("quantity") + 5
    stock.save()
    stock.save()
    assert (stock.quantity, stored(stock).quantity, stored(stock).version) == (15, 15, 2)


def test_save_after_refresh_writes_nothing(stock, django_assert_num_queries):
    stock.price = Decimal("2")
    stock.refresh_from_db()
    with django_assert_num_queries(0):
        stock.save()
    assert stock.price == Decimal("175.5")


def test_failed_save_can_be_repeated(stock):
    stock.price = Decimal(-1)
    with pytest.raises(IntegrityError), transaction.atomic():
        stock.save()
    stock.quantity, stock.price = 7, Decimal("2")
    stock.save()
    assert (stored(stock).price, stored(stock).quantity, stored(stock).version) == (2, 7, 2)


def test_version_cannot_be_set(stock):
    stock.version = 99
    stock.save()
    stock.price = Decimal("2")
    stock.save()
    assert stored(stock).version == 2


def test_save_of_a_purged_row_creates_nothing(stock):
    Stock.objects.filter(pk=stock.pk).purge()
    stock.price = Decimal("2")
    with pytest.raises(DatabaseError), transaction.atomic():
        stock.save()
    assert not Stock.all_objects.filter(pk=stock.pk).exists()


# Versions


def save(rows, row):
    row.is_active = False
    row.save()


def update_or_create(rows, row):
    type(row).objects.update_or_create(pk=row.pk, defaults={"is_active": False})


def bulk_update(rows, row):
    row.is_active = False
    type(row).objects.bulk_update([row], ["is_active"])


CHANGES = [
    save,
    update_or_create,
    bulk_update,
    lambda rows, row: rows.update(is_active=False),
    lambda rows, row: rows.update(created_at=F("updated_at")),
    lambda rows, row: row.delete(),
    lambda rows, row: rows.delete(),
]
changes = pytest.mark.parametrize(
    "change",
    CHANGES,
    ids=["save", "update_or_create", "bulk_update", "update", "expression", "delete", "delete_rows"],
)


@changes
def test_every_change_of_a_stock_increments_its_version(stock, change):
    before = stored(stock)
    change(Stock.objects.filter(pk=stock.pk), stock)
    assert (stored(stock).version, stored(stock).updated_at > before.updated_at) == (2, True)


@changes
def test_every_change_of_a_user_increments_its_version(make_user, change):
    user = make_user()
    change(User.objects.filter(pk=user.pk), user)
    assert stored(user).version == 2


def test_restore_increments_the_version(stock):
    stock.delete()
    stock.restore()
    assert (stock.version, stored(stock).version) == (3, 3)


def test_update_by_related_manager_increments_versions(owner, make_stock):
    rows = [make_stock(owner.user) for _ in range(3)]
    owner.user.stocks.update(quantity=F("quantity") * 2)
    assert [(stored(row).quantity, stored(row).version) for row in rows] == [(20, 2)] * 3


def test_repricing_increments_versions(staff, stock):
    staff.post("/api/v1/stocks/reprice", {"prices": {"AAPL": 2}})
    assert (stored(stock).price, stored(stock).version) == (2, 2)


def test_bulk_update_increments_each_version_once(owner, make_stock):
    rows = [make_stock(owner.user) for _ in range(5)]
    for number, row in enumerate(rows, start=1):
        row.quantity = number
    Stock.objects.bulk_update(rows, ["quantity"], batch_size=2)
    assert [(stored(row).quantity, stored(row).version) for row in rows] == [(n, 2) for n in range(1, 6)]


def test_bulk_created_rows_start_at_version_one(owner):
    rows = Stock.objects.bulk_create([Stock(owner=owner.user, name="A", price=1, quantity=1) for _ in range(2)])
    assert [stored(row).version for row in rows] == [1, 1]


def test_upsert_is_refused(owner):
    row = Stock(owner=owner.user, name="A", price=1, quantity=1)
    with pytest.raises(NotSupportedError):
        Stock.objects.bulk_create([row], update_conflicts=True, update_fields=["price"], unique_fields=["id"])


# Deletion


def test_deleted_row_is_hidden_but_kept(stock):
    stock.delete(reason="sold")
    assert not Stock.objects.filter(pk=stock.pk).exists()
    assert (stock.is_deleted, stock.deletion_reason, stock.deleted_by) == (True, "sold", None)


def test_deletion_stores_user_and_reason(owner, stock):
    owner.delete(f"/api/v1/stocks/{stock.pk}?reason=sold")
    assert (stored(stock).deleted_by, stored(stock).deletion_reason) == (owner.user.pk, "sold")


def test_second_deletion_keeps_the_first_details(stock):
    stock.delete(reason="first")
    first_deletion = stored(stock)
    stock.delete(reason="second")
    assert (stored(stock).deletion, stored(stock).deletion_reason, stored(stock).version) == (
        first_deletion.deletion,
        "first",
        2,
    )


def test_restore_clears_deletion_details(stock):
    stock.delete(reason="sold")
    assert stock.restore() == 1
    row = Stock.objects.get(pk=stock.pk)
    assert (row.deleted_at, row.deleted_by, row.deletion_reason, row.deletion) == (None, None, "", None)


def test_restoring_a_live_row_changes_nothing(stock):
    assert (stock.restore(), stored(stock).version) == (0, 1)


def test_stocks_are_deleted_with_their_user(owner, stranger, make_stock):
    own_stock, other_stock = make_stock(owner.user), make_stock(stranger.user)
    owner.user.delete(reason="gone")
    assert stored(own_stock).deletion == stored(owner.user).deletion is not None
    assert (stored(own_stock).deletion_reason, stored(other_stock).deletion) == ("gone", None)


def test_restoring_a_user_restores_only_stocks_deleted_with_them(owner, make_stock):
    earlier, together, other = (make_stock(owner.user) for _ in range(3))
    earlier.delete()
    owner.user.delete()
    owner.user.restore()
    assert set(owner.user.stocks.all()) == {together, other}
    assert stored(earlier).is_deleted


def test_stocks_deleted_together_before_their_user_stay_deleted(owner, make_stock):
    rows = [make_stock(owner.user) for _ in range(2)]
    Stock.objects.filter(owner=owner.user).delete()
    owner.user.delete()
    owner.user.restore()
    assert all(stored(row).is_deleted for row in rows)


def test_users_deleted_together_are_restored_separately(owner, stranger, make_stock):
    own_stock, other_stock = make_stock(owner.user), make_stock(stranger.user)
    User.objects.filter(pk__in=[owner.user.pk, stranger.user.pk]).delete()
    owner.user.restore()
    assert (stored(own_stock).is_deleted, stored(other_stock).is_deleted, stored(stranger.user).is_deleted) == (
        False,
        True,
        True,
    )


def test_repeated_deletion_and_restore_keep_deleted_stocks_deleted(owner, make_stock):
    deleted = make_stock(owner.user)
    owner.user.delete()
    owner.user.restore()
    deleted.delete()
    owner.user.delete()
    owner.user.restore()
    assert stored(deleted).is_deleted


def test_stock_of_a_deleted_user_cannot_be_restored(owner, stock):
    owner.user.delete()
    with pytest.raises(ValidationError, match="restore the owner first"):
        stock.restore()
    assert stored(stock).is_deleted


def test_restoring_a_stock_of_a_deleted_user_is_409(staff, owner, stock):
    owner.user.delete()
    assert staff.post(f"/api/v1/stocks/{stock.pk}/restore").status_code == 409


@pytest.mark.parametrize("rows", [1, 20])
def test_deletion_query_count_is_constant(owner, make_stock, rows, django_assert_max_num_queries):
    for _ in range(rows):
        make_stock(owner.user)
    # One query for each other model whose rows are deleted with it.
    others = len(User.objects.all()._dependents()) - 1
    with django_assert_max_num_queries(11 + 2 * others):
        _, counts = User.objects.filter(pk=owner.user.pk).delete()
    assert counts == {"users.User": 1, "stocks.Stock": rows}


def test_purge_removes_a_user_and_their_stocks(owner, make_stock):
    live, deleted = make_stock(owner.user), make_stock(owner.user)
    deleted.delete()
    User.objects.filter(pk=owner.user.pk).purge()
    assert not Stock.all_objects.filter(pk__in=[live.pk, deleted.pk]).exists()
    assert not User.all_objects.filter(pk=owner.user.pk).exists()


# Uniqueness


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [("username", "TAKEN", "Username already in use"), ("email", "Taken@Example.org", "Email already in use")],
)
def test_deleted_user_keeps_username_and_email(staff, make_user, field, value, message):
    make_user(username="taken", email="taken@example.org").delete()
    other = {"username": "free", "email": "free@example.org", field: value}
    with pytest.raises(ValidationError, match=message):
        User(**other, password="!").full_clean()
    assert staff.post("/api/v1/users", other).json()["errors"] == {field: [message]}


@pytest.mark.parametrize("field", ["username", "email"])
def test_unchanged_value_does_not_conflict_with_itself(owner, field):
    value = getattr(owner.user, field).upper()
    assert owner.patch("/api/v1/users/me", {field: value}).status_code == 200
    assert owner.patch("/api/v1/users/me", {field: value}).status_code == 200


def test_several_users_can_have_no_email(make_user):
    assert {make_user(email=None).email, make_user(email=None).email} == {None}
