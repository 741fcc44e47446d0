import json
from decimal import ROUND_HALF_UP, Decimal, localcontext

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from stocks.models import Stock

LARGEST = 2**63 - 1
LARGEST_PRICE = "99999999999.9999"


def url(client):
    return f"/api/v1/users/{client.user.pk}/portfolio"


def portfolio(client, user_client=None):
    """Return the portfolio with decimals of full precision."""
    answer = client.get(url(user_client or client))
    assert answer.status_code == 200
    return json.loads(answer.content, parse_float=Decimal)


def test_values_are_exact(owner, make_stock):
    make_stock(owner.user, name="GOOG", quantity=5, price="140.25")
    make_stock(owner.user, name="AAPL", quantity=10, price="175.5")
    make_stock(owner.user, name="AAPL", quantity=20, price="190.25")
    aapl = {"positions": 2, "quantity": 30, "price": Decimal("185.3333"), "value": 5560}
    goog = {"positions": 1, "quantity": 5, "price": Decimal("140.25"), "value": Decimal("701.25")}
    assert portfolio(owner) == {
        "user_id": owner.user.pk,
        "positions": 3,
        "quantity": 35,
        "value": Decimal("6261.25"),
        "by_symbol": [
            {"name": "AAPL", **aapl, "share": Decimal("0.888002")},
            {"name": "GOOG", **goog, "share": Decimal("0.111998")},
        ],
    }


def test_decimal_prices_are_summed_exactly(owner, make_stock):
    for price in ("0.1", "0.2", "0.0001"):
        make_stock(owner.user, quantity=1, price=price)
    assert portfolio(owner)["value"] == Decimal("0.3001")


def test_large_positions_are_exact(owner, make_stock):
    make_stock(owner.user, name="AAPL", quantity=123456789, price="99999.9999")
    assert portfolio(owner)["value"] == Decimal("99999.9999") * 123456789


def test_sum_of_quantities_can_exceed_bigint(owner, make_stock):
    make_stock(owner.user, quantity=LARGEST, price=1)
    make_stock(owner.user, quantity=LARGEST, price=1)
    answer = portfolio(owner)
    assert (answer["quantity"], answer["value"]) == (2 * LARGEST, 2 * LARGEST)
    assert (answer["by_symbol"][0]["quantity"], answer["by_symbol"][0]["price"]) == (2 * LARGEST, 1)


def test_largest_values_are_exact(owner, make_stock):
    for name in ("AAPL", "MSFT"):
        make_stock(owner.user, name=name, quantity=LARGEST, price=LARGEST_PRICE)
    answer = portfolio(owner)
    with localcontext(prec=50):
        value = Decimal(LARGEST_PRICE) * LARGEST
        assert [row["value"] for row in answer["by_symbol"]] == [value] * 2
        assert answer["value"] == 2 * value
    assert [row["share"] for row in answer["by_symbol"]] == [Decimal("0.5")] * 2


def test_portfolio_beyond_double_precision_is_exact(owner, make_stock):
    """The sums, products and quotients exceed the precision of a double."""
    prices = ["99999999999.9999", "0.0001", "33333333333.3333", "12345678901.2345"]
    positions = [
        ("AAPL" if number % 3 else "MSFT", Decimal(prices[number % 4]), LARGEST - number) for number in range(60)
    ]
    for name, price, quantity in positions:
        make_stock(owner.user, name=name, price=price, quantity=quantity)
    answer = portfolio(owner)
    with localcontext(prec=80):
        total = sum(price * quantity for _, price, quantity in positions)
        assert (answer["positions"], answer["quantity"]) == (60, sum(quantity for *_, quantity in positions))
        assert answer["value"] == total
        for row in answer["by_symbol"]:
            own = [(price, quantity) for name, price, quantity in positions if name == row["name"]]
            quantity, value = sum(count for _, count in own), sum(price * count for price, count in own)
            assert (row["positions"], row["quantity"], row["value"]) == (len(own), quantity, value)
            assert row["price"] == (value / quantity).quantize(Decimal("0.0001"), ROUND_HALF_UP)
            assert row["share"] == (value / total).quantize(Decimal("0.000001"), ROUND_HALF_UP)


@pytest.mark.parametrize(
    ("positions", "price"),
    [
        ([(1, "0.0001"), (1, "0.0002")], "0.0002"),  # half is rounded up
        ([(LARGEST, "0.0001"), (LARGEST - 1, "0.0002")], "0.0001"),  # anything below is rounded down
        ([(LARGEST - 1, "0.0001"), (LARGEST, "0.0002")], "0.0002"),
        ([(LARGEST, "99999999999.9999")] * 3, "99999999999.9999"),
    ],
)
def test_mean_price_is_rounded_once(owner, make_stock, positions, price):
    for quantity, unit_price in positions:
        make_stock(owner.user, quantity=quantity, price=unit_price)
    assert portfolio(owner)["by_symbol"][0]["price"] == Decimal(price)


def test_values_differing_in_the_last_digit_are_sorted(owner, make_stock):
    for name, quantity in (("A", LARGEST - 1), ("C", LARGEST), ("B", LARGEST)):
        make_stock(owner.user, name=name, price="99999999999.9999", quantity=quantity)
    assert [row["name"] for row in portfolio(owner)["by_symbol"]] == ["B", "C", "A"]


