"""Keyset paging."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from urllib.parse import parse_qs, urlsplit

import pytest
from django.core import signing

from records.db.validators import BIGINT_MAX
from stocks.models import Stock
from users.models import User

STOCKS, USERS = "/api/v1/stocks", "/api/v1/users"
PRICES = ["0.0001", "0.1", "0.3", "10", "10", "9.9999", "99999999999.9999"]
NAMES = ["AAPL", "AAPL", "BRK.B", "BRK-A", "A", "Z9", "AAPL"]
QUANTITIES = [1, 2, BIGINT_MAX, BIGINT_MAX - 1, 2, 10, 9]
PEOPLE = [
    {"username": "zz-a", "name": None, "age": None},
    {"username": "ZZ_b", "name": "Änne", "age": 0, "email": None},
    {"username": "zz.c", "name": "Ann Smith", "age": 30, "email": None},
    {"username": "Zz+d", "name": "Ann Smith", "age": None},
    {"username": "aab", "name": None, "age": 30},
    {"username": "aac", "name": "Zoë \"O'Hara\\", "age": 150},
    {"username": "aad", "name": None, "age": 7, "email": None},
]


def order(client, url):
    response = client.get(url)
    assert response.status_code == 200, response.content
    return [item["id"] for item in response.json()["items"]]


def walk(client, url, direction="next"):
    """The pages from `url` on, by their links."""
    pages = []
    while url:
        response = client.get(url)
        assert response.status_code == 200, response.content
        pages.append(response.json())
        assert len(pages) < 50
        url = pages[-1]["links"][direction]
    return pages


def walked(pages):
    return [item["id"] for page in pages for item in page["items"]]


def spread_creation(model, rows):
    """Few different instants, some of them without a fraction of a second."""
    for index, row in enumerate(rows):
        instant = datetime(2024, 2, 29, 12, tzinfo=UTC) + timedelta(microseconds=index // 3)
        model.objects.filter(pk=row.pk).update(created_at=instant)


@pytest.fixture
def stocks(owner, make_stock):
    columns = zip(NAMES, PRICES, QUANTITIES, strict=True)
    rows = [make_stock(owner.user, name=name, price=price, quantity=quantity) for name, price, quantity in columns]
    spread_creation(Stock, rows)
    return rows


@pytest.fixture
def people(superuser, make_user):
    rows = [make_user(**person) for person in PEOPLE]
    spread_creation(User, rows)
    return rows


def assert_walks_like_pages(client, path, query, size):
    expected = order(client, f"{path}?{query}&size=200")
    forwards = walk(client, f"{path}?{query}&cursor=&size={size}")
    assert walked(forwards) == expected
    backwards = walk(client, forwards[-1]["links"]["prev"], "prev")
    assert walked(reversed(backwards)) + walked(forwards[-1:]) == expected
    again = walk(client, backwards[-1]["links"]["next"])
    assert walked(backwards[-1:]) + walked(again) == expected


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("sign", ["", "-"])
@pytest.mark.parametrize("key", ["id", "name", "price", "quantity", "created_at"])
def test_cursor_walks_stocks_by_every_key(owner, stocks, key, sign, size):
    assert_walks_like_pages(owner, STOCKS, f"sort_by={sign}{key}", size)


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("sign", ["", "-"])
@pytest.mark.parametrize("key", ["id", "username", "email", "name", "age", "created_at"])
def test_cursor_walks_users_by_every_key(superuser, people, key, sign, size):
    assert_walks_like_pages(superuser, USERS, f"sort_by={sign}{key}", size)


@pytest.mark.parametrize(
    "sort",
    [
        "name,-price",
        "-name,price,-quantity",
        "created_at,-name",
        "price,-id",
        "-created_at,-price,-quantity",
        "-price,name&sort_order=desc",
        "price,-quantity&sort_order=desc",
    ],
)
def test_cursor_walks_stocks_by_several_keys(owner, stocks, sort):
    assert_walks_like_pages(owner, STOCKS, f"sort_by={sort}", 2)


@pytest.mark.parametrize(
    "sort",
    [
        "age,-name",
        "-age,name",
        "name,age",
        "-name,-age",
        "name,-age,email",
        "-email,name,-age,created_at",
        "created_at,-age",
        "-created_at,name",
        "age,-id",
        "-age,id",
        "age,-name&sort_order=desc",
        "created_at,-name,age,-id",
    ],
)
def test_cursor_walks_users_by_several_keys_with_nulls(superuser, people, sort):
    for size in (1, 2, 3):
        assert_walks_like_pages(superuser, USERS, f"sort_by={sort}", size)


def test_staff_walk_by_cursor_too(staff, people):
    assert_walks_like_pages(staff, USERS, "sort_by=-age,name", 2)


@pytest.mark.parametrize("filters", ["price__gte=1", "name=AAPL", "search=brk", "quantity__lt=10&name__in=AAPL,A"])
def test_cursor_walks_filtered_rows(owner, stocks, filters):
    assert_walks_like_pages(owner, STOCKS, f"sort_by=-price,name&{filters}", 1)


def test_cursor_walks_deleted_rows(staff, owner, stocks):
    for stock in stocks[:4]:
        stock.delete()
    expected = [stock.pk for stock in stocks[3::-1]]
    assert walked(walk(staff, f"{STOCKS}?is_deleted=true&sort_by=-id&cursor=&size=1")) == expected


@pytest.mark.parametrize("slash", ["", "/"])
def test_cursor_walks_the_stocks_of_one_user(staff, owner, stocks, slash):
    assert_walks_like_pages(staff, f"{USERS}/{owner.user.pk}/stocks{slash}", "sort_by=-price", 2)


def test_cursor_knows_no_totals(owner, stocks):
    body = owner.get(f"{STOCKS}?cursor=&size=2").json()
    assert [body[name] for name in ("total", "page", "pages", "total_is_estimate")] == [None, None, None, False]
    assert body["links"]["last"] is None


def test_first_and_last_page_by_cursor_have_one_neighbour(owner, stocks):
    pages = walk(owner, f"{STOCKS}?cursor=&size=3")
    assert [(page["has_prev"], page["has_next"]) for page in pages] == [(False, True), (True, True), (True, False)]


def test_page_that_ends_with_the_last_row_has_no_next_one(owner, stocks):
    assert [len(page["items"]) for page in walk(owner, f"{STOCKS}?cursor=&size={len(stocks)}")] == [len(stocks)]


def test_cursor_over_nothing_is_an_empty_page(owner):
    body = owner.get(f"{STOCKS}?cursor=").json()
    assert (body["items"], body["has_next"], body["has_prev"]) == ([], False, False)


def test_walk_is_stable_while_rows_come_and_go(owner, make_stock):
    stocks = [make_stock(owner.user, quantity=quantity) for quantity in range(10, 18)]
    first = owner.get(f"{STOCKS}?sort_by=quantity&cursor=&size=3").json()
    for row in (stocks[0], stocks[2], stocks[4]):  # passed, the very last one seen, ahead
        row.delete()
    make_stock(owner.user, quantity=1)
    ahead = make_stock(owner.user, quantity=16)
    rest = walked(walk(owner, first["links"]["next"]))
    assert rest == [stocks[3].pk, stocks[5].pk, stocks[6].pk, ahead.pk, stocks[7].pk]


def test_walk_back_is_stable_while_rows_come_and_go(owner, make_stock):
    stocks = [make_stock(owner.user, quantity=quantity) for quantity in range(10, 18)]
    last = walk(owner, f"{STOCKS}?sort_by=-quantity&cursor=&size=4")[-1]
    for row in (stocks[3], stocks[5]):  # the first row of that page, and one before it
        row.delete()
    before = make_stock(owner.user, quantity=100)
    pages = walk(owner, last["links"]["prev"], "prev")
    assert walked(reversed(pages)) == [before.pk, stocks[7].pk, stocks[6].pk, stocks[4].pk]


@pytest.mark.parametrize("sort", ["id", "-id", "name", "-age", "age"])
def test_page_emptied_behind_our_back_leads_back(superuser, people, sort):
    url = f"{USERS}?search=aa&sort_by={sort}&cursor=&size=2"
    first = superuser.get(url).json()
    [last_id] = order(superuser, first["links"]["next"])
    User.objects.get(pk=last_id).delete()
    emptied = superuser.get(first["links"]["next"]).json()
    assert (emptied["items"], emptied["has_prev"], emptied["has_next"]) == ([], True, False)
    assert order(superuser, emptied["links"]["prev"]) == walked([first])


@pytest.mark.parametrize("sort", ["id", "-id", "name", "-age", "age"])
def test_page_emptied_before_us_leads_on(superuser, people, sort):
    pages = walk(superuser, f"{USERS}?search=aa&sort_by={sort}&cursor=&size=2")
    User.objects.filter(pk__in=walked(pages[:1])).delete()
    emptied = superuser.get(pages[1]["links"]["prev"]).json()
    assert (emptied["items"], emptied["has_prev"], emptied["has_next"]) == ([], False, True)
    assert order(superuser, emptied["links"]["next"]) == walked(pages[1:])


def next_cursor(client, url):
    link = client.get(url).json()["links"]["next"]
    return parse_qs(urlsplit(link).query)["cursor"][0]


def refused(response):
    assert response.status_code == 400, response.content
    return response.json()["errors"]


@pytest.mark.parametrize("cursor", ["x", "a:b", ":", "0", "null", "é", "%25", "A" * 5000])
def test_forged_cursor_is_refused(owner, stocks, cursor):
    assert "cursor" in refused(owner.get(STOCKS, {"cursor": cursor}))


def test_tampered_cursor_is_refused(owner, stocks):
    cursor = next_cursor(owner, f"{STOCKS}?cursor=&size=2")
    for forged in (cursor[:-1], cursor + "A", "A" + cursor[1:], cursor.split(":")[0]):
        assert "cursor" in refused(owner.get(STOCKS, {"cursor": forged}))


def test_signature_for_another_purpose_makes_no_cursor(owner, stocks):
    payload = next_cursor(owner, f"{STOCKS}?cursor=&size=2").rpartition(":")[0]
    assert "cursor" in refused(owner.get(STOCKS, {"cursor": signing.Signer(salt="else").sign(payload)}))


@pytest.mark.parametrize("sort", ["-price", "name", "id", "price,name", "price,-id", "price&sort_order=desc"])
def test_cursor_of_another_sort_is_refused(owner, stocks, sort):
    cursor = next_cursor(owner, f"{STOCKS}?sort_by=price&cursor=&size=2")
    errors = refused(owner.get(f"{STOCKS}?sort_by={sort}&cursor={cursor}"))
    assert "another sort" in errors["cursor"][0]


def test_cursor_of_another_resource_is_refused(superuser, people, make_stock):
    cursor = next_cursor(superuser, f"{USERS}?cursor=&size=2")
    assert "cursor" in refused(superuser.get(f"{STOCKS}?cursor={cursor}"))


@pytest.mark.parametrize("query", ["page=1", "skip=0", "limit=5", "count=exact", "count=estimated"])
def test_cursor_does_not_mix(owner, query):
    assert query.split("=")[0] in refused(owner.get(f"{STOCKS}?cursor=&{query}"))


@pytest.mark.parametrize("size", ["0", "201", "abc"])
def test_cursor_takes_no_impossible_size(owner, size):
    assert "size" in refused(owner.get(f"{STOCKS}?cursor=&size={size}"))


@pytest.mark.parametrize("sort", ["price,-created_at", "-id", "quantity"])
def test_cursor_needs_no_sort_key_among_the_fields(owner, stocks, sort):
    expected = [Stock.objects.get(pk=pk).name for pk in order(owner, f"{STOCKS}?sort_by={sort}")]
    pages = walk(owner, f"{STOCKS}?sort_by={sort}&fields=name&cursor=&size=2")
    assert [item for page in pages for item in page["items"]] == [{"name": name} for name in expected]


def test_items_by_cursor_are_those_of_a_page(owner, stocks):
    assert owner.get(f"{STOCKS}?cursor=").json()["items"] == owner.get(STOCKS).json()["items"]


def test_cursor_compares_prices_as_numbers(owner, stocks):
    pages = walk(owner, f"{STOCKS}?sort_by=price&cursor=&size=1&fields=price")
    prices = [Decimal(str(item["price"])) for page in pages for item in page["items"]]
    assert prices == sorted(Decimal(price) for price in PRICES)


@pytest.mark.parametrize("sort", ["id", "price", "-name,price", "created_at"])
def test_page_by_cursor_costs_one_query_beside_the_session(owner, stocks, sort, django_assert_num_queries):
    cursor = next_cursor(owner, f"{STOCKS}?sort_by={sort}&cursor=&size=2")
    with django_assert_num_queries(2):
        order(owner, f"{STOCKS}?sort_by={sort}&cursor={cursor}&size=2")


@pytest.mark.parametrize("sort", ["age", "-age,name", "name,-age,email"])
def test_page_by_cursor_over_nulls_costs_two_at_most(superuser, people, sort, django_assert_max_num_queries):
    for page in walk(superuser, f"{USERS}?sort_by={sort}&cursor=&size=2")[:-1]:
        with django_assert_max_num_queries(4):  # session, permissions, values, nulls
            superuser.get(page["links"]["next"])
