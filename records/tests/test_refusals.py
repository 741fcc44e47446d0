"""Refusals (403) are in the audit log, with the user and the row."""

import pytest
from django.contrib.auth.models import Group
from django.core.cache import caches
from django.db import connection
from django.test import Client as Browser
from django.test.utils import CaptureQueriesContext

from conftest import PASSWORD
from records.audit.models import AuditEntry
from records.http import refusals
from stocks.models import Stock
from users.models import User

USERS = "/api/v1/users"
LOG = "/api/v1/admin/audit-logs"


@pytest.fixture
def clerk(staff_with):
    """Return a member of staff who can view everything and change nothing."""
    return staff_with("view_user", "view_stock", "view_auditentry")


@pytest.fixture
def browser(clerk):
    browser = Browser(raise_request_exception=False)
    browser.force_login(clerk.user)
    return browser


@pytest.fixture
def stock(owner, make_stock):
    return make_stock(owner.user)


def failures():
    names = ("action", "user_id", "object_type", "object_id", "owner_id")
    return list(AuditEntry.objects.filter(outcome="failure").order_by("id").values_list(*names))


def expected_failure(client, action, row):
    owner_id = row.pk if isinstance(row, User) else row.owner_id
    return [(action, client.user.pk, row._meta.db_table, str(row.pk), owner_id)]


# The API


@pytest.mark.parametrize(
    ("method", "query", "action"),
    [("patch", "", "update"), ("put", "", "update"), ("delete", "", "delete"), ("delete", "?permanent=true", "purge")],
)
def test_refused_write_to_a_user_is_logged(clerk, owner, method, query, action):
    answer = getattr(clerk, method)(f"{USERS}/{owner.user.pk}{query}", {"name": "Ada"})
    assert answer.status_code == 403
    assert failures() == expected_failure(clerk, action, owner.user)
    [entry] = AuditEntry.objects.filter(outcome="failure")
    assert (entry.request_id, entry.ip, entry.changes) == (answer["X-Request-ID"], "127.0.0.1", {})


@pytest.mark.parametrize(("method", "action"), [("patch", "update"), ("put", "update"), ("delete", "delete")])
def test_refused_write_to_a_stock_is_logged(clerk, stock, method, action):
    assert getattr(clerk, method)(f"/api/v1/stocks/{stock.pk}", {"price": 1}).status_code == 403
    assert failures() == expected_failure(clerk, action, stock)


def test_refused_restore_is_logged(clerk, stock):
    stock.delete()
    assert clerk.post(f"/api/v1/stocks/{stock.pk}/restore").status_code == 403
    assert failures() == expected_failure(clerk, "restore", Stock.all_objects.get(pk=stock.pk))


def test_refused_action_on_a_collection_is_logged(stranger, clerk, owner):
    answers = [
        stranger.post(USERS, {"username": "ada", "email": "ada@example.com"}),
        stranger.post("/api/v1/stocks/reprice", {"prices": {"AAPL": 1}}),
        stranger.get(LOG),
        stranger.post(f"{LOG}/undo", {"request_id": "x"}),
        clerk.post(f"{USERS}/{owner.user.pk}/stocks", {"name": "AAPL", "price": 1, "quantity": 1}),
    ]
    assert {answer.status_code for answer in answers} == {403}
    assert failures() == [
        ("create", stranger.user.pk, "users", None, None),
        ("update", stranger.user.pk, "stocks", None, None),
        ("view", stranger.user.pk, "audit_log", None, None),
        ("undo", stranger.user.pk, "audit_log", None, None),
        ("create", clerk.user.pk, "stocks", None, None),
    ]


def test_refusal_within_a_transaction_is_logged(staff, superuser):
    assert staff.patch(f"{USERS}/{superuser.user.pk}", {"name": "Ada"}).status_code == 403
    assert failures() == expected_failure(staff, "update", superuser.user)


def test_refused_undo_is_logged_with_the_row_of_the_entry(clerk, stock):
    entry = AuditEntry.objects.of_row(Stock, stock.pk).get()
    assert clerk.post(f"{LOG}/{entry.pk}/undo").status_code == 403
    assert failures() == expected_failure(clerk, "undo", stock)


def test_refusals_are_listed_in_the_audit_log(clerk, owner):
    clerk.delete(f"{USERS}/{owner.user.pk}")
    [item] = clerk.get(f"{LOG}?outcome=failure&action=delete").json()["items"]
    assert (item["user_id"], item["object_id"]) == (clerk.user.pk, owner.user.pk)


def test_missing_csrf_token_is_logged(make_user):
    user = make_user()
    browser = Browser(enforce_csrf_checks=True)
    browser.force_login(user)
    answer = browser.patch(f"{USERS}/{user.pk}", '{"name": "Ada"}', content_type="application/json")
    assert answer.status_code == 403
    assert failures() == [("update", user.pk, "users", str(user.pk), user.pk)]


def test_missing_csrf_token_in_the_admin_is_logged(make_user, stock):
    user = make_user(is_staff=True, is_superuser=True)
    browser = Browser(enforce_csrf_checks=True)
    browser.force_login(user)
    assert browser.post(f"/admin/stocks/stock/{stock.pk}/delete/", {"post": "yes"}).status_code == 403
    assert failures() == [("delete", user.pk, "stocks", str(stock.pk), stock.owner_id)]


@pytest.mark.parametrize("path", ["/api/login", "/admin/login/"])
def test_login_form_without_csrf_token_is_logged_without_a_user(db, path):
    browser = Browser(enforce_csrf_checks=True)
    assert browser.post(path, {"username": "ada", "password": PASSWORD}).status_code == 403
    assert [user_id for _, user_id, *_ in failures()] == [None]


