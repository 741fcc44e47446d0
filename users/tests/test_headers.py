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
def test_private_answer_is_not_stored(superuser, path, accept):
    superuser.force_login(superuser.user)
    accept = "text/html" if path.startswith(("/admin", "/api/login")) else accept
    assert "no-store" in superuser.get(path, headers={"Accept": accept})["Cache-Control"]


def test_tokens_are_not_stored(anonymous, ada):
    assert anonymous.post("/api/v1/auth/login", LOGIN)["Cache-Control"] == "no-store"


@pytest.mark.parametrize("path", ["/", "/docs", "/redoc", "/api/login", "/admin/login/", "/account/forgot-password"])
def test_page_runs_no_script_but_ours_and_stands_in_no_frame(anonymous, path):
    answer = anonymous.get(path, headers=BROWSER)
    assert answer.status_code == 200
    policy = dict(part.strip().split(" ", 1) for part in answer["Content-Security-Policy"].split(";"))
    assert (policy["script-src"], policy["frame-ancestors"]) == ("'self'", "'none'")
    assert answer["X-Frame-Options"] == "DENY"
    assert answer["X-Content-Type-Options"] == "nosniff"
    assert answer["Referrer-Policy"] == "same-origin"


def test_session_cookie_is_kept_from_scripts_and_other_sites(anonymous, ada):
    form = f"username=ada&password={PASSWORD}"
    anonymous.generic("POST", "/api/login", form, content_type="application/x-www-form-urlencoded")
    cookie = anonymous.cookies["sessionid"]
    assert (cookie["httponly"], cookie["samesite"]) == (True, "Lax")


@pytest.mark.parametrize("origin", ["https://app.example.com", "https://evil.example.com", "null"])
def test_other_origins_are_allowed_by_list_only(anonymous, settings, origin):
    settings.CORS_ALLOWED_ORIGINS = ["https://app.example.com"]
    answer = anonymous.options(
        "/api/v1/stocks",
        headers={"Origin": origin, "Access-Control-Request-Method": "POST",
                 "Access-Control-Request-Headers": "authorization"},
    )  # fmt: skip
    allowed = answer.headers.get("Access-Control-Allow-Origin")
    assert allowed == (origin if origin == "https://app.example.com" else None)
    assert "Access-Control-Allow-Credentials" not in answer.headers
