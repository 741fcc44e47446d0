import json
from decimal import Decimal

import pytest
from django.db import DataError, IntegrityError, connection, transaction
from django.test.utils import CaptureQueriesContext

from conftest import lasting_headers
from stocks.models import Stock
from users.models import User

URL = "/api/v1/stocks"
FIELDS = ["id", "name", "price", "quantity", "is_active", "user_id", "created_at", "updated_at", "version"]
AAPL = {"name": "AAPL", "price": 175.5, "quantity": 10}
JSON = "application/json"


def stored(stock):
    return Stock.all_objects.filter(pk=stock.pk).values().get()


def query_count(client, path):
    with CaptureQueriesContext(connection) as queries:
        assert client.get(path).status_code == 200
    return len(queries)


@pytest.fixture
def stock(owner, make_stock):
    return make_stock(owner.user)


@pytest.fixture
def url(stock):
    return f"{URL}/{stock.pk}"


# Anonymous and strangers


@pytest.mark.parametrize("method", ["get", "put", "patch", "delete"])
def test_anonymous_cannot_access_stock(anonymous, url, method):
    answer = getattr(anonymous, method)(url)
    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")


@pytest.mark.parametrize("path", [URL, f"{URL}/reprice", f"{URL}/1/restore"])
def test_anonymous_cannot_post(anonymous, path):
    assert anonymous.post(path, AAPL).status_code == 401


@pytest.mark.parametrize(
    ("method", "path"), [("get", ""), ("put", ""), ("patch", ""), ("delete", ""), ("post", "/restore")]
)
def test_stranger_gets_the_same_404_for_existing_and_missing_stocks(stranger, stock, url, method, path):
    def send():
        return getattr(stranger, method)(url + path, headers={"X-Request-ID": "same"})

    invisible = send()
    Stock.all_objects.filter(pk=stock.pk).purge()
    missing = send()
    assert invisible.json()["detail"] == f"Stock with ID {stock.pk} not found"
    assert (invisible.status_code, invisible.content) == (404, missing.content)
    assert lasting_headers(invisible) == lasting_headers(missing)


def test_stranger_cannot_update_stock(stranger, stock, url):
    before = stored(stock)
    assert stranger.patch(url, {"price": 1}).status_code == 404
    assert stranger.put(url, AAPL | {"price": 1}).status_code == 404
    assert stranger.delete(url).status_code == 404
    assert stored(stock) == before


@pytest.mark.parametrize("stock_id", ["0", "abc", "-1", "1.0", "9" * 31, "%00", "9223372036854775808"])
def test_invalid_id_is_not_found(staff, stock_id):
    answer = staff.get(f"{URL}/{stock_id}")
    assert (answer.status_code, answer.headers["Content-Type"]) == (404, "application/problem+json")


# Owners


def test_owner_creates_a_stock(owner):
    answer = owner.post(URL, AAPL)
    assert answer.status_code == 201
    assert list(answer.json()) == FIELDS
    expected = AAPL | {"is_active": True, "user_id": owner.user.pk, "version": 1}
    assert {name: answer.json()[name] for name in expected} == expected


def test_location_header_is_the_new_stock(owner):
    answer = owner.post(URL, AAPL)
    assert answer.headers["Location"] == f"{URL}/{answer.json()['id']}"
    assert owner.get(answer.headers["Location"]).json() == answer.json()


def test_owner_reads_their_stock(owner, stock, url):
    row = owner.get(url).json()
    assert list(row) == FIELDS
    assert (row["id"], row["name"], row["price"], row["quantity"]) == (stock.pk, "AAPL", 175.5, 10)
    assert row["created_at"].endswith("Z")


def test_owner_lists_only_own_stocks(owner, stranger, stock, make_stock):
    make_stock(stranger.user)
    answer = owner.get(URL).json()
    assert ([row["id"] for row in answer["items"]], answer["total"]) == ([stock.pk], 1)
    assert list(answer["items"][0]) == FIELDS


def test_owner_changes_their_stock(owner, url):
    answer = owner.patch(url, {"price": 190.25})
    assert answer.status_code == 200
    assert (answer.json()["price"], answer.json()["quantity"], answer.json()["version"]) == (190.25, 10, 2)


