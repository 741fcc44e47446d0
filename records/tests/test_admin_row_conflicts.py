"""Rows of editable lists and of inlines that have changed since the page was opened."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.db import connections
from django.test import Client

from records.admin import RecordStackedInline, RecordTabularInline
from records.audit.models import AuditEntry
from records.tests.browser import filled_form, opened_form
from stocks.models import Stock
from users.models import User

STOCKS = "/admin/stocks/stock/"
LIST = "changelist-form"


@pytest.fixture
def browser(make_user) -> Client:
    return log_in(make_user(username="ada", is_staff=True, is_superuser=True))


def log_in(user) -> Client:
    client = Client(raise_request_exception=False)
    client.user = user
    client.force_login(user)
    return client


@pytest.fixture
def editable_list(monkeypatch):
    monkeypatch.setattr(admin.site._registry[Stock], "list_editable", ("quantity", "price"))


@pytest.fixture
def stocks(browser, make_stock) -> list[Stock]:
    return [make_stock(browser.user, price=price, quantity=10) for price in ("146.78", "20", "30")]


def columns(*rows) -> list[dict]:
    return [type(row)._base_manager.filter(pk=row.pk).values().get() for row in rows]


def open_list(browser) -> dict[str, list[str]]:
    return list_form(browser.get(STOCKS).content.decode())


def list_form(page: str) -> dict[str, list[str]]:
    form = filled_form(page, LIST)
    return {name: value for name, value in form.items() if name not in {"action", "index"}} | {"_save": ["Save"]}


def edit(form, row, **changes) -> dict:
    """Return the form with these changes to one of its rows."""
    [key] = [name for name, value in form.items() if name.endswith("-id") and value == [str(row.pk)]]
    return form | {f"{key.removesuffix('id')}{name}": [value] for name, value in changes.items()}


def refused_page(browser, path, form, *rows) -> str:
    before, entries, logged = columns(*rows), AuditEntry.objects.count(), LogEntry.objects.count()
    answer = browser.post(path, form)
    assert answer.status_code == 200
    assert (columns(*rows), AuditEntry.objects.count(), LogEntry.objects.count()) == (before, entries, logged)
    return answer.content.decode()


# Lists


@pytest.mark.usefixtures("editable_list")
def test_changed_row_of_a_list_refuses_all_rows(browser, stocks):
    form = open_list(browser)
    browser.post(STOCKS, edit(form, stocks[0], price="11"))
    submitted = edit(edit(form, stocks[0], price="12"), stocks[1], quantity="7")
    page = refused_page(browser, STOCKS, submitted, *stocks)
    assert "Nothing was saved, because 1 row below was changed" in page
    assert "Changed by ada just now: price 146.78 → 11" in page
    assert page.count("Stored now: 11") == 1
    assert edit(list_form(page), stocks[0], price="12", quantity="10") == list_form(page)
    assert edit(list_form(page), stocks[1], price="20.0000", quantity="7") == list_form(page)


@pytest.mark.usefixtures("editable_list")
def test_second_save_of_a_list_overwrites_deliberately(browser, stocks):
    form = open_list(browser)
    browser.post(STOCKS, edit(form, stocks[0], price="11"))
    page = refused_page(browser, STOCKS, edit(form, stocks[0], price="12"), *stocks)
    assert browser.post(STOCKS, list_form(page)).status_code == 302
    assert [row["price"] for row in columns(*stocks)] == [12, 20, 30]


@pytest.mark.usefixtures("editable_list")
def test_row_that_the_user_did_not_edit_is_no_conflict(browser, stocks):
    form = open_list(browser)
    browser.post(STOCKS, edit(form, stocks[0], price="11"))
    assert browser.post(STOCKS, edit(form, stocks[1], price="12")).status_code == 302
    assert [row["price"] for row in columns(*stocks)] == [11, 12, 30]


@pytest.mark.usefixtures("editable_list")
def test_untouched_cell_of_a_refused_row_takes_the_stored_value(browser, stocks):
    form = open_list(browser)
    browser.post(STOCKS, edit(form, stocks[0], price="11"))
    page = refused_page(browser, STOCKS, edit(form, stocks[0], quantity="7"), *stocks)
    assert edit(list_form(page), stocks[0], price="11.0000", quantity="7") == list_form(page)


@pytest.mark.usefixtures("editable_list")
def test_unedited_row_of_a_refused_list_is_not_reverted(browser, stocks):
    form = open_list(browser)
    browser.post(STOCKS, edit(edit(form, stocks[0], price="11"), stocks[1], price="21"))
    page = refused_page(browser, STOCKS, edit(form, stocks[0], price="12"), *stocks)
    assert browser.post(STOCKS, list_form(page)).status_code == 302
    assert [row["price"] for row in columns(*stocks)] == [12, 21, 30]


@pytest.mark.usefixtures("editable_list")
def test_unedited_row_of_an_invalid_list_is_not_reverted(browser, stocks):
    form = open_list(browser)
    browser.post(STOCKS, edit(form, stocks[0], price="11"))
    page = refused_page(browser, STOCKS, edit(form, stocks[1], price="abc"), *stocks)
    assert browser.post(STOCKS, edit(list_form(page), stocks[1], price="5")).status_code == 302
    assert [row["price"] for row in columns(*stocks)] == [11, 5, 30]


@pytest.mark.usefixtures("editable_list")
def test_refused_list_displays_each_row_with_its_form(browser, stocks):
    path = f"{STOCKS}?o=4"  # by price
    form = list_form(browser.get(path).content.decode())
    browser.post(path, edit(form, stocks[0], price="1"))  # becomes the first of the list
    answer = browser.post(path, edit(form, stocks[0], price="2"))
    change_list = answer.context_data["cl"]
    assert [row.pk for row in change_list.result_list] == [form.instance.pk for form in change_list.formset.forms]


@pytest.mark.usefixtures("editable_list")
@pytest.mark.parametrize("version", [None, "", "tampered"])
def test_row_without_a_valid_version_is_refused(browser, stocks, version):
    form = edit(open_list(browser), stocks[0], price="12")
    changed = edit(form, stocks[0], opened_version=version or "")
    changed = {name: value for name, value in changed.items() if value != [""]} if version is None else changed
    assert "does not say which version" in refused_page(browser, STOCKS, changed, *stocks)


@pytest.mark.usefixtures("editable_list")
def test_deleted_row_of_a_list_is_a_conflict(browser, stocks):
    form = open_list(browser)
    stocks[0].delete()
    page = refused_page(browser, STOCKS, edit(form, stocks[0], price="12"), *stocks)
    assert "this stock was deleted after the form was opened" in page


@pytest.mark.usefixtures("editable_list")
def test_row_of_a_list_that_is_gone_is_reported(browser, stocks):
    form = open_list(browser)
    Stock.objects.filter(pk=stocks[0].pk).purge()
    page = refused_page(browser, STOCKS, edit(form, stocks[1], price="12"), *stocks[1:])
    assert "This stock is not in the list any more. Reload the page." in page


@pytest.mark.usefixtures("editable_list")
def test_deleted_rows_of_a_list_can_be_edited(browser, stocks):
    stocks[0].delete()
    path = f"{STOCKS}?deleted=1"
    form = list_form(browser.get(path).content.decode())
    assert browser.post(path, edit(form, stocks[0], price="12")).status_code == 302
    assert columns(stocks[0])[0]["price"] == 12


@pytest.mark.usefixtures("editable_list")
def test_list_needs_a_constant_number_of_queries(browser, stocks, make_stock, django_assert_max_num_queries):
    for _ in range(10):
        make_stock(browser.user)
    with django_assert_max_num_queries(7):
        assert browser.get(STOCKS).status_code == 200


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("editable_list")
def test_one_of_many_simultaneous_saves_of_a_list_wins(browser, stocks):
    form = open_list(browser)
    clients = [log_in(browser.user) for _ in range(5)]
    barrier = Barrier(5)

    def submit(number):
        try:
            barrier.wait()
            return clients[number].post(STOCKS, edit(form, stocks[number % 2], price=str(number + 1), quantity="3"))
        finally:
            connections.close_all()

    with ThreadPoolExecutor(5) as pool:
        answers = list(pool.map(submit, range(5)))
    assert sorted(answer.status_code for answer in answers) == [200] * 3 + [302] * 2
    assert [row["version"] for row in columns(*stocks)] == [2, 2, 1]


# Inlines


class StockInline(RecordTabularInline):
    model = Stock
    fields = ("name", "price", "quantity", "is_active")


@pytest.fixture(params=[StockInline, type("StackedStockInline", (RecordStackedInline,), {"model": Stock})])
def owner(request, monkeypatch, make_user, make_stock) -> User:
    """Return a user with three stocks, in a form that contains these."""
    monkeypatch.setattr(admin.site._registry[User], "inlines", (request.param,))
    user = make_user()
    for price in ("146.78", "20", "30"):
        make_stock(user, price=price, quantity=10)
    return user


@pytest.fixture
def held(owner) -> list[Stock]:
    return list(owner.stocks.order_by("pk"))


def user_page(user) -> str:
    return f"/admin/users/user/{user.pk}/change/"


def test_unchanged_inline_writes_nothing(browser, owner, held):
    before = columns(owner, *held)
    assert browser.post(user_page(owner), opened_form(browser, user_page(owner))).status_code == 302
    assert columns(owner, *held) == before
    assert not LogEntry.objects.exists()


def test_changed_row_of_an_inline_refuses_the_form(browser, owner, held):
    form = opened_form(browser, user_page(owner)) | {"phone_number": "+49 30 1234"}
    browser.post(user_page(owner), edit(opened_form(browser, user_page(owner)), held[0], price="11"))
    submitted = edit(edit(form, held[0], price="12"), held[1], quantity="7")
    page = refused_page(browser, user_page(owner), submitted, owner, *held)
    assert "Changed by ada just now: price 146.78 → 11" in page
    assert page.count("Stored now: 11") == 1
    shown = filled_form(page)
    assert browser.post(user_page(owner), shown).status_code == 302
    assert [(row["price"], row["quantity"]) for row in columns(*held)] == [(12, 10), (20, 7), (30, 10)]
    assert columns(owner)[0]["phone_number"] == "+49 30 1234"


def test_inline_row_that_the_user_did_not_edit_is_no_conflict(browser, owner, held):
    form = opened_form(browser, user_page(owner))
    browser.post(user_page(owner), edit(opened_form(browser, user_page(owner)), held[0], price="11"))
    assert browser.post(user_page(owner), edit(form, held[1], price="12")).status_code == 302
    assert [row["price"] for row in columns(*held)] == [11, 12, 30]


def test_unedited_rows_of_a_refused_form_are_not_reverted(browser, owner, held):
    form = opened_form(browser, user_page(owner)) | {"phone_number": "+49 30 1234"}
    first = opened_form(browser, user_page(owner)) | {"age": "7"}
    browser.post(user_page(owner), edit(first, held[0], price="11"))
    page = refused_page(browser, user_page(owner), form, owner, *held)
    assert browser.post(user_page(owner), filled_form(page)).status_code == 302
    assert [row["price"] for row in columns(*held)] == [11, 20, 30]
    assert (columns(owner)[0]["age"], columns(owner)[0]["phone_number"]) == (7, "+49 30 1234")


def test_changed_row_of_an_inline_is_not_deleted(browser, owner, held):
    form = opened_form(browser, user_page(owner))
    browser.post(user_page(owner), edit(opened_form(browser, user_page(owner)), held[0], price="11"))
    page = refused_page(browser, user_page(owner), edit(form, held[0], DELETE="on"), owner, *held)
    assert "Changed by ada just now: price 146.78 → 11" in page
    assert browser.post(user_page(owner), filled_form(page)).status_code == 302
    assert not Stock.objects.filter(pk=held[0].pk).exists()


def test_deleted_row_of_an_inline_is_a_conflict(browser, owner, held):
    form = opened_form(browser, user_page(owner))
    held[0].delete()
    page = refused_page(browser, user_page(owner), edit(form, held[0], price="12"), owner, *held)
    assert "this stock was deleted after the form was opened" in page


def test_row_of_an_inline_that_is_gone_is_reported(browser, owner, held):
    form = opened_form(browser, user_page(owner))
    Stock.objects.filter(pk=held[0].pk).purge()
    page = refused_page(browser, user_page(owner), edit(form, held[1], price="12"), owner, *held[1:])
    assert "This stock is not in the list any more. Reload the page." in page


def test_stock_of_another_owner_cannot_be_changed_in_an_inline(browser, owner, held, make_stock):
    form = opened_form(browser, user_page(owner))
    other = make_stock(browser.user)
    [key] = [name for name, value in form.items() if name.endswith("-id") and value == [str(held[0].pk)]]
    refused_page(browser, user_page(owner), form | {key: [str(other.pk)]}, owner, other, *held)


def test_row_is_added_in_an_inline(browser, owner, held):
    form = opened_form(browser, user_page(owner)) | {"stocks-TOTAL_FORMS": "4"}
    added = {"stocks-3-name": "MSFT", "stocks-3-price": "1", "stocks-3-quantity": "2", "stocks-3-is_active": "on"}
    assert browser.post(user_page(owner), form | added).status_code == 302
    assert owner.stocks.count() == 4


@pytest.mark.parametrize("version", ["", "tampered"])
def test_inline_row_without_a_valid_version_is_refused(browser, owner, held, version):
    form = edit(opened_form(browser, user_page(owner)), held[0], price="12", opened_version=version)
    assert "does not say which version" in refused_page(browser, user_page(owner), form, owner, *held)