# Responses that are not refusals


def test_404_of_an_invisible_row_is_not_logged(stranger, stock, owner):
    paths = (f"/api/v1/stocks/{stock.pk}", f"{USERS}/{owner.user.pk}", f"/api/v1/stocks/{stock.pk}/history")
    assert {stranger.get(path).status_code for path in paths} == {404}
    assert stranger.patch(f"/api/v1/stocks/{stock.pk}", {"price": 1}).status_code == 404
    assert failures() == []


def test_401_of_an_anonymous_request_is_not_logged(anonymous, stock):
    assert anonymous.patch(f"/api/v1/stocks/{stock.pk}", {"price": 1}).status_code == 401
    assert failures() == []


# The admin


@pytest.mark.parametrize(
    ("method", "page", "action"),
    [
        ("post", "{pk}/change/", "update"),
        ("post", "{pk}/delete/", "delete"),
        ("get", "{pk}/delete/", "view"),
    ],
)
@pytest.mark.parametrize("kind", ["user", "stock"])
def test_refused_page_of_a_row_is_logged(browser, clerk, owner, stock, kind, method, page, action):
    row, path = (owner.user, "users/user") if kind == "user" else (stock, "stocks/stock")
    assert getattr(browser, method)(f"/admin/{path}/{page.format(pk=row.pk)}", {"post": "yes"}).status_code == 403
    assert failures() == expected_failure(clerk, action, row)


def test_refused_password_form_is_logged(browser, clerk, owner):
    assert browser.post(f"/admin/users/user/{owner.user.pk}/password/", {}).status_code == 403
    assert failures() == expected_failure(clerk, "password_change", owner.user)


def test_refused_admin_pages_without_a_row_are_logged(browser, clerk):
    assert browser.get("/admin/stocks/stock/add/").status_code == 403
    assert browser.post("/admin/stocks/stock/add/").status_code == 403
    assert browser.get("/admin/auth/group/").status_code == 403
    clerk_id = clerk.user.pk
    assert failures() == [
        ("view", clerk_id, "stocks", None, None),
        ("create", clerk_id, "stocks", None, None),
        ("view", clerk_id, "auth_group", None, None),
    ]


@pytest.mark.parametrize("count", [1, 2])
def test_refused_action_on_a_selection_is_logged(staff, superuser, make_user, count):
    browser = Browser()
    browser.force_login(staff.user)
    rows = [make_user(is_superuser=True) for _ in range(count)]
    selected = {"action": "delete_selected", "_selected_action": [row.pk for row in rows], "post": "yes"}
    assert browser.post("/admin/users/user/", selected).status_code == 403
    row_columns = (str(rows[0].pk), rows[0].pk) if count == 1 else (None, None)
    assert failures() == [("delete", staff.user.pk, "users", *row_columns)]


def test_refused_undo_in_the_admin_is_logged(staff_with, stock):
    auditor = staff_with("change_auditentry")
    browser = Browser()
    browser.force_login(auditor.user)
    entry = AuditEntry.objects.of_row(Stock, stock.pk).get()
    selected = {"action": "undo_entries", "_selected_action": entry.pk}
    assert browser.post("/admin/records/auditentry/", selected).status_code == 403
    assert failures() == expected_failure(auditor, "undo", stock)


@pytest.mark.parametrize("key", ["abc", "9" * 30, "%00", "7" * 500])
def test_invalid_key_is_not_logged(browser, clerk, key):
    assert browser.post(f"/admin/stocks/stock/{key}/delete/", {"post": "yes"}).status_code in {302, 400, 403}
    assert {object_id for *_, object_id, _ in failures()} <= {None}


def test_refused_group_deletion_is_logged_with_its_key(browser, clerk):
    group = Group.objects.create(name="clerks")
    assert browser.post(f"/admin/auth/group/{group.pk}/delete/", {"post": "yes"}).status_code == 403
    assert failures() == [("delete", clerk.user.pk, "auth_group", str(group.pk), None)]


# Limits


def test_logged_refusals_are_capped_per_user(clerk, stranger, owner):
    for _ in range(refusals.MAX_ENTRIES + 5):
        assert clerk.delete(f"{USERS}/{owner.user.pk}").status_code == 403
    assert len(failures()) == refusals.MAX_ENTRIES
    stranger.get(LOG)
    assert len(failures()) == refusals.MAX_ENTRIES + 1


def test_logged_refusals_of_anonymous_callers_are_capped_together(db):
    browser = Browser(enforce_csrf_checks=True)
    for number in range(refusals.MAX_ENTRIES + 5):
        browser.post("/api/login", {}, REMOTE_ADDR=f"198.51.100.{number}")
    assert len(failures()) == refusals.MAX_ENTRIES


def test_refusal_above_the_cap_costs_no_logging_query(clerk, owner):
    def count():
        with CaptureQueriesContext(connection) as queries:
            clerk.delete(f"{USERS}/{owner.user.pk}")
        return len(queries)

    first, *_, last = [count() for _ in range(refusals.MAX_ENTRIES + 1)]
    assert first == last + 2  # the owner of the row, and the entry


@pytest.mark.parametrize("broken", ["cache", "log"])
def test_failed_logging_does_not_change_the_response(clerk, owner, monkeypatch, broken):
    def fail(*args, **kwargs):
        raise ConnectionError

    target = (type(caches["default"]), "add") if broken == "cache" else (refusals, "_row")
    monkeypatch.setattr(*target, fail)
    monkeypatch.setattr("records.rest.throttles.SlidingThrottle.allow_request", lambda *args: True)
    assert clerk.delete(f"{USERS}/{owner.user.pk}").status_code == 403