def test_owner_deletes_their_stock(owner, stock, url):
    answer = owner.delete(url)
    assert (answer.status_code, answer.content) == (204, b"")
    assert owner.get(url).status_code == 404
    assert owner.get(URL).json()["total"] == 0
    assert stored(stock)["deleted_by"] == owner.user.pk


# Staff


@pytest.mark.parametrize("codenames", [(), ("view_user", "change_user"), ("add_stock",), ("delete_stock",)])
def test_staff_without_view_permission_cannot_access_stocks(staff_with, stock, url, codenames):
    client = staff_with(*codenames)
    assert [getattr(client, method)(url).status_code for method in ("get", "patch", "delete")] == [404] * 3
    assert client.get(URL).json()["total"] == 0


def test_staff_with_view_permission_cannot_write(staff_with, stock, url):
    client, before = staff_with("view_stock"), stored(stock)
    assert client.get(url).json()["id"] == stock.pk
    assert [getattr(client, method)(url, AAPL).status_code for method in ("put", "patch", "delete")] == [403] * 3
    assert client.post(f"{url}/restore").status_code == 403
    assert stored(stock) == before


def test_change_permission_does_not_allow_deletion(staff_with, url):
    client = staff_with("change_stock")
    assert client.patch(url, {"price": 1}).status_code == 200
    assert client.delete(url).status_code == 403


def test_staff_list_all_stocks(staff, stock, stranger, make_stock):
    other = make_stock(stranger.user)
    assert {stock.pk, other.pk} <= {row["id"] for row in staff.get(URL, {"size": 200}).json()["items"]}


def test_staff_change_and_delete_any_stock(staff, owner, stock, url):
    answer = staff.patch(url, {"quantity": 3})
    assert (answer.status_code, answer.json()["quantity"], answer.json()["user_id"]) == (200, 3, owner.user.pk)
    assert staff.delete(url).status_code == 204
    assert stored(stock)["deleted_by"] == staff.user.pk


def test_staff_without_permission_manage_own_stocks(staff_with):
    client = staff_with()
    answer = client.post(URL, AAPL)
    assert (answer.status_code, answer.json()["user_id"]) == (201, client.user.pk)
    assert client.delete(answer.headers["Location"]).status_code == 204


# Ownership


def test_staff_create_stocks_for_other_users(staff, owner):
    answer = staff.post(URL, AAPL | {"user_id": owner.user.pk})
    assert (answer.status_code, answer.json()["user_id"]) == (201, owner.user.pk)


def test_staff_own_created_stocks_by_default(staff):
    assert staff.post(URL, AAPL).json()["user_id"] == staff.user.pk


def test_staff_transfer_a_stock_to_another_user(staff, stranger, owner, url):
    assert staff.patch(url, {"user_id": stranger.user.pk}).json()["user_id"] == stranger.user.pk
    assert (owner.get(url).status_code, stranger.get(url).status_code) == (404, 200)


@pytest.mark.parametrize("method", ["post", "put", "patch"])
def test_owner_cannot_set_user_id(owner, stranger, stock, url, method):
    before = stored(stock)
    answer = getattr(owner, method)(URL if method == "post" else url, AAPL | {"user_id": stranger.user.pk})
    assert (answer.status_code, list(answer.json()["errors"])) == (400, ["user_id"])
    assert stored(stock) == before
    assert not Stock.objects.filter(owner=stranger.user).exists()


@pytest.mark.parametrize("user_id", [0, -1, 2**62, 2**63, None, True, "x", 1.5, []])
def test_unknown_user_is_refused(staff, url, user_id):
    for answer in (staff.post(URL, AAPL | {"user_id": user_id}), staff.patch(url, {"user_id": user_id})):
        assert (answer.status_code, list(answer.json()["errors"])) == (400, ["user_id"])


def test_deleted_user_is_refused(staff, make_user):
    user = make_user()
    user.delete()
    answer = staff.post(URL, AAPL | {"user_id": user.pk})
    assert (answer.status_code, list(answer.json()["errors"])) == (400, ["user_id"])


