"""Writes of one row: one statement with their audit entry where the database can, compiled once, read back by none."""

import contextlib
import json
from decimal import Decimal

import pytest
from django.db import DatabaseError, DataError, connection, models, transaction
from django.db.models import F
from django.test.utils import CaptureQueriesContext

from records.audit.models import AuditEntry
from records.db.compiled import writes
from records.models.values import as_stored
from stocks.models import Stock
from users.models import User

STOCKS = "/api/v1/stocks"
#: Statements of a request besides those of the write: the one for session and user.
AUTHENTICATION = 1


@pytest.fixture
def stock(owner, make_stock):
    return Stock.objects.get(pk=make_stock(owner.user).pk)


@pytest.fixture
def compilations(monkeypatch):
    """The statements that are compiled during the test."""
    writes._insert_of_columns.cache_clear()
    writes._update_of_columns.cache_clear()
    compiled = []
    for name in ("_compile_insert", "_compile_update"):
        compile_statement = getattr(writes, name)

        def record(*args, compile_statement=compile_statement):
            compiled.append(compile_statement(*args).sql)
            return compile_statement(*args)

        monkeypatch.setattr(writes, name, record)
    return compiled


def statements(queries):
    """Return the statements that read or write rows."""
    return [query["sql"] for query in queries if query["sql"].split()[0] in {"SELECT", "INSERT", "UPDATE", "WITH"}]


def by_vendor(postgresql, sqlite):
    return postgresql if connection.vendor == "postgresql" else sqlite


# Round trips


@pytest.mark.django_db(transaction=True)
def test_create_takes_one_statement_with_its_entry(owner):
    owner.get("/api/v1/users/me")
    with CaptureQueriesContext(connection) as queries:
        owner.post(STOCKS, {"name": "AAPL", "price": 1, "quantity": 1})
    assert len(statements(queries)) == AUTHENTICATION + by_vendor(1, 2)
    if connection.vendor == "postgresql":
        assert len(queries) == AUTHENTICATION + 1  # without BEGIN and COMMIT


def test_patch_takes_a_lock_and_one_statement_with_its_entry(owner, stock):
    with CaptureQueriesContext(connection) as queries:
        owner.patch(f"{STOCKS}/{stock.pk}", {"price": 3})
    assert len(statements(queries)) == AUTHENTICATION + 1 + by_vendor(1, 2)


# What was written


@pytest.mark.parametrize(
    "body",
    [
        {"name": "aapl", "price": 175.5, "quantity": 10},
        {"name": "^GSPC", "price": 0.0001, "quantity": 2**53, "is_active": False},
        {"name": "BRK.B", "price": 99999999999.9999, "quantity": 1},
    ],
)
def test_responses_to_writes_are_the_row_as_it_is_read(owner, body):
    created = owner.post(STOCKS, body)
    url = f"{STOCKS}/{created.json()['id']}"
    assert created.content == owner.get(url).content
    assert owner.patch(url, {"name": "msft"}).content == owner.get(url).content
    assert owner.put(url, body).content == owner.get(url).content
    assert owner.patch(url, {}).content == owner.get(url).content


def test_responses_to_writes_of_users_are_the_row_as_it_is_read(staff):
    created = staff.post("/api/v1/users", {"name": "Zoë Doe", "age": 30})
    url = f"/api/v1/users/{created.json()['id']}"
    fields = ",".join(created.json())
    assert created.json() == staff.get(f"{url}?fields={fields}").json()
    assert staff.patch(url, {"email": "ZOE@EXAMPLE.COM"}).json() == staff.get(f"{url}?fields={fields}").json()


@pytest.mark.parametrize(("price", "stored"), [("1.00005", "1.0001"), ("1.00004", "1.0000"), (7, "7.0000")])
def test_instance_knows_what_the_database_stored(owner, price, stored):
    stock = Stock(owner=owner.user, name="aapl", price=price, quantity=1)
    stock.save()
    values = dict(stock.stored_row.values)
    assert values == Stock.all_objects.filter(pk=stock.pk).values().get()
    if connection.vendor == "postgresql":  # SQLite rounds half-even
        assert values["price"] == Decimal(stored) == as_stored(Stock._meta.get_field("price"), price)


