"""The work of a request grows at most linearly with its size, up to the limits."""

import gc
import time
from cProfile import Profile
from functools import partial

import pytest
from django.http.cookie import parse_cookie
from django.test import RequestFactory

from config.wsgi import UTF8Request, application
from records.http.limits import parse_cookies

STOCKS, ME, REPRICE = "/api/v1/stocks", "/api/v1/users/me", "/api/v1/stocks/reprice"
LOGIN, REGISTER, VERIFY = "/api/v1/auth/login", "/api/v1/auth/register", "/api/v1/auth/verify-email"
FORM, MULTIPART = "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"
KIBIBYTE = 1024
COMBINING = "\u0301\u0316"
#: The largest of three tested sizes, in bytes: 69,000 bytes of names are just below the limit of 10,000 keys.
NAMES, BODY, URL, HEADER = 69_000, 300 * KIBIBYTE, 7_500, 30 * KIBIBYTE


def form_part(name: str, content: str = "1") -> str:
    return f"--x\r\nContent-Disposition: form-data; name={name}\r\n\r\n{content}\r\n"


#: Name → method, path, largest size, start of the body, repeated text (with @ for a number), end.
BODIES = {
    "duplicate key": ("POST", LOGIN, NAMES, "{", '"k@":1,', '"z":1,"z":2}'),
    "unknown keys": ("POST", STOCKS, NAMES, "{", '"quantit@":1,', '"a":1}'),
    "unknown keys of a stranger": ("POST", REGISTER, NAMES, "{", '"usernam@":1,', '"a":1}'),
    "bad prices": ("POST", REPRICE, 1000 * len('"S@":0,'), '{"prices":{', '"S@":0,', '"A":0}}'),
    "too many prices": ("POST", REPRICE, NAMES, '{"prices":{', '"S@":0,', '"A":0}}'),
    "long symbol": ("POST", REPRICE, BODY, '{"prices":{"', "S", '":0}}'),
    "items": ("POST", STOCKS, BODY, "[", "0,", "0]"),
    "objects": ("POST", STOCKS, BODY, "[", "{},", "0]"),
    "rows": ("POST", STOCKS, 990 * len('{"pric@":1},'), "[", '{"pric@":1},', '{"a":1}]'),
    "rows of an owner": (
        "POST",
        STOCKS,
        990 * len('{"name":"S@","price":1,"quantity":1},'),
        "[",
        '{"name":"S@","price":1,"quantity":1},',
        '{"name":"S","price":1,"quantity":1}]',
    ),
    "ids": ("PATCH", STOCKS, 990 * len('{"id":@},'), "[", '{"id":@},', '{"id":"x"}]'),
    "equal ids": ("DELETE", STOCKS, 990 * len("7,"), "[", "7,", "8]"),
    "depth": ("POST", STOCKS, BODY, "", "[", ""),
    "depth of objects": ("POST", STOCKS, BODY, "", '{"a":', ""),
    "ends": ("POST", STOCKS, BODY, "", "]", ""),
    "pairs": ("POST", STOCKS, BODY, "", "[]", ""),
    "blanks": ("POST", STOCKS, BODY, "[ [ [", " ", "]"),
    "escapes": ("POST", STOCKS, BODY, '{"name":"', '\\"', '"}'),
    "escapes without an end": ("POST", STOCKS, BODY, '{"name":"', '\\"', "\\"),
    "digits": ("POST", STOCKS, BODY, '{"quantity":', "9", "}"),
    "digits of a price": ("POST", STOCKS, BODY, '{"price":', "9", "}"),
    "digits of a truth value": ("POST", STOCKS, BODY, '{"is_active":', "9", "}"),
    "digits of a text": ("POST", STOCKS, BODY, '{"name":', "9", "}"),
    "digits of a choice": ("PATCH", ME, BODY, '{"gender":', "9", "}"),
    "decimals": ("POST", STOCKS, BODY, '{"price":0.', "9", "}"),
    "decimals of an integer": ("POST", STOCKS, BODY, '{"quantity":1.', "0", "1}"),
    "exponent": ("POST", STOCKS, BODY, '{"price":1e', "9", "}"),
    "exponent of an integer": ("POST", STOCKS, BODY, '{"quantity":1e', "9", "}"),
    "choice": ("PATCH", ME, BODY, '{"gender":"', "M", '"}'),
    "local part": ("PATCH", ME, BODY, '{"email":"', "a.", '@x.org"}'),
    "domain": ("PATCH", ME, BODY, '{"email":"a@', "a.", '"}'),
    "name": ("PATCH", ME, BODY, '{"name":"A', COMBINING, '"}'),
    "symbol": ("POST", STOCKS, BODY, '{"name":"A', COMBINING, '"}'),
    "phone number": ("PATCH", ME, BODY, '{"phone_number":"', "1", '"}'),
    "password": ("POST", LOGIN, BODY, '{"username":"a","password":"', COMBINING, '"}'),
    "new password": ("POST", REGISTER, BODY, '{"username":"abc","email":"a@x.org","password":"', COMBINING, '"}'),
    "token": ("POST", VERIFY, BODY, '{"token":"', "a:", '"}'),
    "form": ("POST", LOGIN, BODY, "", "a@=1&", ""),
    "form's password": ("POST", LOGIN, BODY, "username=a&password=", "%41", ""),
    "parts": ("POST", LOGIN, BODY, "", form_part("a@"), ""),
    "files": ("POST", LOGIN, BODY, "", form_part("a@; filename=b"), ""),
    "line breaks": ("POST", LOGIN, BODY, form_part("username"), "\r\n--", ""),
    "no boundary": ("POST", LOGIN, BODY, "", "-", ""),
    "page's password": ("POST", "/admin/login/", BODY, "username=a&password=", "%CC%81%CC%96", ""),
    "page's username": ("POST", "/admin/login/", BODY, "password=a&username=", "%CC%81%CC%96", ""),
    "page's fields": ("POST", "/admin/login/", BODY, "", "a@=1&", ""),
}


