import os
import re
import runpy
from unittest.mock import patch

import pytest
from django.conf import settings as django_settings
from django.test import Client
from drf_spectacular.generators import SchemaGenerator

from users.models import User

PASSWORD = "analytical-engine-1843"
SETTING_NAMES = (
    "SESSION_COOKIE_NAME", "SESSION_COOKIE_SECURE", "CSRF_COOKIE_NAME", "CSRF_COOKIE_SECURE", "SECURE_SSL_REDIRECT",
)  # fmt: skip


@pytest.fixture(params=["false", "true"])
def https(request, settings):
    """Load the cookie settings with and without HTTPS=true; return whether HTTPS is on."""
    with (
        patch.dict(os.environ, {"HTTPS": request.param}, clear=True),
        patch("config.env_file.load_env_file", lambda path: {}),
    ):
        loaded = runpy.run_path(str(django_settings.BASE_DIR / "config" / "settings.py"))
    for name in SETTING_NAMES:
        setattr(settings, name, loaded[name])
    return request.param == "true"


@pytest.fixture
def browser(https, db):
    User.objects.create_superuser("ada", password=PASSWORD)
    return Client(enforce_csrf_checks=True)


def send(browser, https, method, path, data=None, **headers):
    """Send a request with a same-origin Referer; return the response and the cookies that it sets."""
    headers = {"Accept": "text/html", "Referer": f"http{'s' if https else ''}://testserver/"} | headers
    answer = getattr(browser, method)(path, data, secure=https, headers=headers)
    return answer, dict(answer.cookies)


def form_token(answer):
    return re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', answer.content.decode())[1]


def test_cookies_have_the_host_prefix_under_https(browser, https):
    all_cookies = {}
    page, cookies = send(browser, https, "get", "/admin/login/")
    all_cookies |= cookies
    login = {"username": "ada", "password": PASSWORD, "csrfmiddlewaretoken": form_token(page)}
    answer, cookies = send(browser, https, "post", "/admin/login/?next=/admin/", login)
    assert answer.status_code == 302
    all_cookies |= cookies
    page, _ = send(browser, https, "get", "/admin/users/user/add/")
    fields = {"username": "grace", "email": "grace@example.com", "csrfmiddlewaretoken": form_token(page)}
    _, cookies = send(browser, https, "post", "/admin/users/user/add/", fields | {"usable_password": "false"})
    all_cookies |= cookies
    prefix = "__Host-" if https else ""
    assert set(all_cookies) == {f"{prefix}{name}" for name in ("sessionid", "csrftoken", "messages")}
    for cookie in all_cookies.values():
        assert (bool(cookie["secure"]), cookie["path"], cookie["domain"]) == (https, "/", "")


def test_browsable_api_works_with_these_cookies(browser, https):
    page, _ = send(browser, https, "get", "/api/login")
    login = {"username": "ada", "password": PASSWORD, "csrfmiddlewaretoken": form_token(page)}
    assert send(browser, https, "post", "/api/login", login)[0].status_code == 302
    page, _ = send(browser, https, "get", "/api/v1/stocks")
    stock = {"name": "AAPL", "price": "1", "quantity": "1", "csrfmiddlewaretoken": form_token(page)}
    assert send(browser, https, "post", "/api/v1/stocks", stock)[0].status_code == 201
    # The page's script and Swagger UI send the token as a header.
    for path, pattern in (("/api/v1/stocks", r'"csrfToken": "(\w+)"'), ("/docs?script", r'X-CSRFTOKEN"\] = "(\w+)"')):
        token = re.search(pattern, send(browser, https, "get", path)[0].content.decode(), re.IGNORECASE)[1]
        headers = {"X-CSRFToken": token, "Referer": "https://testserver/"}
        stock = {"name": "AAPL", "price": 1, "quantity": 1}
        answer = browser.post("/api/v1/stocks", stock, "application/json", secure=https, headers=headers)
        assert answer.status_code == 201
    answer, cookies = send(browser, https, "post", "/api/logout", {"csrfmiddlewaretoken": token})
    [cookie] = [cookie for name, cookie in cookies.items() if name.endswith("sessionid")]
    assert (answer.status_code, cookie.value, bool(cookie["secure"])) == (302, "", https)


def test_openapi_names_the_session_cookie(https):
    schemes = SchemaGenerator().get_schema(public=True)["components"]["securitySchemes"]
    assert schemes["browserSession"]["name"] == ("__Host-sessionid" if https else "sessionid")


def test_cookie_without_the_host_prefix_is_ignored_under_https(browser, https):
    page, _ = send(browser, https, "get", "/api/login")
    login = {"username": "ada", "password": PASSWORD, "csrfmiddlewaretoken": form_token(page)}
    _, cookies = send(browser, https, "post", "/api/login", login)
    [value] = [cookie.value for name, cookie in cookies.items() if name.endswith("sessionid")]
    stranger = Client()
    stranger.cookies["sessionid"] = value
    assert stranger.get("/api/v1/users/me", secure=https).status_code == (401 if https else 200)
