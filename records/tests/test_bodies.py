"""Request bodies that cannot be parsed, validated or stored."""

import json
import re
from io import BytesIO

import pytest
from django.test import RequestFactory

from config.wsgi import application
from conftest import Client
from stocks.models import Stock
from users.models import User

STOCKS, USERS = "/api/v1/stocks", "/api/v1/users"
MEBIBYTE = 1024 * 1024
JSON = "application/json"
DIGITS = "9" * 5000
ABOVE_BIGINT = str(2**63)
INVALID_TEXT = ['"a\\u0000b"', '"\\ud800"', '"a\\udfffb"', "[]", "{}", "true", "NaN", "Infinity"]
INVALID_NUMBER = [
    "NaN",
    "Infinity",
    "-Infinity",
    "1e400",
    DIGITS,
    f"-{DIGITS}",
    "true",
    "false",
    '"abc"',
    '"NaN"',
    '""',
]
INVALID_NUMBER += [
    '"\\u0000"',
    '"\\ud800"',
    '"1_0"',
    "[]",
    "[1]",
    "{}",
    "1e999999999999999999",
    "1e9999999999999999999",
]
INVALID_PRICE = [
    *INVALID_NUMBER,
    "null",
    "0",
    "-1",
    "-0.0001",
    "0.00001",
    "1.23456",
    "1e-400",
    "1e11",
    "123456789012.5",
]
INVALID_INTEGER = [*INVALID_NUMBER, "1.5", '"1.5"', "1e-1", ABOVE_BIGINT, f"-{ABOVE_BIGINT}9", f'"{ABOVE_BIGINT}"']
INVALID_QUANTITY = [*INVALID_INTEGER, "null", "0", "-1"]
INVALID_SYMBOL = [*INVALID_TEXT, "null", '""', '" "', '"ELEVENCHARS"', '"A B"', '"Ü"', '"A+B"', '"A\\nB"', '"ß"']
INVALID_BOOLEAN = ["null", "2", '"maybe"', "NaN", "Infinity", DIGITS, "[]", "{}", '"\\u0000"', '"\\ud800"', '""']
INVALID_USERNAME = [*INVALID_TEXT, "null", '""', '"ab"', '"a b"', '"a@b"', f'"{"a" * 51}"', '"ünal"']
INVALID_EMAIL = [*INVALID_TEXT, '""', '"x"', '"x@"', '"@x.org"', '"a@b@c.org"', f'"{"a" * 250}@x.org"', '"x@y.org\\nz"']
INVALID_NAME = [*INVALID_TEXT, '""', '"Ab"', '"ann smith"', '"1nn"', f'"A{"a" * 40}"']
INVALID_GENDER = ['"male"', '"Other"', '""', "5", "true", "[]", "{}", "NaN", DIGITS, '"\\u0000"', '"\\ud800"']
INVALID_AGE = [*INVALID_INTEGER, "-1", "151", "40000", str(2**31)]
INVALID_BIO = [*INVALID_TEXT, f'"{"a" * 2001}"']
INVALID_PHONE = [*INVALID_TEXT, '"abc"', '"12"', f'"{"1" * 33}"', '"+49\\n30123456"']
INVALID_USER = [*INVALID_INTEGER, "null", "0", "-1", str(2**63 - 1)]


def cases(**fields):
    return [pytest.param(name, raw, id=f"{name}-{raw[:24]}") for name, bad in fields.items() for raw in bad]


def raw_body(**fields):
    return "{" + ", ".join(f'"{name}": {raw}' for name, raw in fields.items()) + "}"


def send(client, method, path, body, content_type=JSON, **headers):
    return client.generic(method, path, body, content_type=content_type, **headers)


def problem(response, status):
    """Check the format of the problem details in `response` and return them."""
    assert response.status_code == status, response.content
    assert response["Content-Type"] == "application/problem+json"
    body = response.json()
    assert body.keys() - {"errors"} == {"type", "title", "status", "detail", "request_id"}
    assert (body["type"], body["status"], body["title"]) == ("about:blank", status, response.reason_phrase)
    assert body["detail"]
    assert body["request_id"] == response["X-Request-ID"]
    return body