#: Name → path, with # for the repeated text.
PATHS = {
    "id": (f"{STOCKS}/#", "9"),
    "path": ("/api/v1/#", "a/"),
    "slashes": ("/#", "/"),
    "parameters": (f"{STOCKS}?#", "price__g=1&"),
    "long name": (f"{STOCKS}?#=1", "a"),
    "values": (f"{STOCKS}?name__in=#A", "A,"),
    "number": (f"{STOCKS}?price=#", "9"),
    "exponent": (f"{STOCKS}?price=1e#", "9"),
    "integer": (f"{STOCKS}?quantity=#", "9"),
    "page": (f"{STOCKS}?page=#", "9"),
    "instant": (f"{STOCKS}?created_at__gte=#", "2024-01-01T"),
    "sort keys": (f"{STOCKS}?sort_by=#", "price,"),
    "unknown sort keys": (f"{STOCKS}?sort_by=#", "pric,"),
    "sort key": (f"{STOCKS}?sort_by=#", "p"),
    "fields": (f"{STOCKS}?fields=#", "price,"),
    "unknown fields": (f"{STOCKS}?fields=#", "pric,"),
    "search": (f"{STOCKS}?search=#", "a"),
    "wildcards": (f"{STOCKS}?search=#", "%25a"),
    "combining search": (f"{STOCKS}?search=#", "%CC%81%CC%96"),
    "cursor": (f"{STOCKS}?cursor=#", "a:"),
    "page of a browser": (f"{STOCKS}?format=api&search=#", "("),
    "words in the admin": ("/admin/stocks/stock/?q=#", "a+"),
    "filters in the admin": ("/admin/stocks/stock/?#", "name=a&"),
    "next": ("/admin/login/?next=#", "/a"),
    "state": ("/api/v1/auth/oauth/example/callback?state=#", "a"),
}

#: Name → header, start of its value, repeated text, end.
HEADERS = {
    "token": ("Authorization", "Bearer ", "a", ""),
    "dots": ("Authorization", "Bearer ", ".", ""),
    "depth of a token": ("Authorization", "Bearer ", "W1tb", ".e30.x"),  # [[[
    "media types": ("Accept", "", "a/b,", ""),
    "quoted parameter": ("Accept", 'a/b;x="', ";", ""),
    "parameters": ("Accept", "a/b;", "a*0=1;", ""),
    "hops": ("X-Forwarded-For", "", "192.0.2.1,", "192.0.2.2"),
    "hop": ("X-Forwarded-For", "[", "]:1", ""),
    "cookies": ("Cookie", "", "a=1;", ""),
    "backslashes": ("Cookie", 'sessionid="', "\\\\", '"'),
    "quotes": ("Cookie", 'sessionid="', '\\"', '"'),
    "session": ("Cookie", "sessionid=", "a:", ""),
    "request id": ("X-Request-ID", "", "a", ""),
    "encodings": ("Accept-Encoding", "", "gzip;q=0,", ""),
    "origin": ("Origin", "http://", "a.", ""),
    "tags": ("If-None-Match", "", '"a",', ""),
    "ranges": ("Range", "bytes=", "0-1,", ""),
    "host": ("Host", "", "a.", ""),
    "port": ("Host", "a:", "1", ""),
    "user agent": ("User-Agent", "", "(", ""),
}