# Fields


SYMBOLS = ["^gspc", "eurusd=x", "m&m", "btc/usd", "nyse:ge", "a_b", "-", "=", "&", "^.-=&/:_a1"]


@pytest.mark.parametrize("name", ["aapl", "brk.b", "bf-b", "x", "0700.hk", "abcdefghij", *SYMBOLS])
def test_symbol_is_stored_in_upper_case(owner, url, name):
    for answer in (owner.post(URL, AAPL | {"name": name}), owner.patch(url, {"name": name})):
        assert answer.json()["name"] == name.upper()


def test_symbol_is_found_in_any_case(owner, stock):
    for query in ("name=aapl", "name=AAPL", "name__in=msft,aapl", "search=aap"):
        assert owner.get(f"{URL}?{query}").json()["total"] == 1


@pytest.mark.parametrize("name", SYMBOLS)
def test_symbol_with_punctuation_works_in_every_endpoint(owner, superuser, name):
    created = owner.post(URL, AAPL | {"name": name}).json()
    owner.post(URL, AAPL | {"name": "QQ"})
    for parameters in ({"name": name}, {"name__in": f"XYZ,{name}"}, {"search": name}):
        page = owner.get(URL, parameters | {"size": 1}).json()
        assert [row["id"] for row in page["items"]] == [created["id"]]
        assert owner.get(page["links"]["last"]).json() == page
    prices = {"prices": {name: 7}}
    assert superuser.post(f"{URL}/reprice", prices).json() == {"updated": {name.upper(): 1}, "unknown": []}
    assert owner.get(f"{URL}/{created['id']}").json()["price"] == 7
    holdings = owner.get(f"/api/v1/users/{owner.user.pk}/portfolio").json()["by_symbol"]
    assert {row["name"] for row in holdings} == {name.upper(), "QQ"}


def test_search_treats_punctuation_literally(owner):
    for name in ("AXB", "A_B"):
        owner.post(URL, AAPL | {"name": name})
    assert [row["name"] for row in owner.get(URL, {"search": "a_b"}).json()["items"]] == ["A_B"]


@pytest.mark.parametrize("name", ["ſ", "ß", "ﬁ"])
def test_non_ascii_letter_matches_no_symbol(owner, name):
    for symbol in ("S", "SS", "FI"):
        owner.post(URL, AAPL | {"name": symbol})
    assert owner.get(URL, {"name": name}).json()["items"] == []


def test_database_refuses_invalid_symbols(owner):
    for name in ("A B", "A,B", "A%", "É", "ABCDEFGHIJK"):
        with pytest.raises((IntegrityError, DataError)), transaction.atomic():
            Stock.objects.create(owner=owner.user, name=name, price=1, quantity=1)


@pytest.mark.parametrize("price", ["0.0001", "175.5", "190.25", "99999999999.9999", "12345678901.2345", "1"])
def test_price_is_stored_exactly(owner, price):
    answer = owner.generic("POST", URL, f'{{"name": "AAPL", "price": {price}, "quantity": 1}}', JSON)
    assert json.loads(answer.content, parse_float=str, parse_int=str)["price"] == price
    assert Stock.objects.get(pk=answer.json()["id"]).price == Decimal(price)


@pytest.mark.parametrize("quantity", [1, 2**53 + 1, 2**63 - 1])
def test_quantity_is_stored_exactly(owner, quantity):
    answer = owner.post(URL, AAPL | {"quantity": quantity})
    assert (answer.status_code, answer.json()["quantity"]) == (201, quantity)


INVALID_VALUES = [
    ("name", ""),
    ("name", "ABCDEFGHIJK"),
    ("name", "BRK B"),
    ("name", "AAPL$"),
    ("name", "A,B"),
    ("name", "A%B"),
    ("name", "A\\B"),
    ("name", 'A"B'),
    ("name", "A+B"),
    ("name", "ß"),
    ("name", "É"),
    ("name", None),
    ("name", 7.5),
    ("name", ["AAPL"]),
    ("price", 0),
    ("price", -1),
    ("price", "abc"),
    ("price", True),
    ("price", None),
    ("price", 0.00001),
    ("price", 10**11),
    ("price", float("nan")),
    ("price", float("inf")),
    ("quantity", 0),
    ("quantity", -1),
    ("quantity", 2**63),
    ("quantity", 1.5),
    ("quantity", "many"),
    ("quantity", True),
    ("quantity", None),
    ("is_active", None),
    ("is_active", "maybe"),
]


