import json
from decimal import Decimal

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from stocks.models import Stock

URL = "/api/v1/stocks/reprice"
JSON = "application/json"


def price(stock):
    return Stock.all_objects.get(pk=stock.pk).price


@pytest.fixture
def aapl(owner, make_stock):
    return make_stock(owner.user, name="AAPL", price="175.5")


def test_anonymous_cannot_reprice(anonymous, aapl):
    assert anonymous.post(URL, {"prices": {"AAPL": 1}}).status_code == 401


def test_owner_cannot_reprice(owner, aapl):
    assert owner.post(URL, {"prices": {"AAPL": 1}}).status_code == 403
    assert price(aapl) == Decimal("175.5")


@pytest.mark.parametrize("codenames", [(), ("view_stock",), ("add_stock", "delete_stock"), ("change_user",)])
def test_staff_without_change_permission_cannot_reprice(staff_with, aapl, codenames):
    assert staff_with(*codenames).post(URL, {"prices": {"AAPL": 1}}).status_code == 403
    assert price(aapl) == Decimal("175.5")


def test_staff_with_change_permission_can_reprice(staff_with, aapl):
    answer = staff_with("change_stock").post(URL, {"prices": {"AAPL": 190.25}})
    assert (answer.status_code, answer.json()["updated"]["AAPL"]) == (200, Stock.objects.filter(name="AAPL").count())
    assert price(aapl) == Decimal("190.25")


def test_every_stock_of_the_symbols_gets_the_new_price(staff, owner, stranger, make_stock):
    Stock.all_objects.all().purge()
    for user in (owner.user, owner.user, stranger.user):
        make_stock(user, name="AAPL", price=1)
    msft, other = make_stock(owner.user, name="MSFT", price=1), make_stock(owner.user, name="GOOG", price=1)
    answer = staff.post(URL, {"prices": {"AAPL": 190.25, "MSFT": 0.0001}})
    assert answer.json() == {"updated": {"AAPL": 3, "MSFT": 1}, "unknown": []}
    assert set(Stock.objects.filter(name="AAPL").values_list("price", flat=True)) == {Decimal("190.25")}
    assert (price(msft), price(other)) == (Decimal("0.0001"), 1)


def test_unknown_symbols_are_listed(staff, aapl):
    answer = staff.post(URL, {"prices": {"XYZ": 1, "AAPL": 2, "ABC": 3}}).json()
    assert (list(answer["updated"]), answer["unknown"]) == (["AAPL"], ["XYZ", "ABC"])


def test_only_unknown_symbols_change_nothing(staff):
    assert staff.post(URL, {"prices": {"XYZ": 1}}).json() == {"updated": {}, "unknown": ["XYZ"]}


def test_symbols_are_case_insensitive(staff, aapl):
    answer = staff.post(URL, {"prices": {"aapl": 2, "xyz": 3}}).json()
    assert (list(answer["updated"]), answer["unknown"]) == (["AAPL"], ["XYZ"])
    assert price(aapl) == 2


def test_symbol_given_in_two_cases_is_refused(staff, aapl):
    answer = staff.post(URL, {"prices": {"aapl": 2, "AAPL": 3}})
    assert (answer.status_code, list(answer.json()["errors"])) == (400, ["prices"])


def test_inactive_and_deleted_stocks_are_not_repriced(staff, owner, make_stock):
    inactive, deleted = make_stock(owner.user, name="XYZ", is_active=False), make_stock(owner.user, name="XYZ")
    deleted.delete()
    assert staff.post(URL, {"prices": {"XYZ": 1}}).json() == {"updated": {}, "unknown": ["XYZ"]}
    assert [price(inactive), price(deleted)] == [Decimal("175.5")] * 2


def test_stocks_of_deleted_users_are_not_repriced(staff, owner, aapl):
    owner.user.delete()
    staff.post(URL, {"prices": {"AAPL": 1}})
    assert price(aapl) == Decimal("175.5")


def test_version_is_incremented(staff, owner, aapl, make_stock):
    other = make_stock(owner.user, name="MSFT")
    before = aapl.updated_at
    staff.post(URL, {"prices": {"AAPL": 2}})
    aapl.refresh_from_db()
    other.refresh_from_db()
    assert (aapl.version, other.version) == (2, 1)
    assert aapl.updated_at > before