def repeat_to_size(text: str, size: int) -> str:
    """Repeat the text up to this size, with the index in place of each @."""
    count = size // len(text)
    return "".join(text.replace("@", str(number)) for number in range(count)) if "@" in text else text * count


def measure(call) -> tuple[int, float]:
    """Return the number of function calls, and the CPU seconds of the faster of two runs."""
    call()  # fills caches
    seconds = []
    for _ in range(2):
        started = time.thread_time()
        call()
        seconds.append(time.thread_time() - started)
    with Profile() as profile:
        call()
    return sum(entry.callcount for entry in profile.getstats()), min(seconds)


def assert_linear(call_for_size, largest: int) -> None:
    """Assert that four times the size is about four times the work; quadratic work would be sixteen times as much."""
    gc.disable()
    try:
        work = [measure(call_for_size(largest // part)) for part in (4, 2, 1)]
    finally:
        gc.enable()
    (calls, seconds), (double_calls, _), (quadruple_calls, quadruple_seconds) = work
    assert double_calls <= 3 * calls
    assert quadruple_calls <= 6 * calls
    assert quadruple_seconds <= 7 * max(seconds, 0.01)


@pytest.fixture
def send(superuser, make_stock, settings):
    """Return a function that sends a request and asserts that it does not crash."""
    settings.TRUSTED_PROXIES = 1
    for _ in range(3):
        make_stock(superuser.user)
    superuser.force_login(superuser.user)

    def request(method, path, body="", content_type="application/json", **headers):
        answer = superuser.generic(method, path, body, content_type=content_type, **headers)
        assert answer.status_code < 500
        if answer.streaming:
            answer.close()

    return request


@pytest.mark.parametrize("name", BODIES)
def test_work_is_linear_in_the_body(send, name):
    method, path, largest, start, text, end = BODIES[name]
    kind = MULTIPART if name in {"parts", "files", "line breaks", "no boundary"} else FORM
    kind = "application/json" if start.startswith(("{", "[")) or text[0] in "[]{" else kind

    assert_linear(lambda size: partial(send, method, path, start + repeat_to_size(text, size) + end, kind), largest)


@pytest.mark.parametrize("name", PATHS)
def test_work_is_linear_in_the_url(send, name):
    path, text = PATHS[name]
    assert_linear(lambda size: partial(send, "GET", path.replace("#", repeat_to_size(text, size))), URL)


@pytest.mark.parametrize("name", HEADERS)
@pytest.mark.parametrize("path", [STOCKS, "/static/users/account.js"])
def test_work_is_linear_in_a_header(send, superuser, name, path):
    header, start, text, end = HEADERS[name]
    if header == "Authorization":
        superuser.credentials()
    variable = f"HTTP_{header.upper().replace('-', '_')}"

    assert_linear(
        lambda size: partial(send, "GET", path, **{variable: start + repeat_to_size(text, size) + end}), HEADER
    )


@pytest.mark.parametrize(
    ("start", "text"), [('text/plain; a="', ";"), ('text/plain; a="', '\\";'), ("text/plain; ", "a*0=1;")]
)
def test_work_is_linear_in_the_content_type(start, text):
    environ = RequestFactory().get("/").environ
    assert_linear(
        lambda size: partial(UTF8Request, environ | {"CONTENT_TYPE": start + repeat_to_size(text, size)}), 400_000
    )


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("kind", [f"application/json; a={'b' * 300}", "application/json; a*=nonsense'en'b", "a; b*x=1"])
def test_malformed_content_type_is_unsupported(kind):
    environ = RequestFactory().post(LOGIN, "{}", content_type="application/json").environ | {"CONTENT_TYPE": kind}
    statuses = []
    application(environ, lambda status, headers: statuses.append(int(status[:3])))
    assert statuses == [415]


@pytest.mark.parametrize(
    "header",
    ["", "a=b", "a=b; c=d;e", "a=", "=b", " a = b ", 'a="b"', 'a="b\\"c"', 'a="\\054\\073"', 'a="\\\\\\054x"', 'a="\\',
     'a="\\"', 'a="\\0"', 'a="\\400"', "a=\\054", 'a="\\\xe4"', ";;", "a=b=c", 'a=";"'],
)  # fmt: skip
def test_cookies_are_parsed_like_django(header):
    assert parse_cookies(header) == parse_cookie(header)