@pytest.mark.parametrize(("field", "value"), INVALID_VALUES)
def test_invalid_value_is_named_and_not_stored(owner, stock, url, field, value):
    before, text = stored(stock), json.dumps(AAPL | {field: value})
    for method, path in (("POST", URL), ("PUT", url), ("PATCH", url)):
        answer = owner.generic(method, path, text, JSON)
        assert (answer.status_code, list(answer.json()["errors"])) == (400, [field])
    assert stored(stock) == before
    assert Stock.objects.filter(owner=owner.user).count() == 1


@pytest.mark.parametrize("field", ["price", "quantity"])
def test_zero_is_refused_with_the_documented_message(owner, field):
    answer = owner.post(URL, AAPL | {field: 0})
    assert answer.json()["errors"] == {field: ["Ensure this value is greater than 0."]}


@pytest.mark.parametrize("field", ["id", "version", "created_at", "updated_at", "owner", "owner_id", "deleted_at"])
def test_read_only_fields_cannot_be_written(staff, stock, url, field):
    before = stored(stock)
    for answer in (staff.post(URL, AAPL | {field: 7}), staff.patch(url, {field: 7})):
        assert (answer.status_code, list(answer.json()["errors"])) == (400, [field])
    assert stored(stock) == before


def test_unknown_field_suggests_a_close_one(owner):
    answer = owner.post(URL, AAPL | {"pric": 1})
    assert answer.json()["errors"] == {"pric": ["Unknown field. Did you mean 'price'?"]}


# PUT and PATCH


def test_put_resets_omitted_fields_to_defaults(owner, make_stock):
    stock = make_stock(owner.user, is_active=False)
    answer = owner.put(f"{URL}/{stock.pk}", {"name": "MSFT", "price": 1, "quantity": 2})
    assert answer.status_code == 200
    expected = {"name": "MSFT", "price": 1, "quantity": 2, "is_active": True, "user_id": owner.user.pk, "version": 2}
    assert {name: answer.json()[name] for name in expected} == expected


@pytest.mark.parametrize("missing", list(AAPL))
def test_put_without_a_required_field_is_refused(owner, stock, url, missing):
    before = stored(stock)
    answer = owner.put(url, {name: value for name, value in AAPL.items() if name != missing})
    assert (answer.status_code, answer.json()["errors"]) == (400, {missing: ["This field is required."]})
    assert stored(stock) == before


def test_put_by_staff_keeps_the_owner(staff, owner, url):
    assert staff.put(url, AAPL).json()["user_id"] == owner.user.pk


@pytest.mark.parametrize(("field", "value"), [("name", "MSFT"), ("price", 1), ("quantity", 1), ("is_active", False)])
def test_patch_writes_only_the_given_column(owner, url, field, value):
    with CaptureQueriesContext(connection) as queries:
        owner.patch(url, {field: value})
    [update] = [query["sql"] for query in queries if 'UPDATE "stocks" SET' in query["sql"]]
    columns = {*FIELDS, "owner_id", "deleted_at", "deletion"}
    written = {name for name in columns if f'"{name}" = ' in update.partition(" WHERE ")[0]}
    assert written == {field, "updated_at", "version"}


@pytest.mark.parametrize("body", [{}, {"quantity": 10}, AAPL])
def test_patch_without_changes_writes_nothing(owner, stock, url, body):
    before = stored(stock)
    assert owner.patch(url, body).status_code == 200
    assert stored(stock) == before


def test_every_change_increments_the_version(owner, staff, stock, url):
    versions = [owner.patch(url, {"quantity": 1}).json()["version"], owner.put(url, AAPL).json()["version"]]
    owner.delete(url)
    versions.append(staff.post(f"{url}/restore").json()["version"])
    assert versions == [2, 3, 5]


