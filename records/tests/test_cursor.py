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


def fetch_ids(client, url):
    response = client.get(url)
    assert response.status_code == 200, response.content
    return [item["id"] for item in response.json()["items"]]


def follow_links(client, url, direction="next"):
    """Follow the links from `url` on and return all pages."""
    pages = []
    while url:
        response = client.get(url)
        assert response.status_code == 200, response.content
        pages.append(response.json())
        assert len(pages) < 50
        url = pages[-1]["links"][direction]
    return pages


def ids_of(pages):
    return [item["id"] for page in pages for item in page["items"]]


def set_creation_times(model, rows):
    """Set few distinct creation times, some without a fraction of a second."""
    for index, row in enumerate(rows):
        instant = datetime(2024, 2, 29, 12, tzinfo=UTC) + timedelta(microseconds=index // 3)
        model.objects.filter(pk=row.pk).update(created_at=instant)


@pytest.fixture
def stocks(owner, make_stock):
    columns = zip(NAMES, PRICES, QUANTITIES, strict=True)
    rows = [make_stock(owner.user, name=name, price=price, quantity=quantity) for name, price, quantity in columns]
    set_creation_times(Stock, rows)
    return rows


@pytest.fixture
def people(superuser, make_user):
    rows = [make_user(**person) for person in PEOPLE]
    set_creation_times(User, rows)
    return rows


def assert_cursor_matches_page_order(client, path, query, size):
    expected = fetch_ids(client, f"{path}?{query}&size=200")
    forwards = follow_links(client, f"{path}?{query}&cursor=&size={size}")
    assert ids_of(forwards) == expected
    backwards = follow_links(client, forwards[-1]["links"]["prev"], "prev")
    assert ids_of(reversed(backwards)) + ids_of(forwards[-1:]) == expected
    again = follow_links(client, backwards[-1]["links"]["next"])
    assert ids_of(backwards[-1:]) + ids_of(again) == expected


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("sign", ["", "-"])
@pytest.mark.parametrize("key", ["id", "name", "price", "quantity", "created_at"])
def test_cursor_pages_stocks_by_every_sort_key(owner, stocks, key, sign, size):
    assert_cursor_matches_page_order(owner, STOCKS, f"sort_by={sign}{key}", size)


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("sign", ["", "-"])
@pytest.mark.parametrize("key", ["id", "username", "email", "name", "age", "created_at"])
def test_cursor_pages_users_by_every_sort_key(superuser, people, key, sign, size):
    assert_cursor_matches_page_order(superuser, USERS, f"sort_by={sign}{key}", size)


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
def test_cursor_pages_stocks_by_several_sort_keys(owner, stocks, sort):
    assert_cursor_matches_page_order(owner, STOCKS, f"sort_by={sort}", 2)


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
def test_cursor_pages_users_by_several_sort_keys_with_nulls(superuser, people, sort):
    for size in (1, 2, 3):
        assert_cursor_matches_page_order(superuser, USERS, f"sort_by={sort}", size)


def test_staff_page_by_cursor(staff, people):
    assert_cursor_matches_page_order(staff, USERS, "sort_by=-age,name", 2)


@pytest.mark.parametrize("filters", ["price__gte=1", "name=AAPL", "search=brk", "quantity__lt=10&name__in=AAPL,A"])
def test_cursor_pages_filtered_rows(owner, stocks, filters):
    assert_cursor_matches_page_order(owner, STOCKS, f"sort_by=-price,name&{filters}", 1)


def test_cursor_pages_deleted_rows(staff, owner, stocks):
    for stock in stocks[:4]:
        stock.delete()
    expected = [stock.pk for stock in stocks[3::-1]]
    assert ids_of(follow_links(staff, f"{STOCKS}?is_deleted=true&sort_by=-id&cursor=&size=1")) == expected


@pytest.mark.parametrize("slash", ["", "/"])
def test_cursor_pages_the_stocks_of_one_user(staff, owner, stocks, slash):
    assert_cursor_matches_page_order(staff, f"{USERS}/{owner.user.pk}/stocks{slash}", "sort_by=-price", 2)


def test_cursor_page_has_no_totals(owner, stocks):
    body = owner.get(f"{STOCKS}?cursor=&size=2").json()
    assert [body[name] for name in ("total", "page", "pages", "total_is_estimate")] == [None, None, None, False]
    assert body["links"]["last"] is None


def test_first_and_last_cursor_page_have_one_neighbour(owner, stocks):
    pages = follow_links(owner, f"{STOCKS}?cursor=&size=3")
    assert [(page["has_prev"], page["has_next"]) for page in pages] == [(False, True), (True, True), (True, False)]


def test_page_ending_with_the_last_row_has_no_next(owner, stocks):
    assert [len(page["items"]) for page in follow_links(owner, f"{STOCKS}?cursor=&size={len(stocks)}")] == [len(stocks)]


def test_cursor_page_of_an_empty_list_is_empty(owner):
    body = owner.get(f"{STOCKS}?cursor=").json()
    assert (body["items"], body["has_next"], body["has_prev"]) == ([], False, False)


def test_forward_paging_is_stable_under_writes(owner, make_stock):
    stocks = [make_stock(owner.user, quantity=quantity) for quantity in range(10, 18)]
    first = owner.get(f"{STOCKS}?sort_by=quantity&cursor=&size=3").json()
    for row in (stocks[0], stocks[2], stocks[4]):  # passed, the very last one seen, ahead
        row.delete()
    make_stock(owner.user, quantity=1)
    later = make_stock(owner.user, quantity=16)
    rest = ids_of(follow_links(owner, first["links"]["next"]))
    assert rest == [stocks[3].pk, stocks[5].pk, stocks[6].pk, later.pk, stocks[7].pk]


def test_backward_paging_is_stable_under_writes(owner, make_stock):
    stocks = [make_stock(owner.user, quantity=quantity) for quantity in range(10, 18)]
    last = follow_links(owner, f"{STOCKS}?sort_by=-quantity&cursor=&size=4")[-1]
    for row in (stocks[3], stocks[5]):  # the first row of that page, and one before it
        row.delete()
    before = make_stock(owner.user, quantity=100)
    pages = follow_links(owner, last["links"]["prev"], "prev")
    assert ids_of(reversed(pages)) == [before.pk, stocks[7].pk, stocks[6].pk, stocks[4].pk]


@pytest.mark.parametrize("sort", ["id", "-id", "name", "-age", "age"])
def test_emptied_next_page_links_to_the_previous(superuser, people, sort):
    url = f"{USERS}?search=aa&sort_by={sort}&cursor=&size=2"
    first = superuser.get(url).json()
    [last_id] = fetch_ids(superuser, first["links"]["next"])
    User.objects.get(pk=last_id).delete()
    emptied = superuser.get(first["links"]["next"]).json()
    assert (emptied["items"], emptied["has_prev"], emptied["has_next"]) == ([], True, False)
    assert fetch_ids(superuser, emptied["links"]["prev"]) == ids_of([first])


@pytest.mark.parametrize("sort", ["id", "-id", "name", "-age", "age"])
def test_emptied_previous_page_links_to_the_next(superuser, people, sort):
    pages = follow_links(superuser, f"{USERS}?search=aa&sort_by={sort}&cursor=&size=2")
    User.objects.filter(pk__in=ids_of(pages[:1])).delete()
    emptied = superuser.get(pages[1]["links"]["prev"]).json()
    assert (emptied["items"], emptied["has_prev"], emptied["has_next"]) == ([], False, True)
    assert fetch_ids(superuser, emptied["links"]["next"]) == ids_of(pages[1:])


def next_cursor(client, url):
    link = client.get(url).json()["links"]["next"]
    return parse_qs(urlsplit(link).query)["cursor"][0]


def errors_of(response):
    assert response.status_code == 400, response.content
    return response.json()["errors"]


@pytest.mark.parametrize("cursor", ["x", "a:b", ":", "0", "null", "é", "%25", "A" * 5000])
def test_forged_cursor_is_refused(owner, stocks, cursor):
    assert "cursor" in errors_of(owner.get(STOCKS, {"cursor": cursor}))


def test_tampered_cursor_is_refused(owner, stocks):
    cursor = next_cursor(owner, f"{STOCKS}?cursor=&size=2")
    for tampered in (cursor[:-1], cursor + "A", "A" + cursor[1:], cursor.split(":")[0]):
        assert "cursor" in errors_of(owner.get(STOCKS, {"cursor": tampered}))


def test_cursor_signed_with_another_salt_is_refused(owner, stocks):
    payload = next_cursor(owner, f"{STOCKS}?cursor=&size=2").rpartition(":")[0]
    assert "cursor" in errors_of(owner.get(STOCKS, {"cursor": signing.Signer(salt="else").sign(payload)}))


@pytest.mark.parametrize("sort", ["-price", "name", "id", "price,name", "price,-id", "price&sort_order=desc"])
def test_cursor_of_another_sort_is_refused(owner, stocks, sort):
    cursor = next_cursor(owner, f"{STOCKS}?sort_by=price&cursor=&size=2")
    errors = errors_of(owner.get(f"{STOCKS}?sort_by={sort}&cursor={cursor}"))
    assert "another sort" in errors["cursor"][0]


def test_cursor_of_another_resource_is_refused(superuser, people, make_stock):
    cursor = next_cursor(superuser, f"{USERS}?cursor=&size=2")
    assert "cursor" in errors_of(superuser.get(f"{STOCKS}?cursor={cursor}"))


@pytest.mark.parametrize("query", ["page=1", "skip=0", "limit=5", "count=exact", "count=estimated"])
def test_cursor_refuses_other_paging_parameters(owner, query):
    assert query.split("=")[0] in errors_of(owner.get(f"{STOCKS}?cursor=&{query}"))


@pytest.mark.parametrize("size", ["0", "201", "abc"])
def test_cursor_refuses_invalid_size(owner, size):
    assert "size" in errors_of(owner.get(f"{STOCKS}?cursor=&size={size}"))


@pytest.mark.parametrize("sort", ["price,-created_at", "-id", "quantity"])
def test_cursor_works_without_the_sort_key_in_fields(owner, stocks, sort):
    expected = [Stock.objects.get(pk=pk).name for pk in fetch_ids(owner, f"{STOCKS}?sort_by={sort}")]
    pages = follow_links(owner, f"{STOCKS}?sort_by={sort}&fields=name&cursor=&size=2")
    assert [item for page in pages for item in page["items"]] == [{"name": name} for name in expected]


def test_cursor_items_equal_those_of_a_page(owner, stocks):
    assert owner.get(f"{STOCKS}?cursor=").json()["items"] == owner.get(STOCKS).json()["items"]


def test_cursor_compares_prices_as_numbers(owner, stocks):
    pages = follow_links(owner, f"{STOCKS}?sort_by=price&cursor=&size=1&fields=price")
    prices = [Decimal(str(item["price"])) for page in pages for item in page["items"]]
    assert prices == sorted(Decimal(price) for price in PRICES)


@pytest.mark.parametrize("sort", ["id", "price", "-name,price", "created_at"])
def test_cursor_page_costs_one_query_beside_the_session(owner, stocks, sort, django_assert_num_queries):
    cursor = next_cursor(owner, f"{STOCKS}?sort_by={sort}&cursor=&size=2")
    with django_assert_num_queries(2):
        fetch_ids(owner, f"{STOCKS}?sort_by={sort}&cursor={cursor}&size=2")


@pytest.mark.parametrize("sort", ["age", "-age,name", "name,-age,email"])
def test_cursor_page_with_nulls_costs_at_most_two_queries(superuser, people, sort, django_assert_max_num_queries):
    for page in follow_links(superuser, f"{USERS}?sort_by={sort}&cursor=&size=2")[:-1]:
        with django_assert_max_num_queries(4):  # session, permissions, values, nulls
            superuser.get(page["links"]["next"])
