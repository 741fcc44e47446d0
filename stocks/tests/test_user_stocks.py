import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from stocks.models import Stock

AAPL = {"name": "AAPL", "price": 175.5, "quantity": 10}


def url(client):
    return f"/api/v1/users/{client.user.pk}/stocks"


def names(answer):
    return [row["name"] for row in answer.json()["items"]]


@pytest.fixture
def holdings(owner, stranger, make_stock):
    for name in ("AAPL", "MSFT", "GOOG"):
        make_stock(owner.user, name=name)
    make_stock(stranger.user, name="TSLA")


def test_owner_lists_their_stocks(owner, holdings):
    answer = owner.get(url(owner))
    assert (answer.status_code, answer.json()["total"]) == (200, 3)
    assert names(answer) == ["AAPL", "MSFT", "GOOG"]


def test_staff_list_stocks_of_one_user(staff, owner, holdings):
    assert names(staff.get(url(owner))) == ["AAPL", "MSFT", "GOOG"]


def test_items_equal_those_of_the_stock_list(owner, holdings):
    assert owner.get(url(owner)).json()["items"] == owner.get("/api/v1/stocks").json()["items"]


def test_links_keep_the_path(owner, holdings):
    answer = owner.get(url(owner) + "?size=1&sort_by=name").json()
    assert answer["links"]["next"] == f"{url(owner)}?page=2&size=1&sort_by=name"


def test_cursor_returns_every_stock(owner, holdings):
    listed, link = [], f"{url(owner)}?cursor=&size=2&sort_by=-name"
    while link:
        answer = owner.get(link)
        listed, link = listed + names(answer), answer.json()["links"]["next"]
    assert listed == ["MSFT", "GOOG", "AAPL"]


@pytest.mark.parametrize(
    ("query", "expected"), [("name=msft", ["MSFT"]), ("search=oo", ["GOOG"]), ("price__gt=1000", [])]
)
def test_filter(owner, holdings, query, expected):
    assert names(owner.get(f"{url(owner)}?{query}")) == expected


def test_user_id_filter_returns_no_stocks_of_others(staff, owner, stranger, holdings):
    answer = staff.get(f"{url(owner)}?user_id={stranger.user.pk}")
    assert answer.status_code == 400 or names(answer) == []


def test_deleted_stocks_are_visible_only_to_staff(owner, staff, holdings):
    Stock.objects.get(owner=owner.user, name="MSFT").delete()
    assert names(owner.get(url(owner))) == ["AAPL", "GOOG"]
    assert names(staff.get(url(owner) + "?is_deleted=true")) == ["MSFT"]
    assert owner.get(url(owner) + "?is_deleted=true").status_code == 400


def test_query_count_is_constant(staff, owner, make_stock):
    def count():
        with CaptureQueriesContext(connection) as queries:
            staff.get(url(owner))
        return len(queries)

    make_stock(owner.user)
    expected = count()
    for _ in range(15):
        make_stock(owner.user)
    assert count() == expected <= 4


def test_owner_adds_a_stock(owner):
    answer = owner.post(url(owner), AAPL)
    assert (answer.status_code, answer.json()["user_id"]) == (201, owner.user.pk)
    assert answer.headers["Location"] == f"/api/v1/stocks/{answer.json()['id']}"


def test_staff_add_a_stock_for_the_user(staff, owner):
    answer = staff.post(url(owner), AAPL)
    assert (answer.status_code, answer.json()["user_id"]) == (201, owner.user.pk)


def test_staff_without_add_permission_cannot_add_stocks(staff_with, owner):
    client = staff_with("view_user", "view_stock", "change_stock")
    assert client.get(url(owner)).status_code == 200
    assert client.post(url(owner), AAPL).status_code == 403
    assert not Stock.objects.filter(owner=owner.user).exists()


@pytest.mark.parametrize("method", ["get", "post"])
def test_stranger_gets_404(stranger, owner, method):
    answer = getattr(stranger, method)(url(owner), AAPL if method == "post" else None)
    assert (answer.status_code, answer.json()["detail"]) == (404, f"User with ID {owner.user.pk} not found")
    assert not Stock.objects.filter(owner=owner.user).exists()


@pytest.mark.parametrize("method", ["get", "post"])
def test_staff_without_permission_get_404(staff_with, owner, method):
    assert getattr(staff_with(), method)(url(owner)).status_code == 404


@pytest.mark.parametrize("method", ["get", "post"])
def test_anonymous_is_refused(anonymous, owner, method):
    assert getattr(anonymous, method)(url(owner)).status_code == 401


@pytest.mark.parametrize("user_id", ["0", "abc", "9" * 31, "%00"])
def test_missing_user_is_not_found(staff, user_id):
    path = f"/api/v1/users/{user_id}/stocks"
    assert (staff.get(path).status_code, staff.post(path, AAPL).status_code) == (404, 404)


def test_deleted_user_is_not_found(staff, owner, holdings):
    owner.user.delete()
    assert (staff.get(url(owner)).status_code, staff.post(url(owner), AAPL).status_code) == (404, 404)


def test_body_cannot_set_user_id(staff, owner, stranger):
    answer = staff.post(url(owner), AAPL | {"user_id": stranger.user.pk})
    assert (answer.status_code, list(answer.json()["errors"])) == (400, ["user_id"])
    assert not Stock.objects.filter(owner__in=[owner.user, stranger.user]).exists()


@pytest.mark.parametrize(("field", "value"), [("name", "BRK B"), ("price", 0), ("quantity", -1)])
def test_invalid_value_is_named(owner, field, value):
    answer = owner.post(url(owner), AAPL | {field: value})
    assert (answer.status_code, list(answer.json()["errors"])) == (400, [field])


@pytest.mark.parametrize("method", ["put", "patch", "delete"])
def test_list_refuses_other_methods(staff, owner, method):
    assert getattr(staff, method)(url(owner)).status_code == 405