# Deleting and restoring


def test_deletion_stores_user_and_reason(owner, staff, stock, url):
    owner.delete(f"{url}?reason=sold")
    [row] = staff.get(f"{URL}?is_deleted=true").json()["items"]
    assert list(row) == [*FIELDS, "is_deleted", "deleted_at", "deleted_by", "deletion_reason"]
    assert (row["id"], row["is_deleted"], row["deletion_reason"]) == (stock.pk, True, "sold")
    assert (row["deleted_by"], row["deleted_at"][-1]) == (owner.user.pk, "Z")


@pytest.mark.parametrize("query", [f"reason={'x' * 201}", "reason=a&reason=b", "permanent=true", "reason=%00"])
def test_invalid_parameter_deletes_nothing(owner, url, query):
    answer = owner.delete(f"{url}?{query}")
    assert (answer.status_code, list(answer.json()["errors"])) == (400, [query.partition("=")[0]])
    assert owner.get(url).status_code == 200


def test_deleted_stock_cannot_be_changed(owner, staff, url):
    owner.delete(url)
    for client in (owner, staff):
        assert client.patch(url, {"price": 1}).status_code == 404
        assert client.delete(url).status_code == 404


def test_staff_restore_a_stock(owner, staff, stock, url):
    owner.delete(url)
    answer = staff.post(f"{url}/restore")
    assert (answer.status_code, list(answer.json())) == (200, FIELDS)
    assert owner.get(url).json()["id"] == stock.pk
    assert (stored(stock)["deletion_reason"], stored(stock)["deleted_by"]) == ("", None)


def test_owner_cannot_restore(owner, stock, url):
    owner.delete(url)
    assert owner.post(f"{url}/restore").status_code == 404
    assert stored(stock)["deleted_at"] is not None


def test_stock_of_a_deleted_owner_cannot_be_restored(staff, owner, url):
    staff.delete(f"/api/v1/users/{owner.user.pk}")
    answer = staff.post(f"{url}/restore")
    assert (answer.status_code, answer.headers["Content-Type"]) == (409, "application/problem+json")
    assert staff.get(url).status_code == 404


def test_restoring_a_live_stock_changes_nothing(staff, stock, url):
    before = stored(stock)
    assert staff.post(f"{url}/restore").status_code == 200
    assert stored(stock) == before


def test_owner_cannot_list_deleted_stocks(owner):
    answer = owner.get(f"{URL}?is_deleted=true")
    assert (answer.status_code, list(answer.json()["errors"])) == (400, ["is_deleted"])


# Lists


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("name=MSFT", {"MSFT"}),
        ("name__in=MSFT,GOOG", {"MSFT", "GOOG"}),
        ("price=20.5", {"MSFT"}),
        ("price__gt=20.5", {"GOOG"}),
        ("price__gte=20.5", {"MSFT", "GOOG"}),
        ("price__lt=20.5", {"AAPL"}),
        ("price__lte=20.5", {"AAPL", "MSFT"}),
        ("quantity=2", {"MSFT"}),
        ("quantity__gt=2", {"GOOG"}),
        ("quantity__gte=2", {"MSFT", "GOOG"}),
        ("quantity__lt=2", {"AAPL"}),
        ("quantity__lte=2", {"AAPL", "MSFT"}),
        ("is_active=false", {"GOOG"}),
        ("is_active=true", {"AAPL", "MSFT"}),
        ("user_id=0", set()),
        ("created_at__gte=2000-01-01T00:00:00Z", {"AAPL", "MSFT", "GOOG"}),
        ("created_at__lte=2000-01-01T00:00:00Z", set()),
        ("created_at__date=2000-01-01", set()),
        ("price__gt=1&quantity__lt=3", {"AAPL", "MSFT"}),
        ("search=OO", {"GOOG"}),
    ],
)
def test_filter(owner, make_stock, query, expected):
    for name, price, quantity in (("AAPL", "10.25", 1), ("MSFT", "20.5", 2), ("GOOG", "30", 3)):
        make_stock(owner.user, name=name, price=price, quantity=quantity, is_active=name != "GOOG")
    assert {row["name"] for row in owner.get(f"{URL}?{query}").json()["items"]} == expected