@pytest.mark.parametrize("field", ["price", "quantity"])
def test_filters_and_sorts_use_full_precision(owner, make_stock, field):
    low, middle, high = {
        "price": ("99999999999.9997", "99999999999.9998", "99999999999.9999"),
        "quantity": (LARGEST - 2, LARGEST - 1, LARGEST),
    }[field]
    for value in (middle, high, low):
        make_stock(owner.user, **{field: value})

    def values(**parameters):
        text = owner.get("/api/v1/stocks", {"fields": field, **parameters}).content
        return [str(row[field]) for row in json.loads(text, parse_float=Decimal)["items"]]

    low, middle, high = map(str, (low, middle, high))
    assert values(**{field: middle}) == [middle]
    assert values(**{f"{field}__gt": middle}) == [high]
    assert values(**{f"{field}__lt": middle}) == [low]
    assert values(**{f"{field}__gte": middle, "sort_by": field}) == [middle, high]
    assert values(**{f"{field}__lte": middle, "sort_by": f"-{field}"}) == [middle, low]
    link, paged = f"/api/v1/stocks?cursor=&size=1&sort_by={field}&fields={field}", []
    while link:
        page = json.loads(owner.get(link).content, parse_float=Decimal)
        paged += [str(row[field]) for row in page["items"]]
        link = page["links"]["next"]
    assert paged == [low, middle, high]


def test_repricing_and_audit_log_keep_full_precision(owner, superuser, make_stock):
    stock = make_stock(owner.user, name="HUGE", price="99999999999.9998", quantity=LARGEST)
    prices = json.dumps({"prices": {"HUGE": 0}}).replace("0}", "99999999999.9999}")
    answer = superuser.generic("POST", "/api/v1/stocks/reprice", prices, content_type="application/json")
    assert answer.json()["updated"] == {"HUGE": 1}
    history = json.loads(owner.get(f"/api/v1/stocks/{stock.pk}/history").content, parse_float=Decimal)["items"]
    assert history[0]["changes"] == {"price": [Decimal("99999999999.9998"), Decimal("99999999999.9999")]}
    assert history[1]["changes"]["quantity"] == [None, LARGEST]
    undone = superuser.post("/api/v1/admin/audit-logs/undo", {"request_id": answer.headers["X-Request-ID"]})
    assert undone.status_code == 200
    assert Stock.objects.get(pk=stock.pk).price == Decimal("99999999999.9998")


def test_mean_price_is_weighted(owner, make_stock):
    make_stock(owner.user, quantity=1, price=100)
    make_stock(owner.user, quantity=3, price=200)
    assert portfolio(owner)["by_symbol"][0]["price"] == 175


def test_shares_add_up_to_one(owner, make_stock):
    for name, price in (("AAPL", 1), ("MSFT", 2), ("GOOG", 5)):
        make_stock(owner.user, name=name, price=price)
    shares = [row["share"] for row in portfolio(owner)["by_symbol"]]
    assert shares == [Decimal("0.625"), Decimal("0.25"), Decimal("0.125")]


def test_symbols_are_sorted_by_value_then_name(owner, make_stock):
    for name, quantity, price in (("C", 9, 1), ("B", 1, 20), ("D", 1, 9), ("A", 3, "3.0001")):
        make_stock(owner.user, name=name, quantity=quantity, price=price)
    assert [row["name"] for row in portfolio(owner)["by_symbol"]] == ["B", "A", "C", "D"]


def test_only_active_stocks_count(owner, stranger, make_stock):
    make_stock(owner.user, name="AAPL", quantity=1, price=5)
    make_stock(owner.user, name="AAPL", is_active=False)
    make_stock(owner.user, name="MSFT").delete()
    make_stock(stranger.user, name="GOOG")
    answer = portfolio(owner)
    assert (answer["positions"], answer["quantity"], answer["value"]) == (1, 1, 5)
    assert [row["name"] for row in answer["by_symbol"]] == ["AAPL"]


def test_empty_portfolio_has_zero_value(owner):
    nothing = {"positions": 0, "quantity": 0, "value": 0, "by_symbol": []}
    assert portfolio(owner) == {"user_id": owner.user.pk, **nothing}


def test_portfolio_costs_one_aggregate_query(owner, make_stock):
    for name in ("AAPL", "MSFT", "GOOG") * 3:
        make_stock(owner.user, name=name)
    with CaptureQueriesContext(connection) as queries:
        portfolio(owner)
    assert len(queries) == 2
    assert "GROUP BY" in queries[1]["sql"]


def test_portfolio_creates_no_model_instances(owner, make_stock, monkeypatch):
    make_stock(owner.user)
    monkeypatch.setattr(Stock, "from_db", lambda *args: pytest.fail("A stock was built."))
    assert portfolio(owner)["positions"] == 1


def test_staff_see_any_portfolio(staff, owner, make_stock):
    make_stock(owner.user)
    assert portfolio(staff, user_client=owner) == portfolio(owner)


def test_stranger_cannot_see_portfolio(stranger, owner):
    answer = stranger.get(url(owner))
    assert (answer.status_code, answer.json()["detail"]) == (404, f"User with ID {owner.user.pk} not found")


def test_staff_without_permission_cannot_see_portfolio(staff_with, owner):
    assert staff_with().get(url(owner)).status_code == 404


def test_anonymous_cannot_see_portfolio(anonymous, owner):
    assert anonymous.get(url(owner)).status_code == 401


@pytest.mark.parametrize("user_id", ["0", "abc", "9" * 31, "%00"])
def test_portfolio_of_a_missing_user_is_not_found(staff, user_id):
    assert staff.get(f"/api/v1/users/{user_id}/portfolio").status_code == 404


def test_portfolio_of_a_deleted_user_is_not_found(staff, owner):
    owner.user.delete()
    assert staff.get(url(owner)).status_code == 404


def test_unknown_parameter_is_refused(owner):
    answer = owner.get(url(owner) + "?size=1")
    assert (answer.status_code, list(answer.json()["errors"])) == (400, ["size"])


@pytest.mark.parametrize("method", ["post", "put", "patch", "delete"])
def test_portfolio_is_read_only(owner, method):
    assert getattr(owner, method)(url(owner)).status_code == 405
