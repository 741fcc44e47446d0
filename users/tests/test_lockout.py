from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.db import connections
from django.utils import timezone

from conftest import PASSWORD, Client
from users.models import RateLimit, User

URL = "/api/v1/auth/login"
BROWSER = {"Accept": "text/html"}


@pytest.fixture
def ada(make_user):
    return make_user(username="ada", email="ada@example.com", password=PASSWORD, is_staff=True)


def log_in(client, username="ada", password=PASSWORD, ip="192.0.2.1", **extra):
    return client.post(URL, {"username": username, "password": password}, REMOTE_ADDR=ip, **extra)


def fail(client, times, **login):
    return [log_in(client, password="wrong", **login).status_code for _ in range(times)]


def advance_minutes(minutes):
    for row in RateLimit.objects.all():
        row.hits = [hit - minutes * 60 for hit in row.hits]
        row.save()


def test_ten_failed_logins_lock_the_account(anonymous, ada):
    assert fail(anonymous, 11) == [401] * 10 + [429]
    answer = log_in(anonymous)
    assert (answer.status_code, answer["Content-Type"]) == (429, "application/problem+json")
    assert 14 * 60 < int(answer["Retry-After"]) <= 15 * 60


def test_nine_failed_logins_do_not_lock_the_account(anonymous, ada):
    fail(anonymous, 9)
    assert log_in(anonymous).status_code == 200


def test_successful_login_resets_the_account_counter(anonymous, ada):
    fail(anonymous, 9)
    log_in(anonymous)
    assert fail(anonymous, 11) == [401] * 10 + [429]


def test_username_and_email_share_one_counter(anonymous, ada):
    fail(anonymous, 5, username="ada")
    fail(anonymous, 5, username="ADA@example.com")
    assert log_in(anonymous).status_code == 429


def test_failures_from_all_addresses_lock_the_account(anonymous, ada):
    for number in range(10):
        fail(anonymous, 1, ip=f"198.51.100.{number}")
    assert log_in(anonymous, ip="203.0.113.1").status_code == 429


def test_other_accounts_are_not_locked(anonymous, ada, make_user):
    make_user(username="carol", password=PASSWORD)
    fail(anonymous, 11)
    assert log_in(anonymous, username="carol").status_code == 200


@pytest.mark.parametrize("kind", ["nobody", "inactive", "deleted", "passwordless"])
def test_unusable_accounts_lock_like_others(anonymous, make_user, kind):
    make_user(username="inactive", password=PASSWORD, is_active=False)
    make_user(username="deleted", password=PASSWORD).delete()
    make_user(username="passwordless")
    assert fail(anonymous, 11, username=kind) == [401] * 10 + [429]


def test_fifty_failed_logins_lock_the_address(anonymous, ada):
    answers = [status for number in range(51) for status in fail(anonymous, 1, username=f"person{number}")]
    assert answers == [401] * 50 + [429]
    assert log_in(anonymous).status_code == 429
    assert log_in(anonymous, ip="203.0.113.1").status_code == 200


def test_successful_login_keeps_the_address_counter(anonymous, ada):
    for number in range(50):
        fail(anonymous, 1, username=f"person{number}")
        if number == 40:
            assert log_in(anonymous).status_code == 200
    assert log_in(anonymous).status_code == 429


def test_ipv6_addresses_of_one_network_share_a_counter(anonymous, ada):
    for number in range(50):
        fail(anonymous, 1, username=f"person{number}", ip=f"2001:db8:0:1::{number:x}")
    assert log_in(anonymous, ip="2001:db8:0:1:ffff::1").status_code == 429
    assert log_in(anonymous, ip="2001:db8:0:2::1").status_code == 200


@pytest.mark.parametrize(("proxies", "status"), [(0, 429), (1, 401)])
def test_forwarded_address_counts_only_behind_trusted_proxies(anonymous, ada, settings, proxies, status):
    settings.TRUSTED_PROXIES = proxies
    for number in range(50):
        fail(anonymous, 1, username=f"person{number}", HTTP_X_FORWARDED_FOR=f"198.51.100.{number}")
    assert fail(anonymous, 1, username="another", HTTP_X_FORWARDED_FOR="203.0.113.1") == [status]