def errors_of(response):
    return problem(response, 400)["errors"]


# Values


@pytest.mark.parametrize(
    ("name", "raw"),
    cases(price=INVALID_PRICE, quantity=INVALID_QUANTITY, name=INVALID_SYMBOL, is_active=INVALID_BOOLEAN),
)
def test_invalid_value_of_a_new_stock_is_named(owner, name, raw):
    body = raw_body(**{"name": '"AAPL"', "price": "1", "quantity": "1", name: raw})
    assert errors_of(send(owner, "POST", STOCKS, body)).keys() == {name}
    assert not Stock.objects.filter(owner=owner.user).exists()


@pytest.mark.parametrize(
    ("name", "raw"),
    cases(price=INVALID_PRICE, quantity=INVALID_QUANTITY, name=INVALID_SYMBOL, is_active=INVALID_BOOLEAN),
)
def test_invalid_value_of_a_stock_is_named(owner, make_stock, name, raw):
    stock = make_stock(owner.user)
    assert errors_of(send(owner, "PATCH", f"{STOCKS}/{stock.pk}", raw_body(**{name: raw}))).keys() == {name}
    assert Stock.objects.get(pk=stock.pk).version == 1


@pytest.mark.parametrize(("name", "raw"), cases(user_id=INVALID_USER))
def test_invalid_owner_is_named(staff, name, raw):
    body = raw_body(name='"AAPL"', price="1", quantity="1", user_id=raw)
    assert errors_of(send(staff, "POST", STOCKS, body)).keys() == {name}


USER_FIELDS = {
    "username": INVALID_USERNAME,
    "email": INVALID_EMAIL,
    "name": INVALID_NAME,
    "gender": INVALID_GENDER,
    "age": INVALID_AGE,
    "bio": INVALID_BIO,
    "phone_number": INVALID_PHONE,
    "is_active": INVALID_BOOLEAN,
    "is_staff": INVALID_BOOLEAN,
}


@pytest.mark.parametrize(("name", "raw"), cases(**USER_FIELDS))
def test_invalid_value_of_a_user_is_named(staff, make_user, name, raw):
    user = make_user()
    assert errors_of(send(staff, "PATCH", f"{USERS}/{user.pk}", raw_body(**{name: raw}))).keys() == {name}
    assert User.objects.get(pk=user.pk).version == 1


@pytest.mark.parametrize(("name", "raw"), cases(**USER_FIELDS, password=INVALID_TEXT))
def test_invalid_value_of_a_new_user_is_named(staff, name, raw):
    body = raw_body(**{"username": '"ada"', "email": '"ada@example.org"', name: raw})
    assert name in errors_of(send(staff, "POST", USERS, body))
    assert not User.objects.filter(username="ada").exists()


@pytest.mark.parametrize("name", ["Ann Smith", "Élodie", "Ω12"])
def test_name_starting_with_a_capital_letter_is_stored(owner, name):
    response = owner.patch(f"{USERS}/me", {"name": name})
    assert (response.status_code, response.json().get("name")) == (200, name)


@pytest.mark.parametrize("raw", INVALID_PRICE, ids=lambda raw: raw[:24])
def test_invalid_price_of_a_symbol_is_named(staff, raw):
    response = send(staff, "POST", f"{STOCKS}/reprice", raw_body(prices=raw_body(MSFT="1", AAPL=raw)))
    assert all(name.startswith("prices.AAPL") for name in errors_of(response))


@pytest.mark.parametrize("symbol", ["\\u0000", "A\\u0000", "\\ud800", "\\udfff"])
def test_undecodable_symbol_is_refused(staff, symbol):
    assert problem(send(staff, "POST", f"{STOCKS}/reprice", f'{{"prices": {{"{symbol}": 1}}}}'), 400)


@pytest.mark.parametrize("raw", INVALID_TEXT)
@pytest.mark.parametrize("name", ["username", "password"])
def test_invalid_value_of_a_login_is_named(anonymous, name, raw):
    body = raw_body(**{"username": '"ada"', "password": '"x"', name: raw})
    assert errors_of(send(anonymous, "POST", "/api/v1/auth/login", body)).keys() == {name}