@pytest.mark.parametrize("key", ["id", "name", "price", "quantity", "created_at"])
@pytest.mark.parametrize("sign", ["", "-"])
def test_sort(owner, make_stock, key, sign):
    for number in (10, 9, 11):
        make_stock(owner.user, name=f"S{number}", price=number, quantity=number)
    values = [row[key] for row in owner.get(f"{URL}?sort_by={sign}{key}").json()["items"]]
    assert len(values) == 3
    assert values == sorted(values, reverse=sign == "-")


def test_staff_filter_by_user(staff, owner, stranger, stock, make_stock):
    make_stock(stranger.user)
    items = staff.get(URL, {"user_id": owner.user.pk}).json()["items"]
    assert [row["id"] for row in items] == [stock.pk]


def test_list_query_count_is_constant(owner, make_stock):
    make_stock(owner.user)
    count = query_count(owner, URL)
    for _ in range(15):
        make_stock(owner.user)
    assert query_count(owner, URL) == count == 2


def test_detail_takes_two_queries(owner, url):
    assert query_count(owner, url) == 2


# Database constraints


@pytest.mark.parametrize(
    ("change", "constraint"),
    [
        ({"price": 0}, "stocks_price_check"),
        ({"price": -1}, "stocks_price_check"),
        ({"quantity": 0}, "stocks_quantity_check"),
        ({"quantity": -1}, "stocks_quantity_check"),
        ({"name": ""}, "stocks_name_check"),
        ({"name": "BRK B"}, "stocks_name_check"),
        ({"name": "AAPL\n"}, "stocks_name_check"),
    ],
)
def test_database_refuses_an_invalid_stock(stock, change, constraint):
    with pytest.raises(IntegrityError, match=constraint), transaction.atomic():
        Stock.objects.filter(pk=stock.pk).update(**change)


def test_database_refuses_a_lower_case_symbol(stock):
    with pytest.raises(IntegrityError, match="stocks_name_check"), transaction.atomic():
        connection.cursor().execute("UPDATE stocks SET name = 'aapl' WHERE id = %s", [stock.pk])


@pytest.mark.parametrize(
    ("change", "constraint"),
    [
        ({"age": -1}, "users_age_check"),
        ({"age": 151}, "users_age_check"),
        ({"gender": "male"}, "users_gender_check"),
        ({"gender": ""}, "users_gender_check"),
        ({"name": "ada"}, "users_name_check"),
        ({"name": "Ad"}, "users_name_check"),
        ({"name": ""}, "users_name_check"),
        ({"username": "TAKEN"}, "users_username_unique"),
        ({"email": "Taken@EXAMPLE.com"}, "users_email_unique"),
    ],
)
def test_database_refuses_an_invalid_user(make_user, change, constraint):
    make_user(username="taken", email="taken@example.com")
    user = make_user()
    with pytest.raises(IntegrityError, match=constraint), transaction.atomic():
        User.objects.filter(pk=user.pk).update(**change)


def test_database_refuses_a_stock_without_owner(stock):
    with pytest.raises(IntegrityError, match="owner_id"), transaction.atomic():
        connection.cursor().execute("UPDATE stocks SET owner_id = NULL WHERE id = %s", [stock.pk])


def test_restore_refuses_a_body(staff, owner, make_stock):
    stock = make_stock(owner.user)
    answer = staff.post(f"/api/v1/stocks/{stock.pk}/restore", {"x": 1})
    assert (answer.status_code, list(answer.json()["errors"])) == (400, ["x"])


@pytest.mark.parametrize("digits", ["١", "1_0"])
def test_non_ascii_digits_and_underscores_are_refused(owner, digits):
    answer = owner.post("/api/v1/stocks", {"name": "AAPL", "price": digits, "quantity": digits})
    assert (answer.status_code, sorted(answer.json()["errors"])) == (400, ["price", "quantity"])
