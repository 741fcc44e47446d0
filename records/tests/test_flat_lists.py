"""Lists whose statement depends on the filter: short searches, symbols, days. The rows are those of a plain list."""

from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from records.db.case import simple_upper
from records.rest import search
from records.rest.pagination import groups
from stocks.models import Stock
from stocks.views import StockViewSet
from users.models import User

STOCKS, USERS = "/api/v1/stocks", "/api/v1/users"
SYMBOLS = ["AAPL", "BF-B", "BRK.B", "^GSPC", "M&M", "A", "AA", "QQQ7", "EURUSD=X", "X_Y"]
PEOPLE = ["Élodie Éxup", "Straße", "Ilkay ılk", "Ὀδυσσεύς", "Zoë 100%", "Anna_Maria", "O'Neil \\"]
TEXTS = [
    "a", "A", "aa", "7", "q", "qq", "-", ".", "^", "&", "=x", "_", "%", "\\", "'", "é", "ss", "ß", "i", "ı", "ς", "Σ",
    "e\u0301", "zz", "ë 1", "b.",
]  # fmt: skip
is_postgresql = pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite has no such statement")


@pytest.fixture
def stocks(superuser):
    rows = [
        Stock(owner=superuser.user, name=name, price=price % 7 + 1, quantity=price % 5 + 1)
        for price, name in enumerate(SYMBOLS * 3)
    ]
    Stock.objects.bulk_create(rows)
    for number, row in enumerate(Stock.objects.order_by("id")):
        day = datetime(2025, 2, 27, 23, 59, 59, 999_999, tzinfo=UTC) + timedelta(hours=7 * number % 100)
        Stock.objects.filter(pk=row.pk).update(created_at=day)
    return list(Stock.objects.order_by("id"))


@pytest.fixture
def people(make_user):
    return [make_user(name=name) for name in PEOPLE]


def ids(client, path):
    response = client.get(path)
    assert response.status_code == 200, response.content
    return [item["id"] for item in response.json()["items"]]


def pages(client, path):
    """Return the ids of all rows, by cursor."""
    found, url = [], f"{path}&cursor=&size=4"
    while url:
        body = client.get(url).json()
        found += [item["id"] for item in body["items"]]
        url = body["links"]["next"]
    return found


def quoted(text):
    return text.translate({ord(sign): f"%{ord(sign):02X}" for sign in "%&+#=^\\' "})


def contains(value, text):
    return value is not None and simple_upper("é" if text == "e\u0301" else text) in simple_upper(value)


@pytest.mark.parametrize("limit", [0, 10_000])
@pytest.mark.parametrize("text", TEXTS)
def test_short_search_finds_stocks_by_symbol(superuser, stocks, monkeypatch, text, limit):
    monkeypatch.setattr(search, "MAX_VALUES", limit)
    expected = [stock.pk for stock in stocks if contains(stock.name, text)]
    assert ids(superuser, f"{STOCKS}?search={quoted(text)}&size=200") == expected


@pytest.mark.parametrize("limit", [-1, 10_000_000])
@pytest.mark.parametrize("text", TEXTS)
def test_short_search_finds_users_by_every_field(superuser, people, monkeypatch, text, limit):
    monkeypatch.setattr(search, "MAX_INDEXED", limit)
    expected = [
        user.pk
        for user in User.objects.order_by("id")
        if any(contains(value, text) for value in (user.username, user.email, user.name))
    ]
    assert ids(superuser, f"{USERS}?search={quoted(text)}&size=200") == expected


@pytest.mark.parametrize("text", ["a", "qq"])
def test_short_search_of_deleted_rows(superuser, stocks, text):
    deleted = [stock for stock in stocks if contains(stock.name, text)][:2]
    Stock.objects.filter(pk__in=[stock.pk for stock in deleted]).delete()
    assert ids(superuser, f"{STOCKS}?search={text}&is_deleted=true") == [stock.pk for stock in deleted]


def test_short_search_of_own_stocks(owner, stocks, make_stock):
    own = make_stock(owner.user, name="AAPL")
    assert ids(owner, f"{STOCKS}?search=a&sort_by=price") == [own.pk]


