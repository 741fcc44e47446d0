"""Concurrent admin requests: the form reports a lost race, and nothing is done or logged twice."""

import re
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Event

import pytest
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group
from django.db import connection, connections, transaction
from django.db.models import ProtectedError
from django.test import Client

from records.audit.models import AuditEntry
from records.tests.browser import opened_form
from stocks.models import Stock
from users.models import LAST_SUPERUSER_MESSAGE, User

pytestmark = pytest.mark.django_db(transaction=True)

USERS, STOCKS, GROUPS = "/admin/users/user/", "/admin/stocks/stock/", "/admin/auth/group/"
WAITERS = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
NO_PASSWORD = {"usable_password": "false"}
on_postgresql = pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite has one writer at a time")


@pytest.fixture
def superuser_account(make_user):
    return make_user(is_staff=True, is_superuser=True)


@pytest.fixture
def browser(superuser_account):
    """Return a function that creates a client logged in as the superuser."""

    def make() -> Client:
        client = Client(raise_request_exception=False)
        client.force_login(superuser_account)
        return client

    return make


def run_concurrently(*requests):
    """Run the functions in parallel threads, each with its own connection, and return their results."""
    barrier = Barrier(len(requests))

    def run(operation):
        try:
            barrier.wait()
            return operation()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(len(requests)) as pool:
        return [future.result() for future in [pool.submit(run, operation) for operation in requests]]


def posting(browser, path, body):
    client = browser()
    return lambda: client.post(path, body)


def changing(browser, path, **changes):
    """Open a form, and return a function that submits it with these changes. None stands for an empty checkbox."""
    client = browser()
    form = {name: value for name, value in (opened_form(client, path) | changes).items() if value is not None}
    return lambda: client.post(path, form)


@pytest.fixture
def just_before(monkeypatch):
    """Run a function once in another connection, between the validation of a form and its write."""

    def before(model_admin, method, operation):
        original = getattr(model_admin, method)
        calls = []

        def patched(self, *args, **kwargs):
            if not calls:
                calls.append(True)
                run_concurrently(operation)
            return original(self, *args, **kwargs)

        monkeypatch.setattr(model_admin, method, patched)

    return before


def page_of(answer) -> str:
    assert answer.status_code == 200, answer.content
    return answer.content.decode()


def test_user_added_four_times_concurrently_is_added_once(browser):
    body = {"username": "ada", "email": "ada@example.com", **NO_PASSWORD}
    answers = run_concurrently(*[posting(browser, f"{USERS}add/", body) for _ in range(4)])
    assert sorted(answer.status_code for answer in answers) == [200, 200, 200, 302]
    for answer in answers:
        # The first may commit between the checks of the username and of the address.
        assert answer.status_code == 302 or re.search("(Username|Email) already in use", page_of(answer))
    assert User.objects.filter(username="ada").count() == 1
    assert LogEntry.objects.count() == 1


def test_one_of_four_concurrent_renames_to_the_same_name_succeeds(browser, make_user):
    people = [make_user() for _ in range(4)]
    requests = [changing(browser, f"{USERS}{user.pk}/change/", username="same") for user in people]
    answers = run_concurrently(*requests)
    assert sorted(answer.status_code for answer in answers) == [200, 200, 200, 302]
    assert User.objects.filter(username="same").count() == 1
    assert AuditEntry.objects.filter(action="update", object_type="users").count() == 1


def test_group_added_four_times_concurrently_is_added_once(browser):
    answers = run_concurrently(*[posting(browser, f"{GROUPS}add/", {"name": "Clerks"}) for _ in range(4)])
    assert sorted(answer.status_code for answer in answers) == [200, 200, 200, 302]
    assert all("already exists" in page_of(answer) for answer in answers if answer.status_code == 200)


