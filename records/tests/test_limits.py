"""Input above the size limits is refused early."""

import json

import pytest

STOCKS, ME, LOGIN = "/api/v1/stocks", "/api/v1/users/me", "/api/v1/auth/login"
FORM = "application/x-www-form-urlencoded"
PATHS = ["/", "/ping", STOCKS, f"{STOCKS}/1", LOGIN, "/api/v1/nope", "/api/login", "/nope", "/docs", "/admin/"]
PATHS += ["/openapi.json", "/static/users/account.js", "/account/verify-email", "/health/live"]
paths = pytest.mark.parametrize("path", PATHS)


def problem(answer, status):
    assert (answer.status_code, answer["Content-Type"]) == (status, "application/problem+json"), answer
    body = answer.json()
    assert (body["status"], body["request_id"]) == (status, answer["X-Request-ID"])
    return body


def url_of_length(path: str, length: int) -> str:
    return f"{path}?".ljust(length, "a")


def ascii_start(value) -> str:
    return ascii(value)[:24]


def send(client, path, body, content_type="application/json", method="POST"):
    return client.generic(method, path, body, content_type=content_type)


# URLs


@paths
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "DELETE", "OPTIONS"])
def test_url_over_8_kib_is_refused(anonymous, path, method):
    answer = anonymous.generic(method, url_of_length(path, 8193))
    assert (answer.status_code, answer["Content-Type"]) == (414, "application/problem+json")


def test_url_of_8_kib_is_read(owner):
    assert problem(owner.get(url_of_length(STOCKS, 8192)), 400)["errors"]
    problem(owner.get(url_of_length(STOCKS, 8193)), 414)


def test_url_length_counts_the_encoded_path(anonymous):
    problem(anonymous.get("/api/v1/" + "%C3%A4" * 1364), 404)
    problem(anonymous.get("/api/v1/" + "%C3%A4" * 1365), 414)


def test_browser_gets_a_page_for_a_long_url(anonymous):
    answer = anonymous.get(url_of_length("/docs", 9000), headers={"Accept": "text/html"})
    assert (answer.status_code, answer["Content-Type"]) == (414, "text/html; charset=utf-8")


def test_100_parameters_are_accepted(owner):
    query = "&".join(f"k{number}=1" for number in range(100))
    assert len(problem(owner.get(f"{STOCKS}?{query}"), 400)["errors"]) == 100


@paths
def test_more_than_100_parameters_are_refused(anonymous, path):
    problem(anonymous.get(f"{path}?{'a=1&' * 100}"), 400)


# Headers


@paths
@pytest.mark.parametrize("header", ["AUTHORIZATION", "COOKIE", "ACCEPT", "X_FORWARDED_FOR", "X_REQUEST_ID", "X_ANY"])
def test_headers_over_32_kib_are_refused(anonymous, path, header):
    problem(anonymous.get(path, **{f"HTTP_{header}": "a" * 32_768}), 431)


def test_header_sizes_are_summed(anonymous):
    problem(anonymous.get(STOCKS, **{f"HTTP_X_{number}": "a" * 1000 for number in range(40)}), 431)


def test_long_header_below_the_limit_is_accepted(owner):
    assert owner.get(STOCKS, HTTP_X_ANY="a" * 30_000).status_code == 200


# Methods


@paths
@pytest.mark.parametrize("slash", ["", "/"])
def test_trace_is_not_allowed_anywhere(anonymous, superuser, path, slash):
    for client in (anonymous, superuser):
        answer = client.generic("TRACE", path.rstrip("/") + slash or "/")
        assert "GET" in answer["Allow"]
        problem(answer, 405)


# Bodies


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ([0] * 10_000, 400),
        ([[]] * 10_000, 400),
        ({f"k{number}": 1 for number in range(10_000)}, 400),
    ],
    ids=["items", "lists", "keys"],
)
def test_10_000_keys_and_items_are_accepted(owner, body, status):
    detail = problem(send(owner, STOCKS, json.dumps(body)), status)["detail"]
    assert "10,000 keys and items" not in detail


@pytest.mark.parametrize(
    "body",
    [
        [0] * 10_001,
        [[]] * 10_001,
        [[0]] * 5_001,
        [{"a": 0}] * 5_001,
        {"a": [0] * 10_000},
        {"a": {f"k{number}": 1 for number in range(10_000)}},
        {f"k{number}": [1] for number in range(5_001)},
        {f'\\",{number}': '"[{' for number in range(10_001)},
    ],
    ids=["items", "lists", "items of lists", "keys of items", "items of a key", "keys of a key", "both", "quoted"],
)
@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("path", [LOGIN, "/api/v1/auth/register", STOCKS, f"{STOCKS}/reprice"])
def test_more_than_10_000_keys_and_items_are_refused(staff, path, body, indent):
    assert "10,000 keys and items" in problem(send(staff, path, json.dumps(body, indent=indent)), 400)["detail"]