@pytest.mark.parametrize("query", ["name__in=AAPL,aa,NONE", "search=a", "search=none", "search=b"])
@pytest.mark.parametrize("sign", ["", "-"])
@pytest.mark.parametrize("key", ["id", "name", "price", "quantity", "created_at"])
def test_symbols_are_merged_in_the_order_of_the_sort(superuser, stocks, key, sign, query):
    path = f"{STOCKS}?{query}&sort_by={sign}{key}"
    text = query.removeprefix("search=")
    matching = [
        stock
        for stock in stocks
        if (stock.name in {"AAPL", "AA"} if query.startswith("name") else contains(stock.name, text))
    ]
    expected = sorted(matching, key=lambda stock: (getattr(stock, key), stock.pk), reverse=bool(sign))
    expected = [stock.pk for stock in expected]
    assert ids(superuser, f"{path}&size=200") == expected
    assert ids(superuser, f"{path}&skip=2&limit=3") == expected[2:5]
    assert pages(superuser, path) == expected
    assert superuser.get(path).json()["total"] == len(expected)


@pytest.mark.parametrize(
    "query",
    [
        "created_at__gte=2025-02-28T00:00:00Z",
        "created_at__gte=2025-02-28T12:00:00Z&created_at__lte=2025-03-02T09:00:00Z",
        "created_at__lte=2025-03-01T00:00:00Z",
        "created_at__gte=2030-01-01T00:00:00Z",
    ],
)
@pytest.mark.parametrize("limit", [1, 4_000])
@pytest.mark.parametrize("sign", ["", "-"])
def test_days_are_merged_in_the_order_of_ids(superuser, stocks, monkeypatch, sign, limit, query):
    monkeypatch.setattr(groups, "MAX_GROUPS", limit)
    bounds = dict(part.split("=") for part in query.split("&"))
    earliest, latest = (
        datetime.fromisoformat(bounds.get(f"created_at__{name}", default))
        for name, default in (("gte", "1970-01-01T00:00:00Z"), ("lte", "2999-01-01T00:00:00Z"))
    )
    expected = [stock.pk for stock in stocks if earliest <= stock.created_at <= latest]
    expected = expected[::-1] if sign else expected
    path = f"{STOCKS}?{query}&sort_by={sign}id"
    assert ids(superuser, f"{path}&size=200") == expected
    assert pages(superuser, path) == expected


def statements_of(client, path):
    with CaptureQueriesContext(
        connection,
    ) as captured:
        assert client.get(path).status_code == 200
    return "\n".join(query["sql"] for query in captured)


@is_postgresql
@pytest.mark.parametrize(
    "path",
    [
        f"{STOCKS}?search=a&sort_by=price",
        f"{STOCKS}?name__in=AAPL,AA&sort_by=-quantity",
        f"{STOCKS}?created_at__gte=2025-02-27T00:00:00Z",
        f"{STOCKS}?created_at__gte=2025-02-27T00:00:00Z&cursor=",
    ],
)
def test_ranges_of_an_index_are_merged(superuser, stocks, path):
    assert "AS groups(value)" in statements_of(superuser, path)


@is_postgresql
@pytest.mark.parametrize(
    "query",
    [
        "name__in=AAPL,AA&is_active=true&sort_by=price",
        "name__in=AAPL,AA&sort_by=price,-quantity",
        "name__in=AAPL,AA&sort_by=price&is_deleted=true",
        "created_at__gte=2025-02-27T00:00:00Z&sort_by=price",
        "name=AAPL&sort_by=price",
    ],
)
def test_lists_without_such_an_index_are_not_merged(superuser, stocks, query):
    assert "AS groups(value)" not in statements_of(superuser, f"{STOCKS}?{query}")


@is_postgresql
def test_list_of_one_owner_is_not_merged(owner, stocks):
    assert "AS groups(value)" not in statements_of(owner, f"{STOCKS}?name__in=AAPL,AA&sort_by=price")


@pytest.mark.parametrize("key", sorted({*StockViewSet.sort_fields} - {"id", "name"}))
def test_an_index_has_the_rows_of_a_symbol_in_every_sort(key):
    assert ["name", key, "id"] in [index.fields for index in Stock._meta.indexes]


@is_postgresql
def test_short_search_uses_its_index(people):
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_indexscan = off")
    assert "users_short_search" in search.search_rows(User.objects.all(), ["username", "email", "name"], "qq").explain()


@pytest.mark.parametrize("term", ["a", "qq", "b. brk", "a a"])
def test_admin_finds_stocks_by_short_words(superuser, stocks, client, term):
    client.force_login(superuser.user)
    found = client.get("/admin/stocks/stock/", {"q": term}).context_data["cl"].queryset
    expected = [stock for stock in stocks if all(contains(stock.name, word) for word in term.split())]
    assert sorted(row.pk for row in found) == [stock.pk for stock in expected]