def test_entry_of_a_creation_names_row_and_owner(owner):
    stock = Stock.objects.create(owner=owner.user, name="AAPL", price=1, quantity=1)
    user = User.objects.create_user("newcomer", "newcomer@example.com")
    for row, owner_id in ((stock, owner.user.pk), (user, user.pk)):
        entry = AuditEntry.objects.of_row(type(row), row.pk).get()
        assert (entry.action, entry.owner_id, entry.request_id) == ("create", owner_id, None)


def test_expressions_are_read_back(stock):
    stock.quantity = F("quantity") + 5
    stock.name = "msft"
    stock.save()
    assert (stock.quantity, stock.version) == (15, 2)
    changes = AuditEntry.objects.of_row(Stock, stock.pk).latest("id").changes
    assert changes == {"quantity": [10, 15], "name": ["AAPL", "MSFT"]}
    stock.save()
    assert stock.version == 2


def test_saved_columns_leave_other_assigned_values_alone(stock):
    stock.price, stock.quantity = Decimal(2), 7
    stock.save(update_fields=["price"])
    assert (stock.quantity, Stock.objects.get(pk=stock.pk).quantity) == (7, 10)
    stock.save()
    assert Stock.objects.get(pk=stock.pk).quantity == 7


def test_save_of_an_old_instance_keeps_what_others_wrote(stock):
    other = Stock.objects.get(pk=stock.pk)
    other.quantity = 99
    other.save()
    stock.price = Decimal(2)
    stock.save()
    stock.name = "MSFT"
    stock.save()
    for row in (stock, Stock.objects.get(pk=stock.pk)):
        assert (row.quantity, row.price, row.name, row.version) == (99, 2, "MSFT", 4)


@pytest.mark.parametrize(
    ("name", "assigned", "others"),
    [("name", "aapl", "MSFT"), ("price", "175.5", 3), ("price", 1.1, 3), ("quantity", "1", 9)],
)
def test_value_that_was_converted_when_stored_is_not_written_again(owner, name, assigned, others):
    values = {"name": "AAPL", "price": 1, "quantity": 1} | {name: assigned}
    stock = Stock(owner=owner.user, **values)
    stock.save()
    Stock.objects.filter(pk=stock.pk).update(**{name: others})
    for is_active in (False, True):
        stock.is_active = is_active
        stock.save()
    assert getattr(Stock.objects.get(pk=stock.pk), name) == others


class RollbackError(Exception):
    pass


@pytest.mark.django_db(transaction=True)
def test_value_of_others_that_was_rolled_back_is_not_written(owner, make_stock):
    stock, other = (Stock.objects.get(pk=pk) for pk in [make_stock(owner.user).pk] * 2)
    with contextlib.suppress(RollbackError), transaction.atomic():
        other.name = "ROLLED"
        other.save()
        stock.quantity = 2
        stock.save()
        raise RollbackError
    stock.save()
    assert Stock.objects.values_list("name", "quantity").get(pk=stock.pk) == ("AAPL", 2)


@pytest.mark.django_db(transaction=True)
def test_committed_change_of_others_stays(owner, make_stock):
    stock = Stock.objects.get(pk=make_stock(owner.user).pk)
    with transaction.atomic():
        stock.price = Decimal(2)
        stock.save()
    Stock.objects.filter(pk=stock.pk).update(name="OTHER", price=3)
    stock.quantity = 7
    stock.save()
    assert Stock.objects.values_list("name", "price", "quantity").get(pk=stock.pk) == ("OTHER", 3, 7)
    assert AuditEntry.objects.of_row(Stock, stock.pk).latest("id").changes == {"quantity": [10, 7]}


@pytest.mark.django_db(transaction=True)
def test_account_that_was_deactivated_meanwhile_stays_inactive(make_user):
    user = User.objects.get(pk=make_user().pk)
    user.username = "renamed"
    user.save()  # opens a transaction itself
    User.objects.filter(pk=user.pk).update(is_active=False)
    user.age = 5
    user.save()
    assert User.objects.values_list("is_active", "age").get(pk=user.pk) == (False, 5)