@on_postgresql
def test_email_taken_between_validation_and_write_is_reported(browser, make_user, just_before):
    user = make_user()
    change = changing(browser, f"{USERS}{user.pk}/change/", email="NEW@example.com")
    just_before(admin.ModelAdmin, "save_model", lambda: User.objects.create_user("first", "new@example.com"))
    assert "Email already in use" in page_of(change())
    user.refresh_from_db()
    assert (user.email != "NEW@example.com", user.version) == (True, 1)
    assert not LogEntry.objects.exists()


@on_postgresql
def test_owner_purged_between_validation_and_write_is_reported(browser, make_user, just_before):
    owner = make_user()
    just_before(admin.ModelAdmin, "save_model", lambda: User.objects.filter(pk=owner.pk).purge())
    body = {"owner": owner.pk, "name": "AAPL", "price": 1, "quantity": 1, "is_active": "on"}
    assert "valid choice" in page_of(browser().post(f"{STOCKS}add/", body))
    assert not Stock.all_objects.filter(owner=owner.pk).exists()


@on_postgresql
def test_constraint_without_validator_is_reported_in_the_form(browser, make_stock, superuser_account, monkeypatch):
    stock = make_stock(superuser_account)
    change = changing(browser, f"{STOCKS}{stock.pk}/change/", price="-1")
    monkeypatch.setattr("django.db.models.Model.validate_constraints", lambda self, exclude=None: None)
    monkeypatch.setattr(Stock._meta.get_field("price"), "_validators", [])
    monkeypatch.delitem(vars(Stock._meta.get_field("price")), "validators", raising=False)
    assert "Ensure this value is greater than 0." in page_of(change())
    assert Stock.objects.get(pk=stock.pk).price > 0


@on_postgresql
def test_editable_list_reports_a_lost_race_and_writes_nothing(browser, make_user, just_before, monkeypatch):
    monkeypatch.setattr(admin.site._registry[User], "list_editable", ("name", "email"))
    one, other = make_user(), make_user()
    path, client = f"{USERS}?id__in={one.pk},{other.pk}", browser()
    form = opened_form(client, path, "changelist-form")
    just_before(admin.ModelAdmin, "save_model", lambda: User.objects.create_user("first", "new@example.com"))
    body = form | {"form-0-name": "Otto", "form-1-email": "new@example.com", "_save": "Save"}
    assert form["form-0-id"] == [str(other.pk)]
    assert "Email already in use" in page_of(client.post(path, body))
    other.refresh_from_db()
    assert other.name is None


def test_one_of_the_last_two_superusers_stays_active(browser, superuser_account, make_user):
    other = make_user(is_staff=True, is_superuser=True)
    requests = [
        changing(browser, f"{USERS}{user.pk}/change/", is_active=None, is_superuser=None)
        for user in (superuser_account, other)
    ]
    answers = run_concurrently(*requests)
    assert User.objects.superusers().count() == 1
    refused = [answer for answer in answers if answer.status_code == 200]
    assert all(LAST_SUPERUSER_MESSAGE in page_of(answer) for answer in refused)
    assert {answer.status_code for answer in answers} <= {200, 302}


@pytest.mark.parametrize("in_bulk", [True, False])
def test_row_deleted_four_times_concurrently_is_deleted_once(browser, make_stock, superuser_account, in_bulk):
    stock = make_stock(superuser_account)
    selected = {"action": "delete_selected", "_selected_action": stock.pk, "post": "yes"}
    path, body = (STOCKS, selected) if in_bulk else (f"{STOCKS}{stock.pk}/delete/", {"post": "yes"})
    answers = run_concurrently(*[posting(browser, path, body) for _ in range(4)])
    assert {answer.status_code for answer in answers} == {302}
    assert AuditEntry.objects.of_row(Stock, stock.pk).filter(action="delete").count() == 1
    assert LogEntry.objects.count() == 1


def test_group_deleted_four_times_concurrently_is_logged_once(browser):
    group = Group.objects.create(name="Clerks")
    answers = run_concurrently(*[posting(browser, f"{GROUPS}{group.pk}/delete/", {"post": "yes"}) for _ in range(4)])
    assert {answer.status_code for answer in answers} == {302}
    assert LogEntry.objects.count() == 1