def test_all_invalid_values_are_named(owner):
    body = raw_body(name='"a b"', price="0", quantity="true", pric="1", id="7")
    assert errors_of(send(owner, "POST", STOCKS, body)).keys() == {"name", "price", "quantity", "pric", "id"}


@pytest.mark.parametrize(("price", "stored"), [("175.5", 175.5), ("1e3", 1000), ('"0.0001"', 0.0001), ("1.5000", 1.5)])
def test_price_is_stored_exactly(owner, price, stored):
    response = send(owner, "POST", STOCKS, raw_body(name='"A"', price=price, quantity="1"))
    assert (response.status_code, response.json()["price"]) == (201, stored)


def test_largest_values_are_returned_exactly(owner):
    body = raw_body(name='"A.B-C12345"', price="99999999999.9999", quantity=str(2**63 - 1))
    answer = send(owner, "POST", STOCKS, body).content
    assert b'"price":99999999999.9999,' in answer
    assert f'"quantity":{2**63 - 1},'.encode() in answer


# Fields


@pytest.mark.parametrize("name", ["id", "created_at", "updated_at", "version", "user_id"])
def test_read_only_field_of_a_stock_is_refused(owner, make_stock, name):
    stock = make_stock(owner.user)
    assert errors_of(owner.patch(f"{STOCKS}/{stock.pk}", {"price": 2, name: 1})).keys() == {name}
    assert Stock.objects.get(pk=stock.pk).version == 1


@pytest.mark.parametrize("name", ["is_staff", "is_superuser", "is_active", "is_verified", "oauth_provider", "version"])
def test_read_only_field_of_the_current_user_is_refused(owner, name):
    assert errors_of(owner.patch(f"{USERS}/me", {"age": 5, name: True})).keys() == {name}
    assert User.objects.get(pk=owner.user.pk).age is None


@pytest.mark.parametrize("name", ["password", "groups", "user_permissions", "deleted_at", "deletion", "last_login"])
def test_hidden_field_of_a_user_is_unknown(superuser, make_user, name):
    assert errors_of(superuser.patch(f"{USERS}/{make_user().pk}", {name: "x"})).keys() == {name}


def test_unknown_field_gets_a_suggestion(owner, make_stock):
    [message] = errors_of(owner.patch(f"{STOCKS}/{make_stock(owner.user).pk}", {"pric": 2}))["pric"]
    assert "Did you mean 'price'?" in message


@pytest.mark.parametrize("key", ["\\u0000", "\\ud800", "", " ", "a\\nb", "k" * 10_000, "__class__", "errors"])
def test_unknown_key_is_refused(owner, make_stock, key):
    stock = make_stock(owner.user)
    assert "nknown" in problem(send(owner, "PATCH", f"{STOCKS}/{stock.pk}", f'{{"{key}": 1}}'), 400)["detail"]


# JSON documents


NON_OBJECTS = ["[]", "[1]", '[{"price": 2}]', '"x"', '""', "5", "0", "1.5", "true", "false", "null", "NaN", DIGITS]
INVALID_JSON = ["{", "", " ", "{'a': 1}", '{"price": 2,}', '{"price": 2} x', '{"price": 01}', "undefined", "\ufeff{}"]
WRITES = [("POST", STOCKS), ("POST", USERS), ("POST", f"{STOCKS}/reprice"), ("POST", "/api/v1/auth/register")]
WRITES += [("POST", "/api/v1/auth/login"), ("PATCH", f"{USERS}/me"), ("PUT", f"{USERS}/me")]
writes = pytest.mark.parametrize(("method", "path"), WRITES)


@writes
@pytest.mark.parametrize("body", NON_OBJECTS, ids=lambda body: body[:16])
def test_non_object_body_is_refused(staff, method, path, body):
    problem(send(staff, method, path, body), 400)


@writes
@pytest.mark.parametrize("body", [body for body in INVALID_JSON if body])
def test_invalid_json_body_is_refused(staff, method, path, body):
    problem(send(staff, method, path, body), 400)