def test_attempts_leave_the_sliding_window_one_by_one(anonymous, ada):
    fail(anonymous, 5)
    advance_minutes(10)
    fail(anonymous, 5)
    assert 4 * 60 < int(log_in(anonymous)["Retry-After"]) <= 5 * 60
    advance_minutes(6)
    assert log_in(anonymous).status_code == 200


def test_attempts_while_locked_do_not_extend_the_lock(anonymous, ada):
    fail(anonymous, 10)
    advance_minutes(14)
    fail(anonymous, 20)
    advance_minutes(2)
    assert log_in(anonymous).status_code == 200


def test_locked_account_keeps_its_sessions(anonymous, ada):
    tokens = log_in(anonymous).json()
    fail(anonymous, 11)
    anonymous.credentials(HTTP_AUTHORIZATION=f"Bearer {tokens['access_token']}")
    assert anonymous.get("/api/v1/users/me").status_code == 200
    assert anonymous.post("/api/v1/auth/refresh", {"refresh_token": tokens["refresh_token"]}).status_code == 200


@pytest.mark.parametrize("page", ["/admin/login/", "/api/login"])
def test_browser_login_is_counted_and_locked(ada, page):
    browser = Client()

    def submit(password):
        form = f"username=ada&password={password}"
        return browser.generic("POST", page, form, content_type="application/x-www-form-urlencoded", headers=BROWSER)

    assert [submit("wrong").status_code for _ in range(10)] == [200] * 10
    answer = submit(PASSWORD)
    assert (answer.status_code, answer["Content-Type"]) == (429, "text/html; charset=utf-8")
    assert int(answer["Retry-After"]) > 0
    assert "Too many failed attempts" in answer.content.decode()
    assert log_in(browser).status_code == 429


def test_wrong_current_passwords_are_counted(ada, anonymous):
    client = Client(ada)
    body = {"current_password": "wrong", "new_password": "another-battery-9"}
    answers = [client.post("/api/v1/auth/change-password", body).status_code for _ in range(11)]
    assert answers == [400] * 10 + [429]


def test_invalid_request_is_not_counted(anonymous, ada):
    for _ in range(11):
        anonymous.post(URL, {"username": "ada"})
    assert log_in(anonymous).status_code == 200


def test_locked_login_costs_no_password_hash(anonymous, ada, monkeypatch):
    fail(anonymous, 10)
    monkeypatch.setattr(User, "check_password", None)
    assert log_in(anonymous).status_code == 429


def test_superuser_unlocks_an_account_in_the_admin(superuser, anonymous, ada):
    fail(anonymous, 10)
    browser = Client()
    browser.force_login(superuser.user)
    assert f"login-account:{ada.pk}" in browser.get("/admin/users/ratelimit/").content.decode()
    browser.generic("POST", f"/admin/users/ratelimit/login-account_3A{ada.pk}/delete/", "post=yes",
                    content_type="application/x-www-form-urlencoded")  # fmt: skip
    assert log_in(anonymous).status_code == 200


@pytest.mark.django_db(transaction=True)
def test_concurrent_attempts_check_ten_passwords(ada):
    def attempt(number):
        try:
            return log_in(Client(), password=f"wrong{number}", ip=f"198.51.100.{number}").status_code
        finally:
            connections.close_all()

    with ThreadPoolExecutor(12) as pool:
        answers = sorted(pool.map(attempt, range(60)))
    assert answers == [401] * 10 + [429] * 50
    assert log_in(Client(), ip="203.0.113.1").status_code == 429


def test_expired_counters_are_purged(anonymous, ada):
    fail(anonymous, 1)
    RateLimit.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    from django.core.management import call_command

    call_command("purge_deleted", verbosity=0)
    assert not RateLimit.objects.exists()