@pytest.mark.parametrize("quantity", [50, F("quantity") + 1])
def test_entry_names_the_new_owner_of_a_row_that_was_read_before(owner, stranger, stock, quantity):
    Stock.objects.filter(pk=stock.pk).update(owner=stranger.user)
    stock.quantity = quantity
    stock.save()
    assert AuditEntry.objects.of_row(Stock, stock.pk).latest("id").owner_id == stranger.user.pk


@pytest.mark.parametrize(("name", "value"), [("quantity", 2**70), ("price", Decimal("1e30"))])
def test_number_beyond_the_column_is_an_error_of_the_database(owner, name, value):
    values = {"name": "AAPL", "price": 1, "quantity": 1} | {name: value}
    error = DataError if connection.vendor == "postgresql" else (OverflowError, DatabaseError, ArithmeticError)
    with pytest.raises(error), transaction.atomic():
        Stock(owner=owner.user, **values).save()


def test_value_with_more_digits_than_stored_is_written_once(owner):
    stock = Stock(owner=owner.user, name="AAPL", price="1.23456", quantity=1)
    for _ in range(3):
        stock.save()
    assert stock.version == 1


@pytest.mark.parametrize("value", [(1, 2), {1: 2}, {"a": [None, True, 1.5]}, None, "text"])
def test_json_is_compared_and_logged_as_it_is_stored(value):
    column = models.JSONField(null=True)
    assert as_stored(column, value) == json.loads(json.dumps(value))


@pytest.mark.django_db(transaction=True)
def test_row_that_violates_a_constraint_leaves_no_entry(owner):
    before = AuditEntry.objects.count()
    with pytest.raises(Exception, match="stocks_price_check"):
        Stock.objects.create(owner=owner.user, name="AAPL", price=-1, quantity=1)
    assert AuditEntry.objects.count() == before


@pytest.mark.django_db(transaction=True)
def test_creation_and_entry_are_rolled_back_together(owner):
    before = AuditEntry.objects.count()
    with transaction.atomic():
        stock = Stock.objects.create(owner=owner.user, name="AAPL", price=1, quantity=1)
        transaction.set_rollback(True)
    assert AuditEntry.objects.count() == before
    stock.save()
    assert Stock.objects.filter(pk=stock.pk).exists()


# Compiling


def test_statements_are_compiled_once_for_a_set_of_columns(owner, compilations):
    for price in (1, 2):
        stock = Stock.objects.create(owner=owner.user, name="AAPL", price=price, quantity=1)
        stock.price += 5
        stock.save()
    assert len(compilations) == 2
    stock.name = "MSFT"
    stock.save()
    assert len(compilations) == 3


def test_expressions_are_compiled_each_time(stock, compilations):
    for add in (1, 2):
        stock.quantity = F("quantity") + add
        stock.save()
    assert (len(compilations), stock.quantity) == (2, 13)


# Databases without RETURNING


def test_rows_are_read_where_statements_return_none(owner, monkeypatch):
    if connection.vendor == "postgresql":
        pytest.skip("PostgreSQL has RETURNING")
    monkeypatch.setattr(connection.features, "can_return_columns_from_insert", False)
    writes._insert_of_columns.cache_clear()
    writes._update_of_columns.cache_clear()
    try:
        created = owner.post(STOCKS, {"name": "aapl", "price": 1, "quantity": 1})
        url = f"{STOCKS}/{created.json()['id']}"
        assert created.content == owner.get(url).content
        assert owner.patch(url, {"price": 2}).content == owner.get(url).content
        gone = Stock(pk=2**40, owner=owner.user, name="AAPL", price=1, quantity=1)
        assert writes.update(Stock, gone.pk, {Stock._meta.get_field("price"): 2}, "default").run() is None
    finally:
        writes._insert_of_columns.cache_clear()
        writes._update_of_columns.cache_clear()


def test_returned_rows_are_converted_as_read_rows(owner, stock):
    stock.delete(reason="sold")  # sets a time and a UUID
    for row in (owner.user, stock):
        model = type(row)
        row.refresh_from_db(from_queryset=model.all_objects)
        values = {field: getattr(row, field.attname) for field in model._meta.concrete_fields}
        values = {field: value for field, value in values.items() if field.name not in {"id", "version"}}
        returned = writes.update(model, row.pk, values, "default").run()
        assert returned == models.QuerySet(model).filter(pk=row.pk).values().get()