def test_many_stocks_take_one_update(staff, owner, make_stock):
    for name in ("AAPL", "MSFT", "GOOG") * 5:
        make_stock(owner.user, name=name)
    with CaptureQueriesContext(connection) as queries:
        staff.post(URL, {"prices": {"AAPL": 1, "MSFT": 2, "GOOG": 3}})
    statements = [query["sql"].split()[0] for query in queries if '"stocks"' in query["sql"]]
    assert statements.count("UPDATE") == 1
    assert len(statements) <= 4  # matching symbols, old values, the update, new values


def test_a_thousand_symbols_are_accepted(staff, owner, make_stock):
    last = make_stock(owner.user, name="S999")
    answer = staff.post(URL, {"prices": {f"S{number}": number + 1 for number in range(1000)}})
    assert (answer.status_code, answer.json()["updated"]) == (200, {"S999": 1})
    assert price(last) == 1000


def test_a_thousand_held_symbols_are_repriced(staff, owner):
    stocks = [Stock(owner=owner.user, name=f"S{number}", price=1, quantity=1) for number in range(1000)]
    Stock.objects.bulk_create(stocks)
    answer = staff.post(URL, {"prices": {f"S{number}": number + 1 for number in range(1000)}})
    assert len(answer.json()["updated"]) == 1000
    assert Stock.objects.get(name="S499").price == 500


def test_more_than_a_thousand_symbols_are_refused(staff, aapl):
    answer = staff.post(URL, {"prices": {f"S{number}": 1 for number in range(1000)} | {"AAPL": 1}})
    assert (answer.status_code, list(answer.json()["errors"])) == (400, ["prices"])
    assert price(aapl) == Decimal("175.5")


@pytest.mark.parametrize(
    "bad",
    ["0", "-1", '"x"', "null", "true", "[]", "{}", "NaN", "Infinity", "1e400", "0.00001", "100000000000", "9" * 5000],
    ids=lambda text: text[:12],
)
def test_invalid_price_names_the_symbol_and_changes_nothing(staff, owner, aapl, make_stock, bad):
    msft = make_stock(owner.user, name="MSFT")
    answer = staff.generic("POST", URL, f'{{"prices": {{"AAPL": 1, "MSFT": {bad}}}}}', JSON)
    assert (answer.status_code, list(answer.json()["errors"])) == (400, ["prices.MSFT"])
    assert [price(aapl), price(msft)] == [Decimal("175.5")] * 2


@pytest.mark.parametrize("body", [{}, {"prices": {}}, {"prices": []}, {"prices": None}, {"prices": "AAPL"}])
def test_prices_must_be_an_object_that_names_symbols(staff, body):
    answer = staff.post(URL, body)
    assert (answer.status_code, list(answer.json()["errors"])) == (400, ["prices"])


def test_unknown_field_is_refused(staff, aapl):
    answer = staff.post(URL, {"prices": {"AAPL": 1}, "dry": True})
    assert (answer.status_code, list(answer.json()["errors"])) == (400, ["dry"])
    assert price(aapl) == Decimal("175.5")


@pytest.mark.parametrize("symbol", ["A\0", "\ud800", "", "BRK B", "A" * 11], ids=ascii)
def test_invalid_symbol_is_refused_or_unknown(staff, symbol):
    answer = staff.generic("POST", URL, json.dumps({"prices": {symbol: 1}}), JSON)
    refused = answer.status_code == 400 and any(name.startswith("prices") for name in answer.json()["errors"])
    assert refused or answer.json().get("unknown") == [symbol]


def test_non_ascii_letters_match_no_symbol(staff, owner, make_stock):
    stock = make_stock(owner.user, name="SS")
    staff.post(URL, {"prices": {"ß": 1}})
    assert price(stock) == Decimal("175.5")


def test_duplicate_symbol_is_refused(staff, aapl):
    answer = staff.generic("POST", URL, '{"prices": {"AAPL": 1, "AAPL": 2}}', JSON)
    assert answer.status_code == 400
    assert price(aapl) == Decimal("175.5")


@pytest.mark.parametrize("method", ["get", "put", "patch", "delete"])
def test_reprice_accepts_only_post(staff, method):
    assert getattr(staff, method)(URL).status_code == 405


def test_empty_symbol_is_refused(staff):
    answer = staff.post("/api/v1/stocks/reprice", {"prices": {"": 1}})
    assert (answer.status_code, list(answer.json()["errors"])) == (400, ["prices."])
