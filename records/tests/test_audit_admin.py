"""The admin of the audit log: reading, links, search and undo."""

import re

import pytest
from django.test import Client

from records.audit.models import AuditEntry
from stocks.models import Stock

LIST = "/admin/records/auditentry/"


@pytest.fixture
def admin(make_user):
    client = Client(raise_request_exception=False)
    client.user = make_user(username="boss", is_staff=True, is_superuser=True)
    client.force_login(client.user)
    return client


@pytest.fixture
def stock(owner, make_stock):
    stock = make_stock(owner.user)
    owner.patch(f"/api/v1/stocks/{stock.pk}", {"price": 190.25, "name": "GOOG"}, HTTP_X_REQUEST_ID="request-7")
    return stock


def last_entry(stock):
    return AuditEntry.objects.of_row(Stock, stock.pk).latest("id")


def count_rows(admin, query=""):
    """Return the number of entries that a list displays."""
    return len(re.findall(r'name="_selected_action"', admin.get(f"{LIST}{query}").content.decode()))


def test_list_displays_readable_changes_and_links(admin, owner, stock):
    page = admin.get(f"{LIST}?object_type__exact=stocks").content.decode()
    assert "name: AAPL → GOOG, price: 175.5 → 190.25" in page
    assert f'href="/admin/stocks/stock/{stock.pk}/change/">stocks {stock.pk}</a>' in page
    assert f'href="/admin/users/user/{owner.user.pk}/change/">{owner.user.username}</a>' in page
    assert f'href="{LIST}?request_id__exact=request-7">request-7</a>' in page


def test_page_of_an_entry_displays_a_table_of_changes(admin, stock):
    page = admin.get(f"{LIST}{last_entry(stock).pk}/change/").content.decode()
    assert re.search(r'<th scope="row">price</th>\s*<td>175.5</td>\s*<td>190.25</td>', page)
    assert f"{LIST}?request_id__exact=request-7" in page
    assert f"/admin/stocks/stock/{stock.pk}/change/" in page


def test_values_are_escaped(admin, owner):
    owner.patch("/api/v1/users/me", {"bio": "<script>alert(1)</script>"})
    entry = AuditEntry.objects.latest("id")
    for path in (LIST, f"{LIST}{entry.pk}/change/", f"/admin/users/user/{owner.user.pk}/history/"):
        assert "<script>alert(1)" not in admin.get(path).content.decode()


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("?request_id__exact=request-7", 1),
        ("?action__exact=purge", 0),
        ("?outcome__exact=failure", 0),
        ("?object_type__exact=stocks&action__exact=update", 1),
        ("?q=request-7", 1),
        ("?q=nosuch", 0),
    ],
)
def test_filters_and_search(admin, stock, query, expected):
    assert count_rows(admin, query) == expected


def test_search_by_username_and_row(admin, owner, stock):
    assert count_rows(admin, f"?q={owner.user.username.upper()}") >= 2
    assert count_rows(admin, f"?q={stock.pk}&object_type__exact=stocks") == 2


def test_entries_cannot_be_added_changed_or_deleted(admin, stock):
    page = f"{LIST}{last_entry(stock).pk}/"
    assert admin.get(f"{LIST}add/").status_code == 403
    assert admin.post(f"{page}change/", {"action": "login"}).status_code == 403
    assert admin.post(f"{page}delete/", {"post": "yes"}).status_code == 403
    listing = admin.get(LIST).content.decode()
    assert "delete_selected" not in listing
    assert "Add audit" not in listing


def test_selected_changes_are_undone(admin, stock):
    answer = admin.post(LIST, {"action": "undo_entries", "_selected_action": last_entry(stock).pk}, follow=True)
    assert "Reverted 1 row." in answer.content.decode()
    assert Stock.objects.get(pk=stock.pk).name == "AAPL"
    assert last_entry(stock).user_id == admin.user.pk


def test_button_undoes_the_entry(admin, stock):
    page = admin.get(f"{LIST}{last_entry(stock).pk}/change/").content.decode()
    [form] = [form for form in re.findall(r"<form.*?</form>", page, re.DOTALL) if "undo_entries" in form]
    data = dict(re.findall(r'name="(\w+)" value="([^"]*)"', form))
    admin.post(re.search('action="([^"]*)"', form)[1], data)
    assert Stock.objects.get(pk=stock.pk).name == "AAPL"


def test_whole_request_is_undone(admin, owner, make_stock):
    stocks = [make_stock(owner.user) for _ in range(3)]
    selected = {"action": "delete_selected", "_selected_action": [stock.pk for stock in stocks], "post": "yes"}
    admin.post("/admin/stocks/stock/", selected)
    admin.post(LIST, {"action": "undo_requests", "_selected_action": last_entry(stocks[0]).pk})
    assert Stock.objects.filter(owner=owner.user).count() == 3


def test_conflict_is_reported(admin, stock):
    before = last_entry(stock)
    Stock.objects.filter(pk=stock.pk).update(price=7)
    answer = admin.post(LIST, {"action": "undo_entries", "_selected_action": before.pk}, follow=True)
    assert "price: It was 190.25 then and is 7 now." in answer.content.decode()
    assert Stock.objects.get(pk=stock.pk).name == "GOOG"


def test_user_with_view_permission_cannot_undo(staff_with, client, stock):
    client.force_login(staff_with("view_auditentry").user)
    page = client.get(f"{LIST}{last_entry(stock).pk}/change/").content.decode()
    assert "undo_entries" not in client.get(LIST).content.decode() + page
    client.post(LIST, {"action": "undo_entries", "_selected_action": last_entry(stock).pk})
    assert Stock.objects.get(pk=stock.pk).name == "GOOG"


def test_history_displays_changes_made_outside_of_the_admin(admin, owner, stock):
    Stock.objects.filter(pk=stock.pk).update(price=7)
    page = admin.get(f"/admin/stocks/stock/{stock.pk}/history/").content.decode()
    assert page.count('<th scope="row">price</th>') == 3
    assert owner.user.username in page
    assert f"{LIST}?object_type__exact=stocks&amp;object_id__exact={stock.pk}" in page


def test_history_links_to_the_audit_log_only_with_view_permission(staff, client, stock):
    client.force_login(staff.user)
    page = client.get(f"/admin/stocks/stock/{stock.pk}/history/").content.decode()
    assert "190.25" in page
    assert LIST not in page


@pytest.mark.parametrize("number", [1, 30])
def test_list_needs_a_constant_number_of_queries(admin, stock, number, django_assert_max_num_queries):
    for price in range(number):
        Stock.objects.filter(pk=stock.pk).update(price=price + 1)
    with django_assert_max_num_queries(5):
        assert admin.get(LIST).status_code == 200