@writes
@pytest.mark.parametrize(
    "body", ['{"price": 1, "price": 2}', '{"a": {"b": [{"c": 1, "c": 1}]}}', '{"\\ud800":1,"\\ud800":2}']
)
def test_duplicate_key_is_refused(staff, method, path, body):
    assert "twice" in problem(send(staff, method, path, body), 400)["detail"]


@writes
@pytest.mark.parametrize(
    "body",
    ["[" * 100_000, "[" * 100_000 + "]" * 100_000, '{"a":' * 100_000, '{"name":' + "[" * 100_000 + "]" * 100_000 + "}"],
    ids=["open", "lists", "objects", "value"],
)
def test_body_nested_too_deep_is_refused(staff, method, path, body):
    problem(send(staff, method, path, body), 400)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        *((STOCKS, name) for name in ("price", "quantity", "name", "is_active")),
        *((USERS, name) for name in ("gender", "age", "email", "password")),
        (f"{STOCKS}/reprice", "prices"),
    ],
)
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")], ids=["lists", "objects"])
def test_nested_value_of_any_depth_is_refused(staff, path, name, opening, closing):
    for depth in range(20, 1001, 10):
        nested = f"{opening * depth}1{closing * depth}"
        assert send(staff, "POST", path, raw_body(**{name: nested})).status_code == 400, depth


@writes
@pytest.mark.parametrize("body", [b"\xff", b'{"name": "\xff"}', b'{"name": "\xed\xa0\x80"}', b"\xff\xfe{\x00}\x00"])
def test_body_in_invalid_utf8_is_refused(staff, method, path, body):
    assert "UTF-8" in problem(send(staff, method, path, body), 400)["detail"]


def test_empty_body_names_the_required_fields(owner):
    assert errors_of(send(owner, "POST", STOCKS, b"")).keys() == {"name", "price", "quantity"}


# Missing bodies


@pytest.mark.parametrize(
    ("method", "path"),
    [("PUT", f"{USERS}/me"), ("PATCH", f"{USERS}/me"), ("PUT", f"{USERS}/#"), ("PATCH", f"{USERS}/#")]
    + [
        ("PUT", f"{STOCKS}/@"),
        ("PATCH", f"{STOCKS}/@"),
        ("POST", STOCKS),
        ("POST", USERS),
        ("POST", f"{USERS}/#/stocks"),
    ]
    + [("POST", f"{STOCKS}/reprice"), ("POST", "/api/v1/admin/audit-logs/undo"), ("POST", "/api/v1/auth/login")]
    + [("POST", f"/api/v1/auth/{name}") for name in ("register", "refresh", "change-password", "verify-email")]
    + [("POST", f"/api/v1/auth/{name}") for name in ("request-password-reset", "reset-password")],
)
@pytest.mark.parametrize(
    "content_type", [JSON, "", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"]
)
def test_write_without_a_body_is_refused(superuser, make_stock, method, path, content_type):
    stock = make_stock(superuser.user)
    path = path.replace("#", str(superuser.user.pk)).replace("@", str(stock.pk))
    problem(send(superuser, method, path, b"", content_type), 400)
    problem(send(superuser, method, path, b"", content_type, CONTENT_LENGTH="0"), 400)
    assert (Stock.objects.get(pk=stock.pk).version, User.objects.get(pk=superuser.user.pk).version) == (1, 1)


@pytest.mark.parametrize("path", [f"{USERS}/me", f"{STOCKS}/@"])
def test_empty_object_changes_nothing(owner, make_stock, path):
    stock = make_stock(owner.user)
    assert send(owner, "PATCH", path.replace("@", str(stock.pk)), "{}").json()["version"] == 1


@pytest.mark.parametrize("path", [f"{STOCKS}/@/restore", "/api/v1/auth/logout"])
@pytest.mark.parametrize("body", ["", "{}"])
def test_action_without_fields_needs_no_body(staff, make_stock, path, body):
    stock = make_stock(staff.user)
    assert send(staff, "POST", path.replace("@", str(stock.pk)), body).status_code in {200, 204}


@pytest.mark.parametrize("path", ["logout", "change-password", "request-account-deletion"])
@pytest.mark.parametrize(
    "content_type", ["multipart/form-data; boundary=x", "application/x-www-form-urlencoded", "text/plain", ""]
)
def test_form_body_read_by_the_csrf_check_is_unsupported(make_user, path, content_type):
    browser = Client()
    browser.force_login(make_user())
    browser.handler.enforce_csrf_checks = True
    browser.cookies["csrftoken"] = token = "a" * 32
    body = '--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--x--\r\n' if "x" in content_type else "a=1"
    response = browser.generic("POST", f"/api/v1/auth/{path}", body, content_type=content_type, HTTP_X_CSRFTOKEN=token)
    problem(response, 415)


# Sizes and content types


@writes
def test_body_over_a_mebibyte_is_too_large(staff, method, path):
    problem(send(staff, method, path, b"{}".ljust(MEBIBYTE + 1)), 413)


def test_body_of_a_mebibyte_is_read(owner):
    body = raw_body(name='"A"', price="1", quantity="1").ljust(MEBIBYTE)
    assert send(owner, "POST", STOCKS, body).status_code == 201


def test_form_over_a_mebibyte_is_too_large(anonymous):
    form = "username=a&password=" + "b" * MEBIBYTE
    problem(send(anonymous, "POST", "/api/v1/auth/login", form, "application/x-www-form-urlencoded"), 413)


@pytest.mark.parametrize("length", ["abc", "-5", "1e3"])
def test_invalid_content_length_is_400(owner, length):
    response = send(owner, "POST", STOCKS, "{}", CONTENT_LENGTH=length)
    assert response.status_code == 400


@writes
@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/xml", "application/octet-stream", "a", "/", "text/html"]
)
def test_body_of_another_content_type_is_415(staff, method, path, content_type):
    problem(send(staff, method, path, "x=1", content_type), 415)


