"""Requests to the admin that its forms never send."""

import pytest
from django.test import Client

from records.admin import change_lists
from stocks.models import Stock
from users.models import LAST_SUPERUSER_MESSAGE, User

BAD_IDS = ["abc", "9" * 30, "\x00"]


@pytest.fixture
def admin(make_user) -> Client:
    client = Client(raise_request_exception=False)
    client.user = make_user(is_staff=True, is_superuser=True)
    client.force_login(client.user)
    return client


@pytest.mark.parametrize("owner", BAD_IDS)
def test_invalid_owner_does_not_crash(admin, owner):
    stock = {"owner": owner, "name": "AAPL", "price": "1", "quantity": "1"}
    assert admin.post("/admin/stocks/stock/add/", stock).status_code in {200, 400}


@pytest.mark.parametrize("action", ["delete_selected", "restore_selected"])
@pytest.mark.parametrize("row", BAD_IDS)
def test_invalid_selection_does_not_crash(admin, action, row):
    answer = admin.post("/admin/stocks/stock/", {"action": action, "_selected_action": row})
    assert answer.status_code in {200, 302, 400}


def test_filter_with_nul_does_not_crash(admin):
    assert admin.get("/admin/users/user/?gender__exact=%00").status_code in {200, 302, 400}


def test_taken_username_has_the_message_of_the_api(admin, make_user):
    make_user(username="taken").delete()
    password = {"usable_password": "false"}
    answer = admin.post("/admin/users/user/add/", {"username": "TAKEN", "email": "", **password})
    assert "Username already in use" in answer.content.decode()


def test_last_superuser_cannot_be_deleted(admin):
    selected = {"action": "delete_selected", "_selected_action": admin.user.pk, "post": "yes"}
    assert LAST_SUPERUSER_MESSAGE in admin.post("/admin/users/user/", selected).content.decode()
    assert User.objects.filter(pk=admin.user.pk).exists()


def test_list_needs_a_constant_number_of_queries(admin, make_user, make_stock, django_assert_max_num_queries):
    for _ in range(5):
        make_stock(make_user())
    with django_assert_max_num_queries(6):
        assert admin.get("/admin/stocks/stock/").status_code == 200


# Large tables


@pytest.fixture
def many_stocks(owner, monkeypatch):
    monkeypatch.setattr(change_lists, "MAX_OFFSET", 100)
    stocks = [Stock(owner=owner.user, name="AAPL", price=number, quantity=1) for number in range(1, 121)]
    Stock.objects.bulk_create(stocks)


def test_last_page_says_that_later_rows_are_omitted(admin, many_stocks):
    assert "its first 100 rows only" in admin.get("/admin/stocks/stock/?p=2").content.decode()


def test_page_that_is_not_the_last_has_no_message(admin, many_stocks):
    assert "rows only" not in admin.get("/admin/stocks/stock/?p=1").content.decode()


def test_deep_page_has_the_rows_of_the_list(admin, many_stocks, monkeypatch):
    path = "/admin/stocks/stock/?p=2&o=-4"
    shallow = [stock.pk for stock in admin.get(path).context_data["cl"].result_list]
    monkeypatch.setattr(change_lists, "MAX_JOINED_OFFSET", 10)
    assert [stock.pk for stock in admin.get(path).context_data["cl"].result_list] == shallow


def test_page_past_the_last_is_refused(admin, many_stocks):
    assert admin.get("/admin/stocks/stock/?p=3").status_code == 302


@pytest.mark.parametrize(("column", "keys"), [("4", ("price", "id")), ("-4", ("-price", "-id")), ("", ("-id",))])
def test_one_index_serves_the_sort(admin, many_stocks, column, keys):
    assert admin.get(f"/admin/stocks/stock/?o={column}").context_data["cl"].queryset.query.order_by == keys


def test_list_is_not_sorted_by_a_column_without_index(admin):
    change_list = admin.get("/admin/users/session/?o=3").context_data["cl"]
    assert "ip" not in change_list.sortable_by
    assert "ip" not in change_list.queryset.query.order_by
