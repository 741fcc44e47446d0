import zlib

import pytest

from conftest import PASSWORD

STOCKS = "/api/v1/stocks"
GZIP = {"HTTP_ACCEPT_ENCODING": "gzip, deflate, br"}
DOCUMENTS = ["/openapi.json", "/redoc.js"]


def vary(answer) -> set[str]:
    return {name.strip().lower() for name in answer.headers.get("Vary", "").split(",")}


def decompressed(answer) -> bytes:
    assert answer["Content-Encoding"] == "gzip"
    return zlib.decompress(answer.content, 31)


@pytest.fixture
def stocks(owner, make_stock):
    return [make_stock(owner.user, name=f"S{number}") for number in range(20)]


@pytest.mark.parametrize("path", DOCUMENTS)
def test_document_is_compressed(anonymous, path):
    plain, compressed = anonymous.get(path), anonymous.get(path, **GZIP)
    assert decompressed(compressed) == plain.content
    assert len(compressed.content) < len(plain.content) / 3
    assert int(compressed["Content-Length"]) == len(compressed.content)
    assert "accept-encoding" in vary(plain) & vary(compressed)
    assert compressed["Content-Type"] == plain["Content-Type"]


@pytest.mark.parametrize("path", DOCUMENTS)
def test_document_is_compressed_once(anonymous, monkeypatch, path):
    anonymous.get(path, **GZIP)
    monkeypatch.setattr(zlib, "compress", None)
    assert anonymous.get(path, **GZIP).status_code == 200


@pytest.mark.parametrize("path", DOCUMENTS)
def test_document_is_compressed_for_signed_in_users(superuser, path):
    superuser.force_login(superuser.user)
    assert superuser.get(path, **GZIP)["Content-Encoding"] == "gzip"


def test_list_is_compressed(owner, stocks):
    plain, compressed = owner.get(STOCKS), owner.get(STOCKS, **GZIP)
    assert decompressed(compressed) == plain.content
    assert int(compressed["Content-Length"]) == len(compressed.content)
    assert "accept-encoding" in vary(plain) & vary(compressed)
    assert compressed["Cache-Control"] == "no-store"


def test_only_large_rows_are_compressed(owner, stocks):
    assert decompressed(owner.get(f"/api/v1/users/{owner.user.pk}", **GZIP))
    small = owner.get(f"{STOCKS}/{stocks[0].pk}", **GZIP)
    assert "Content-Encoding" not in small.headers


def test_tag_of_a_compressed_row_differs_from_that_of_a_plain_one(owner, stocks):
    path = f"/api/v1/users/{owner.user.pk}"
    compressed, plain = owner.get(path, **GZIP).headers["ETag"], owner.get(path).headers["ETag"]
    assert compressed == plain.removesuffix('"') + '-gzip"'
    for tag in (compressed, plain):
        answer = owner.get(path, HTTP_IF_NONE_MATCH=tag, **GZIP)
        assert (answer.status_code, answer.headers["ETag"]) == (304, tag)
    assert owner.patch(path, {"age": 30}, HTTP_IF_MATCH=compressed).status_code == 200


def test_head_has_the_headers_of_get(owner, stocks):
    got, head = owner.get(STOCKS, **GZIP), owner.head(STOCKS, **GZIP)
    for name in ("Content-Encoding", "Content-Length", "Vary", "Content-Type"):
        assert head[name] == got[name]
    assert head.content == b""


@pytest.mark.parametrize(
    ("header", "is_compressed"),
    [
        ("gzip", True), ("GZIP", True), ("*", True), ("br, gzip;q=0.1", True), ("gzip;q=1.0", True),
        ("gzip ; q=0.5", True), ("", False), ("identity", False), ("br", False), ("gzip;q=0", False),
        ("gzip;q=0.000", False), ("*;q=0", False), ("*, gzip;q=0", False), ("gzipped", False),
        ("deflate, *;q=0, gzip;q=1", True),
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/openapi.json", STOCKS])
def test_accept_encoding_is_respected(owner, stocks, path, header, is_compressed):
    answer = owner.get(path, HTTP_ACCEPT_ENCODING=header)
    assert answer.headers.get("Content-Encoding") == ("gzip" if is_compressed else None)


# Secrets


def test_response_to_a_session_cookie_is_not_compressed(owner, stocks):
    session = type(owner)()
    session.force_login(owner.user)
    for path in (STOCKS, f"{STOCKS}?format=api", "/admin/login/", "/docs", "/api/v1/users/me?format=api"):
        assert "Content-Encoding" not in session.get(path, **GZIP).headers, path


@pytest.mark.parametrize("path", ["/api/login", "/admin/login/"])
def test_page_with_a_csrf_token_is_not_compressed(anonymous, path):
    for _ in range(2):
        answer = anonymous.get(path, HTTP_ACCEPT="text/html", **GZIP)
        assert b"csrfmiddlewaretoken" in answer.content
        assert "Content-Encoding" not in answer.headers


@pytest.mark.parametrize("path", ["login", "refresh", "sessions"])
def test_response_with_tokens_is_not_compressed(anonymous, make_user, path):
    make_user(username="ada", password=PASSWORD)
    pair = anonymous.post("/api/v1/auth/login", {"username": "ada", "password": PASSWORD}, **GZIP)
    anonymous.credentials(HTTP_AUTHORIZATION=f"Bearer {pair.json()['access_token']}")
    for _ in range(10):
        anonymous.post("/api/v1/auth/login", {"username": "ada", "password": PASSWORD})
    answers = {
        "login": lambda: pair,
        "refresh": lambda: anonymous.post(
            "/api/v1/auth/refresh", {"refresh_token": pair.json()["refresh_token"]}, **GZIP
        ),
        "sessions": lambda: anonymous.get("/api/v1/auth/sessions", **GZIP),
    }
    answer = answers[path]()
    assert (answer.status_code, "Content-Encoding" in answer.headers) == (200, False)


@pytest.mark.parametrize("method", ["post", "patch", "delete"])
def test_response_to_a_write_is_not_compressed(owner, stocks, method):
    body = {"name": "NEW", "price": 1, "quantity": 1}
    path = STOCKS if method == "post" else f"{STOCKS}/{stocks[0].pk}"
    answer = getattr(owner, method)(path, body, **GZIP)
    assert answer.status_code in {200, 201, 204}
    assert "Content-Encoding" not in answer.headers


def test_problem_is_not_compressed(owner):
    query = "&".join(f"a{number}=1" for number in range(90))
    answer = owner.get(f"{STOCKS}?{query}", **GZIP)
    assert len(answer.content) > 2000
    assert answer.json()["status"] == 400
