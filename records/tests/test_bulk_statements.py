"""A bulk write takes the same statements for one row and for a thousand."""

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from records.rest.bulk import MAX_ROWS
from stocks.models import Stock
from users.delivery import courier
from users.models import User

STOCKS, USERS = "/api/v1/stocks", "/api/v1/users"
SIZES = (1, 10, MAX_ROWS)


def stock_values(number):
    return {"name": f"S{number}", "price": 1 + number, "quantity": 1 + number}


def counted(send, *arguments):
    """Return the number of statements of a request that succeeds."""
    with CaptureQueriesContext(connection) as queries:
        answer = send(*arguments)
    assert answer.status_code in {200, 201, 207}, answer.content[:1000]
    return len(queries)


def assert_constant(counts):
    assert len(set(counts)) == 1, counts
    assert counts[0] <= 30


@pytest.fixture(autouse=True)
def _later_mails(monkeypatch):
    """Leave the queued mails to the courier, which sends each by its own statements."""
    monkeypatch.setattr(courier, "notify", lambda: None)


@pytest.fixture
def make_stocks(owner):
    def make(count):
        return Stock.objects.bulk_create([Stock(owner=owner.user, **stock_values(number)) for number in range(count)])

    return make


@pytest.fixture
def make_users(db):
    def make(count):
        start = User.all_objects.count()
        names = [f"bulk-{number}" for number in range(start, start + count)]
        return User.objects.bulk_create(User.objects.new_user(name, f"{name}@example.com") for name in names)

    return make


@pytest.mark.parametrize("query", ["", "?atomic=false"])
def test_creation_of_stocks(staff, query):
    staff.get(STOCKS)
    bodies = [[stock_values(number) | {"user_id": staff.user.pk} for number in range(size)] for size in SIZES]
    assert_constant([counted(staff.post, STOCKS + query, body) for body in bodies])


@pytest.mark.parametrize("query", ["", "?atomic=false"])
def test_change_of_stocks(owner, make_stocks, query):
    fields = [{"price": 7.25}, {"name": "NEW", "quantity": 3}, {"is_active": False}, {}]
    counts = []
    for size in SIZES:
        body = [{"id": row.pk, "version": 1, **fields[index % 4]} for index, row in enumerate(make_stocks(size))]
        for item in body[4:]:
            item |= {"quantity": item["id"]} if "quantity" in item else {}
        counts.append(counted(owner.patch, STOCKS + query, body))
    assert_constant(counts)


@pytest.mark.parametrize("query", ["?reason=sold", "?atomic=false"])
def test_deletion_of_stocks(owner, make_stocks, query):
    bodies = [[row.pk for row in make_stocks(size)] for size in SIZES]
    assert_constant([counted(owner.delete, STOCKS + query, body) for body in bodies])


@pytest.mark.parametrize("fields", ["username, email", "name"])
def test_creation_of_users(staff, fields):
    counts = []
    for size in SIZES:
        names = [f"person-{size}-{number}" for number in range(size)]
        by_email = [{"username": name, "email": f"{name}@example.com", "age": 20} for name in names]
        by_name = [{"name": f"Person {size} {number}"} for number in range(size)]
        counts.append(counted(staff.post, USERS, by_name if fields == "name" else by_email))
    assert_constant(counts)


def test_change_of_users(superuser, make_users):
    counts = []
    for size in SIZES:
        body = [
            {"id": user.pk, "email": f"new-{user.pk}@example.com", "username": f"new-{user.pk}", "age": user.pk % 100}
            | ({"is_active": False} if index % 2 == 0 else {"is_staff": True})
            for index, user in enumerate(make_users(size))
        ]
        counts.append(counted(superuser.patch, USERS, body))
    assert_constant(counts)


def test_change_and_deletion_of_users_by_staff(staff, make_users):
    users = [make_users(size) for size in SIZES]
    bodies = [[{"id": user.pk, "username": f"x-{user.pk}"} for user in chosen] for chosen in users]
    assert_constant([counted(staff.patch, USERS, body) for body in bodies])
    assert_constant([counted(staff.delete, USERS, [user.pk for user in chosen]) for chosen in users])