def test_row_restored_four_times_concurrently_is_restored_once(browser, make_stock, superuser_account):
    stock = make_stock(superuser_account)
    stock.delete()
    body = {"action": "restore_selected", "_selected_action": stock.pk}
    answers = run_concurrently(*[posting(browser, f"{STOCKS}?deleted=1", body) for _ in range(4)])
    assert {answer.status_code for answer in answers} == {302}
    assert AuditEntry.objects.of_row(Stock, stock.pk).filter(action="restore").count() == 1


def test_form_of_a_purged_row_redirects_with_a_message(browser, make_stock, superuser_account):
    stock, client = make_stock(superuser_account), browser()
    client.get(f"{STOCKS}{stock.pk}/change/")
    Stock.objects.filter(pk=stock.pk).purge()
    body = {"owner": superuser_account.pk, "name": "GOOG", "price": 1, "quantity": 1}
    for action in ("change", "delete", "history"):
        answer = client.post(f"{STOCKS}{stock.pk}/{action}/", body, follow=True)
        assert "Perhaps it was deleted?" in page_of(answer)
    assert not Stock.all_objects.filter(owner=superuser_account).exists()


@pytest.mark.parametrize("in_bulk", [True, False])
def test_row_that_became_protected_is_not_deleted(browser, make_stock, superuser_account, monkeypatch, in_bulk):
    stock = make_stock(superuser_account)

    def refuse(self, keys, *, permanently):
        raise ProtectedError("The stock is in use by 1 order.", set())

    monkeypatch.setattr("records.models.querysets.RecordQuerySet._raise_if_protected", refuse)
    selected = {"action": "delete_selected", "_selected_action": stock.pk, "post": "yes"}
    path, body = (STOCKS, selected) if in_bulk else (f"{STOCKS}{stock.pk}/delete/", {"post": "yes"})
    assert "The stock is in use by 1 order." in page_of(browser().post(path, body, follow=True))
    assert Stock.objects.filter(pk=stock.pk).exists()
    assert not LogEntry.objects.exists()


def test_password_change_of_a_purged_user_is_409(browser, make_user, monkeypatch):
    user = make_user()
    save = User.save

    def purge_first(self, **kwargs):
        User.objects.filter(pk=user.pk).purge()
        save(self, **kwargs)

    monkeypatch.setattr(User, "save", purge_first)
    body = {"password1": "other-horse-8", "password2": "other-horse-8", "usable_password": "true"}
    answer = browser().post(f"{USERS}{user.pk}/password/", body, HTTP_ACCEPT="text/html")
    assert answer.status_code == 409
    assert re.search(r"There is no user \d+ any more", answer.content.decode())


@on_postgresql
def test_victim_of_a_deadlock_gets_503_with_retry_after(browser, make_stock, superuser_account):
    first, second = make_stock(superuser_account), make_stock(superuser_account)
    client, is_locked = browser(), Event()
    selected = {"action": "delete_selected", "_selected_action": [first.pk, second.pk], "post": "yes"}

    def lock_in_the_other_order():
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SET LOCAL deadlock_timeout = '60s'")  # the admin's request finds the deadlock
            Stock.objects.select_for_update().get(pk=second.pk)
            is_locked.set()
            for _ in range(200):
                cursor.execute(f"SELECT pg_sleep(0.05), pg_stat_clear_snapshot(); {WAITERS}")
                if cursor.fetchone() != (0,):
                    break
            Stock.objects.select_for_update().get(pk=first.pk)

    def delete():
        is_locked.wait(10)
        return client.post(STOCKS, selected, HTTP_ACCEPT="text/html")

    _, answer = run_concurrently(lock_in_the_other_order, delete)
    assert answer.status_code == 503
    assert answer.headers["Retry-After"]
    assert Stock.objects.filter(owner=superuser_account).count() == 2
    assert not LogEntry.objects.exists()
