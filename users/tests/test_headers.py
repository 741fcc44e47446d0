import pytest

from conftest import PASSWORD

LOGIN = {"username": "ada", "password": PASSWORD}
BROWSER = {"Accept": "text/html"}


@pytest.fixture
def ada(make_user):
    return make_user(username="ada", password=PASSWORD)


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1", "/api/v1/users/me", "/api/v1/stocks", "/api/v1/stocks/0", "/api/v1/auth/sessions", "/api/v1/nothing",
        "/api/login", "/admin/", "/admin/login/",
    ],
)  # fmt: skip
@pytest.mark.parametrize("accept", ["application/json", "text/html"])
def test_private_response_is_not_cached(superuser, path, accept):
    superuser.force_login(superuser.user)
    accept = "text/html" if path.startswith(("/admin", "/api/login")) else accept
    assert "no-store" in superuser.get(path, headers={"Accept": accept})["Cache-Control"]


def test_token_response_is_not_cached(anonymous, ada):
    assert anonymous.post("/api/v1/auth/login", LOGIN)["Cache-Control"] == "no-store"


@pytest.mark.parametrize("path", ["/", "/docs", "/redoc", "/api/login", "/admin/login/", "/account/forgot-password"])
def test_page_runs_only_own_scripts_and_refuses_framing(anonymous, path):
    answer = anonymous.get(path, headers=BROWSER)
    assert answer.status_code == 200
    policy = dict(part.strip().split(" ", 1) for part in answer["Content-Security-Policy"].split(";"))
    assert (policy["script-src"], policy["frame-ancestors"]) == ("'self'", "'none'")
    assert answer["X-Frame-Options"] == "DENY"
    assert answer["X-Content-Type-Options"] == "nosniff"
    assert answer["Referrer-Policy"] == "same-origin"


def test_session_cookie_is_httponly_and_samesite(anonymous, ada):
    form = f"username=ada&password={PASSWORD}"
    anonymous.generic("POST", "/api/login", form, content_type="application/x-www-form-urlencoded")
    cookie = anonymous.cookies["sessionid"]
    assert (cookie["httponly"], cookie["samesite"]) == (True, "Lax")


@pytest.mark.parametrize("origin", ["https://app.example.com", "https://evil.example.com", "null"])
def test_cors_allows_only_listed_origins(anonymous, settings, origin):
    settings.CORS_ALLOWED_ORIGINS = ["https://app.example.com"]
    answer = anonymous.options(
        "/api/v1/stocks",
        headers={"Origin": origin, "Access-Control-Request-Method": "POST",
                 "Access-Control-Request-Headers": "authorization"},
    )  # fmt: skip
    allowed = answer.headers.get("Access-Control-Allow-Origin")
    assert allowed == (origin if origin == "https://app.example.com" else None)
    assert "Access-Control-Allow-Credentials" not in answer.headers


ORIGIN = "https://app.example.com"
CLIENT_HEADERS = [
    "X-Request-ID", "traceparent", "tracestate", "baggage", "sentry-trace", "b3", "x-b3-traceid", "x-b3-spanid",
    "x-b3-parentspanid", "x-b3-sampled", "x-b3-flags", "x-datadog-trace-id", "x-datadog-parent-id",
    "x-datadog-sampling-priority", "x-datadog-origin", "uber-trace-id", "x-cloud-trace-context", "x-amzn-trace-id",
    "x-correlation-id", "Idempotency-Key", "If-Match", "If-None-Match", "If-Modified-Since", "Prefer", "Range",
    "Cache-Control", "Pragma", "x-csrftoken", "x-requested-with", "authorization", "content-type", "accept",
]  # fmt: skip


@pytest.fixture
def cors_settings(settings):
    settings.CORS_ALLOWED_ORIGINS = [ORIGIN]


def preflight(client, path, names):
    request_headers = {"Access-Control-Request-Method": "PATCH", "Access-Control-Request-Headers": names}
    return client.options(path, headers={"Origin": ORIGIN} | request_headers)


@pytest.mark.parametrize("name", CLIENT_HEADERS)
@pytest.mark.parametrize("path", ["/api/v1/stocks", "/api/v1/stocks/1", "/api/v1/auth/login", "/openapi.json"])
def test_preflight_allows_common_client_headers(anonymous, cors_settings, path, name):
    answer = preflight(anonymous, path, name.lower())
    assert (answer.status_code, answer["Access-Control-Allow-Origin"]) == (200, ORIGIN)
    assert name.lower() in answer["Access-Control-Allow-Headers"].split(", ")
    assert "PATCH" in answer["Access-Control-Allow-Methods"].split(", ")
    assert int(answer["Access-Control-Max-Age"]) >= 600


@pytest.mark.parametrize("name", ["cookie", "x-forwarded-for", "x-forwarded-proto", "host"])
def test_preflight_refuses_proxy_headers(anonymous, cors_settings, name):
    assert name not in preflight(anonymous, "/api/v1/stocks", name)["Access-Control-Allow-Headers"].split(", ")


@pytest.mark.parametrize(
    ("path", "status"),
    [("/api/v1/users/me", 200), ("/api/v1/stocks/0", 404), ("/api/v1/nope", 404), (f"/api/v1?{'a' * 9000}", 414)],
)
def test_response_headers_are_exposed_to_other_origins(owner, cors_settings, path, status):
    answer = owner.get(path, headers={"Origin": ORIGIN})
    assert (answer.status_code, answer["Access-Control-Allow-Origin"]) == (status, ORIGIN)
    exposed = set(answer["Access-Control-Expose-Headers"].split(", "))
    assert {"ETag", "Location", "RateLimit", "RateLimit-Policy", "Retry-After", "X-Request-ID"} <= exposed
    assert {"Content-Disposition", "Idempotent-Replayed", "X-Dry-Run"} <= exposed
