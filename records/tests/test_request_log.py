"""The request log contains the user id and costs no query."""

import json
import logging

import pytest
from django.conf import settings
from django.db import connection
from django.test import Client as Browser
from django.test.utils import CaptureQueriesContext

from conftest import PASSWORD
from records.http.logging import JSONFormatter, RequestContextFilter

ME = "/api/v1/users/me"
TEXT = logging.Formatter(settings.LOGGING["formatters"]["text"]["format"], style="{")


@pytest.fixture
def lines():
    """Return a pair for each logged request: the text line and the JSON object."""

    class Handler(logging.Handler):
        lines: list = []

        def emit(self, record):
            self.lines.append((TEXT.format(record), json.loads(JSONFormatter().format(record))))

    handler = Handler()
    handler.lines = []
    handler.addFilter(RequestContextFilter())
    logger = logging.getLogger("records.requests")
    logger.addHandler(handler)
    yield handler.lines
    logger.removeHandler(handler)


def test_line_contains_the_user_of_an_access_token(owner, lines):
    owner.get(ME)
    [(text, entry)] = lines
    assert text.endswith(f" user={owner.user.pk}")
    assert entry["user_id"] == owner.user.pk


def test_line_contains_the_user_of_a_browser_session(make_user, lines):
    browser, user = Browser(), make_user(is_staff=True)
    browser.force_login(user)
    for path in (ME, "/admin/"):
        browser.get(path)
    assert [entry["user_id"] for _, entry in lines] == [user.pk, user.pk]


@pytest.mark.parametrize("path", ["/ping", ME, "/api/v1/nothing"])
def test_line_of_an_anonymous_request_has_no_user(anonymous, lines, path):
    anonymous.get(path)
    [(text, entry)] = lines
    assert text.endswith(" user=-")
    assert entry["user_id"] is None


def test_line_of_an_invalid_token_has_no_user(anonymous, lines):
    anonymous.credentials(HTTP_AUTHORIZATION="Bearer x")
    assert anonymous.get(ME).status_code == 401
    assert lines[-1][1]["user_id"] is None


def test_line_of_a_refused_request_contains_the_user(stranger, lines):
    assert stranger.get("/api/v1/admin/audit-logs").status_code == 403
    assert lines[-1][1]["user_id"] == stranger.user.pk


def test_logging_costs_no_user_query(make_user, lines):
    browser = Browser()
    browser.force_login(make_user())
    with CaptureQueriesContext(connection) as queries:
        browser.get("/ping")
    assert len(queries) == 0
    assert lines[-1][1]["user_id"] is None


def test_line_contains_no_username_or_email(make_user, lines):
    browser, user = Browser(), make_user(password=PASSWORD)
    browser.force_login(user)
    browser.get(ME)
    assert user.username not in str(lines)
    assert user.email not in str(lines)