@pytest.mark.parametrize("text", ["," * 20_000, "[{" * 10_000, '\\"' * 20_000, "\\\\" * 20_000, '","' * 9_000])
def test_punctuation_in_a_string_is_not_counted(owner, text):
    text = text if "\\" in text else json.dumps(text)[1:-1]
    assert list(problem(send(owner, ME, f'{{"bio": "{text}"}}', method="PATCH"), 400)["errors"]) == ["bio"]


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}"), ('[{"a":', "}]")])
def test_nesting_depth_is_limited(owner, opening, closing):
    for levels, is_refused in ((50, False), (100, opening == '[{"a":'), (101, True)):
        body = opening * levels + "0" + closing * levels
        assert ("nested too deep" in problem(send(owner, STOCKS, body), 400)["detail"]) is is_refused


@pytest.mark.parametrize("position", [0, 4_999, 9_998])
def test_duplicate_key_among_many_is_refused(anonymous, position):
    keys = [*(f"k{number}" for number in range(9_999)), f"k{position}"]
    body = "{" + ",".join(f'"{key}":1' for key in keys) + "}"
    assert f"'k{position}' stands twice" in problem(send(anonymous, LOGIN, body), 400)["detail"]


@pytest.mark.parametrize("path", [path for path in PATHS if not path.startswith(("/api/v1", "/static"))])
@pytest.mark.parametrize("kind", [FORM, "multipart/form-data; boundary=x", "application/json"])
def test_body_over_a_mebibyte_is_too_large_outside_the_api(anonymous, path, kind):
    problem(send(anonymous, path, b"a" * (1024 * 1024 + 1), kind), 413)


def test_form_with_too_many_fields_is_refused(anonymous):
    assert "too many fields" in problem(send(anonymous, LOGIN, "a=1&" * 20_000, FORM), 400)["detail"]


# Responses


def test_only_the_first_100_unknown_fields_are_named(owner):
    body = problem(send(owner, STOCKS, json.dumps({f"k{number}": 1 for number in range(9_000)})), 400)
    assert len(body["errors"]) == 100
    assert "9,000 fields are unknown or read-only" in body["detail"]


def test_only_the_first_100_invalid_values_are_named(staff):
    prices = {f"S{number}": 0 for number in range(1000)}
    answer = send(staff, f"{STOCKS}/reprice", json.dumps({"prices": prices}))
    body = problem(answer, 400)
    assert (len(body["errors"]), next(iter(body["errors"]))) == (100, "prices.S0")
    assert "1,000 fields are at fault" in body["detail"]
    assert "900 more errors are not shown." in body["detail"]
    assert len(answer.content) < 20_000


def test_too_many_symbols_are_refused(staff):
    prices = {f"S{number}": 0 for number in range(1001)}
    errors = problem(send(staff, f"{STOCKS}/reprice", json.dumps({"prices": prices})), 400)["errors"]
    assert errors == {"prices": ["Ensure there are no more than 1,000 entries."]}


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PATCH", ME, '{"gender": "#"}'),
        ("PATCH", ME, '{"#": 1}'),
        ("PATCH", ME, '{"#": 1, "#": 1}'),
        ("PATCH", ME, '{"age": "#"}'),
        ("POST", f"{STOCKS}/reprice", '{"prices": {"#": 0}}'),
        ("POST", f"{STOCKS}/reprice", '{"prices": {"#": 1}}'),
        ("POST", STOCKS, '{"name": "A", "price": 1, "quantity": "#"}'),
    ],
)
@pytest.mark.parametrize(
    "text", ["a" * 500_000, "\\u0000" * 80_000, "\\ud800" * 80_000, "ä" * 200_000], ids=ascii_start
)
def test_error_does_not_repeat_long_input(staff, method, path, body, text):
    answer = send(staff, path, body.replace("#", text), method=method)
    problem(answer, 400)
    assert len(answer.content) < 10_000


def test_logged_path_is_truncated(anonymous, caplog):
    anonymous.get("/" + "a" * 50_000)
    assert max(len(record.getMessage()) for record in caplog.records) < 2_000


def test_admin_search_terms_are_limited(superuser):
    superuser.force_login(superuser.user)
    for path in ("stocks/stock/", "users/user/"):
        assert superuser.get(f"/admin/{path}?q={'a+' * 20}").status_code == 200
        assert superuser.get(f"/admin/{path}?q={'a+' * 21}").status_code == 400


@pytest.mark.parametrize("length", ["9" * 5000, "-1", "x"], ids=ascii_start)
def test_invalid_content_length_does_not_crash_outside_the_api(anonymous, length):
    assert anonymous.post("/admin/login/", CONTENT_LENGTH=length).status_code < 500
