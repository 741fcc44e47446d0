"""Bulk writes that race with other requests lose no row, and never end in status 500."""

import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import pytest
from django.db import connection, connections

from conftest import Client
from records.rest.bulk import operations
from stocks.models import Stock
from users.models import User

STOCKS, USERS = "/api/v1/stocks", "/api/v1/users"

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def _on_postgresql():
    if connection.vendor != "postgresql":
        pytest.skip("SQLite has one writer at a time.")


def call_together(number, call):
    """Call a function with each number below `number`, all at the same time; return the results."""
    barrier = threading.Barrier(number)

    def run(index):
        try:
            barrier.wait()
            return call(index)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(number) as pool:
        return list(pool.map(run, range(number)))


def client_of(client):
    """Return another client with the same credentials, for another thread."""
    other = Client()
    other.credentials(**client._credentials)
    return other


@pytest.fixture
def slow_check(monkeypatch):
    """Let each request check its rows before any of them writes."""
    barrier, numbers, check = threading.Barrier(2), count(), operations.check

    def check_and_wait(*args):
        check(*args)
        if next(numbers) < 2:
            barrier.wait(timeout=10)

    monkeypatch.setattr(operations, "check", check_and_wait)


def accounts(*names):
    return [{"username": name, "email": f"{name}@example.com"} for name in names]


@pytest.mark.usefixtures("_on_postgresql", "slow_check")
def test_value_taken_by_a_concurrent_request_is_an_error_of_its_row(staff):
    bodies = accounts("ada", "bea", "cleo"), accounts("dora", "bea", "eve")
    answers = call_together(2, lambda number: client_of(staff).post(USERS, bodies[number]))
    lost, won = sorted(answers, key=lambda answer: -answer.status_code)
    assert (won.status_code, lost.status_code) == (201, 400)
    assert lost.json()["errors"] == {"1.username": ["Username already in use"], "1.email": ["Email already in use"]}
    assert User.objects.filter(username__in=["ada", "bea", "cleo", "dora", "eve"]).count() == 3


@pytest.mark.usefixtures("_on_postgresql", "slow_check")
def test_other_rows_are_stored_when_a_value_was_taken(staff):
    bodies = accounts("ada", "bea", "cleo"), accounts("dora", "bea", "eve")
    answers = call_together(2, lambda number: client_of(staff).post(f"{USERS}?atomic=false", bodies[number]))
    assert sorted(answer.json()["succeeded"] for answer in answers) == [2, 3]
    assert User.objects.filter(username__in=["ada", "bea", "cleo", "dora", "eve"]).count() == 5


@pytest.mark.usefixtures("_on_postgresql", "slow_check")
def test_names_get_different_usernames_in_concurrent_requests(staff):
    body = [{"name": "John Doe"}] * 20
    answers = call_together(2, lambda number: client_of(staff).post(USERS, body))
    names = [item["username"] for answer in answers for item in answer.json()["items"]]
    assert len(set(names)) == 40


@pytest.mark.usefixtures("_on_postgresql")
def test_requests_in_opposite_orders_do_not_deadlock(owner, make_stock):
    keys = [make_stock(owner.user).pk for _ in range(50)]

    def change(number):
        body = [{"id": key, "price": number + 2} for key in (keys if number % 2 else keys[::-1])]
        return client_of(owner).patch(STOCKS, body).status_code

    assert call_together(6, change) == [200] * 6
    assert set(Stock.objects.filter(pk__in=keys).values_list("version", flat=True)) == {7}
    assert len(set(Stock.objects.filter(pk__in=keys).values_list("price", flat=True))) == 1


@pytest.mark.usefixtures("_on_postgresql")
def test_creations_in_opposite_orders_end_in_no_crash(staff):
    names = [f"user{number}" for number in range(30)]

    def create(number):
        body = accounts(*(names if number % 2 else names[::-1]))
        return client_of(staff).post(f"{USERS}?atomic=false", body)

    answers = call_together(4, create)
    assert [answer.status_code for answer in answers] == [207] * 4
    assert sum(answer.json()["succeeded"] for answer in answers) == 30


@pytest.mark.usefixtures("_on_postgresql")
def test_exactly_one_of_several_changes_of_a_version_wins(owner, make_stock):
    keys = [make_stock(owner.user).pk for _ in range(10)]

    def change(number):
        body = [{"id": key, "version": 1, "price": number + 2} for key in keys]
        return client_of(owner).patch(f"{STOCKS}?atomic=false", body).json()["succeeded"]

    assert sorted(call_together(5, change)) == [0, 0, 0, 0, 10]


# Conflicts that no check finds


def break_constraint_of(monkeypatch, name):
    """Let the database refuse the user with this name, as a constraint that the checks do not know would."""
    original = User.prepare_for_insert.__func__

    def prepare(cls, rows):
        original(cls, rows)
        for row in rows:
            if row.username == name:
                row.age = 500

    monkeypatch.setattr(User, "prepare_for_insert", classmethod(prepare))


def test_row_with_an_unknown_conflict_is_found(staff, monkeypatch):
    break_constraint_of(monkeypatch, "bea")
    body = accounts("ada", "bea", "cleo", "dora", "eve")
    answer = staff.post(USERS, body)
    assert (answer.status_code, answer.json()["errors"]) == (400, {"1.age": ["Age must be from 0 to 150."]})
    assert not User.objects.filter(username="ada").exists()
    answer = staff.post(f"{USERS}?atomic=false", body)
    assert [result["status"] for result in answer.json()["results"]] == [201, 400, 201, 201, 201]
    assert User.objects.filter(username__in=["ada", "bea", "cleo", "dora", "eve"]).count() == 4