@pytest.mark.parametrize("content_type", ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x"])
def test_forms_are_accepted_only_by_login(owner, content_type):
    problem(send(owner, "POST", STOCKS, "name=A&price=1&quantity=1", content_type), 415)


@pytest.mark.parametrize(
    "content_type", ["application/json; charset=utf-8", "APPLICATION/JSON", "application/json;x=y"]
)
def test_json_content_type_is_matched_leniently(owner, content_type):
    body = raw_body(name='"A"', price="1", quantity="1")
    assert send(owner, "POST", STOCKS, body, content_type).status_code == 201


@pytest.mark.parametrize("path", [STOCKS, "/api/v1/nope", "/api/v1/auth/login"])
def test_unsupported_accept_header_is_refused(owner, path):
    response = owner.get(path, HTTP_ACCEPT="application/xml")
    assert response.status_code in {404, 405, 406}
    problem(response, response.status_code)


# Paths

INVALID_IDS = ["abc", str(10**30), str(2**63), "9" * 5000, "%00", "1%00", "-1", "+1", "1.5", "%ff", "0", "%20", "1%20"]
INVALID_IDS += [
    "1%0a",
    "%D9%A3",
    "%C2%B2",
    "1e1",
    "0x1",
    "None",
    "true",
    "1,2",
    "*",
    "%F0%9F%98%80",
    "1_0",
    "%ED%A0%80",
]
invalid_ids = pytest.mark.parametrize("invalid_id", INVALID_IDS, ids=lambda text: text[:24])


@invalid_ids
@pytest.mark.parametrize("slash", ["", "/"])
def test_stock_with_an_invalid_id_is_not_found(superuser, invalid_id, slash):
    for method in ("GET", "PUT", "PATCH", "DELETE"):
        body = problem(send(superuser, method, f"{STOCKS}/{invalid_id}{slash}", "{}"), 404)
        assert re.fullmatch(r"Stock with ID .* not found", body["detail"])
    problem(superuser.post(f"{STOCKS}/{invalid_id}/restore{slash}"), 404)


@invalid_ids
@pytest.mark.parametrize("slash", ["", "/"])
def test_user_with_an_invalid_id_is_not_found(superuser, invalid_id, slash):
    for method in ("GET", "PUT", "PATCH", "DELETE"):
        body = problem(send(superuser, method, f"{USERS}/{invalid_id}{slash}", "{}"), 404)
        assert re.fullmatch(r"User with ID .* not found", body["detail"])
    problem(superuser.post(f"{USERS}/{invalid_id}/restore{slash}"), 404)


@invalid_ids
def test_holdings_of_an_invalid_user_id_are_not_found(superuser, invalid_id):
    for path in ("stocks", "portfolio"):
        problem(superuser.get(f"{USERS}/{invalid_id}/{path}"), 404)
    problem(superuser.post(f"{USERS}/{invalid_id}/stocks", {"name": "A", "price": 1, "quantity": 1}), 404)


def test_row_of_another_user_looks_like_a_missing_row(owner, stranger, make_stock):
    path = f"{STOCKS}/{make_stock(stranger.user).pk}"
    for method in ("GET", "PATCH", "PUT", "DELETE"):
        hidden = send(owner, method, path, "{}", HTTP_X_REQUEST_ID="x").content
        Stock.objects.all().delete()
        assert hidden == send(owner, method, path, "{}", HTTP_X_REQUEST_ID="x").content
        Stock.all_objects.all().restore()


@pytest.mark.parametrize("slash", ["", "/"])
def test_every_method_works_with_and_without_a_slash(staff, slash):
    new = {"name": "A", "price": 1, "quantity": 1}
    assert staff.get(f"{STOCKS}{slash}").status_code == 200
    assert staff.head(f"{STOCKS}{slash}").status_code == 200
    assert staff.options(f"{STOCKS}{slash}").status_code == 200
    pk = staff.post(f"{STOCKS}{slash}", new).json()["id"]
    row = f"{STOCKS}/{pk}"
    assert staff.get(f"{row}{slash}").status_code == 200
    assert staff.put(f"{row}{slash}", new).status_code == 200
    assert staff.patch(f"{row}{slash}", {"price": 2}).status_code == 200
    assert staff.delete(f"{row}{slash}").status_code == 204
    assert staff.post(f"{row}/restore{slash}").status_code == 200
    assert staff.post(f"{STOCKS}/reprice{slash}", {"prices": {"A": 3}}).status_code == 200


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize("path", ["/api/v1", "/api/v1/users", "/api/v1/users/me", "/ping", "/health/live"])
def test_get_works_with_and_without_a_slash(owner, path, slash):
    assert owner.get(f"{path}{slash}").status_code == 200


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"])
@pytest.mark.parametrize(
    "path",
    [
        "/api",
        "/api/",
        "/api/v2",
        "/api/v1/nope",
        "/api/v1/nope/",
        "/api/v1/stocks/1/2",
        "/api/v1/stocks/1/nope",
        "/api/v1//stocks",
        "/api/v1/stocks//",
        "/api/v1/%00",
        "/api/v1/%ff",
        "/api/v1/stocks.json",
        "/api/v1/Stocks",
    ],
)
def test_unknown_path_is_not_found(anonymous, method, path):
    response = send(anonymous, method, path, "{}")
    if method == "HEAD":
        assert (response.status_code, response["Content-Type"]) == (404, "application/problem+json")
    else:
        problem(response, 404)


@pytest.mark.parametrize(
    ("method", "path"),
    [(method, STOCKS) for method in ("PUT", "PROPFIND")]
    + [(method, f"{STOCKS}/1") for method in ("POST", "PROPFIND")]
    + [("GET", f"{STOCKS}/1/restore"), ("GET", f"{STOCKS}/reprice"), ("DELETE", f"{USERS}/me")]
    + [("POST", f"{USERS}/1/portfolio"), ("DELETE", f"{USERS}/{{me}}/stocks"), ("GET", "/api/v1/auth/login")],
)
@pytest.mark.parametrize("slash", ["", "/"])
def test_unsupported_method_is_405(superuser, method, path, slash):
    response = send(superuser, method, f"{path}{slash}".replace("{me}", str(superuser.user.pk)), "{}")
    problem(response, 405)
    assert response["Allow"]


@pytest.mark.parametrize("path", [STOCKS, f"{STOCKS}/1", USERS, f"{USERS}/me", f"{USERS}/1/portfolio"])
def test_anonymous_is_unauthorized(anonymous, path):
    response = anonymous.get(path)
    problem(response, 401)
    assert response["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize("token", ["", "x", "a.b.c", "é", "\x00", "x y", "." * 10_000])
def test_malformed_token_is_unauthorized(anonymous, token):
    problem(anonymous.get(STOCKS, HTTP_AUTHORIZATION=f"Bearer {token}"), 401)


# Request ids


@pytest.mark.parametrize("request_id", ["abc-123", "A.b:c_d-9", "x", "x" * 64])
def test_valid_request_id_is_echoed(owner, request_id):
    response = owner.get(f"{STOCKS}/0", HTTP_X_REQUEST_ID=request_id)
    assert response["X-Request-ID"] == problem(response, 404)["request_id"] == request_id


@pytest.mark.parametrize(
    "request_id", ["", " ", "a b", "x" * 65, "é", "a\nb", "a\n", "a\r\nSet-Cookie: a=b", "\x00", "<b>", '"']
)
def test_invalid_request_id_is_replaced(owner, request_id):
    response = owner.get(f"{STOCKS}/0", HTTP_X_REQUEST_ID=request_id)
    identifier = problem(response, 404)["request_id"]
    assert re.fullmatch(r"[0-9a-f-]{36}", identifier)


@pytest.mark.parametrize("path", [STOCKS, "/", "/ping", "/api/v1/nope", "/nope", "/docs", "/admin/", "/openapi.json"])
def test_every_response_has_its_own_request_id(owner, path):
    first, second = (owner.get(path)["X-Request-ID"] for _ in range(2))
    assert first
    assert first != second


# Internal details


def test_problem_reveals_no_internals(owner, make_stock):
    stock = make_stock(owner.user)
    body = json.dumps(problem(send(owner, "PATCH", f"{STOCKS}/{stock.pk}", '{"name": "\\ud800", "x": NaN}'), 400))
    assert not re.search(r"Traceback|SELECT|sqlite|psycopg|\.py|records|django", body, re.IGNORECASE)


def send_chunked(body, token):
    """Send a body without a length to the WSGI application; return the status and the JSON body."""
    environ = RequestFactory().post(STOCKS, HTTP_TRANSFER_ENCODING="chunked", HTTP_AUTHORIZATION=token).environ
    environ |= {"wsgi.input": BytesIO(body), "CONTENT_LENGTH": "", "CONTENT_TYPE": "application/json"}
    statuses = []
    content = b"".join(application(environ, lambda status, headers: statuses.append(int(status[:3]))))
    return statuses[0], json.loads(content)


@pytest.mark.django_db(transaction=True)  # because the application closes connections after each request
def test_chunked_body_is_read(owner):
    status, row = send_chunked(b'{"name": "AAPL", "price": 1, "quantity": 2}', owner._credentials["HTTP_AUTHORIZATION"])
    assert (status, row["name"]) == (201, "AAPL")


@pytest.mark.django_db(transaction=True)
def test_chunked_body_over_the_limit_is_refused(owner):
    assert send_chunked(b" " * 1_100_000, owner._credentials["HTTP_AUTHORIZATION"])[0] == 413


@pytest.mark.parametrize("path", [STOCKS, f"{STOCKS}/1", f"{STOCKS}/abc", f"{STOCKS}/reprice", USERS, f"{USERS}/me"])
def test_every_path_supports_options(superuser, path):
    assert superuser.options(path).status_code == 200


def send_in_charset(charset, body):
    """Send a body in this charset; return the status and the content type of the response."""
    content_type = f"application/json; charset={charset}"
    environ = RequestFactory().generic("POST", "/api/v1/auth/login", body).environ
    environ |= {"CONTENT_TYPE": content_type, "QUERY_STRING": "format=json"}
    response = {}
    application(environ, lambda status, headers, *rest: response.update(dict(headers), status=int(status.split()[0])))
    return response["status"], response["Content-Type"]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("charset", ["base64", "rot13", "undefined", "utf-16", "nonsense"])
def test_body_in_another_charset_is_refused(charset):
    assert send_in_charset(charset, '{"username": "x"}') == (415, "application/problem+json")


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("charset", ["base64", "rot13", "undefined", "utf-16", "nonsense"])
def test_charset_of_an_empty_body_is_ignored(charset):
    assert send_in_charset(charset, "") == (400, "application/problem+json")
