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


def pass_by(minutes):
    for row in RateLimit.objects.all():
        row.hits = [hit - minutes * 60 for hit in row.hits]
        row.save()


def test_ten_bad_logins_lock_the_account_for_the_right_password_too(anonymous, ada):
    assert fail(anonymous, 11) == [401] * 10 + [429]
    answer = log_in(anonymous)
    assert (answer.status_code, answer["Content-Type"]) == (429, "application/problem+json")
    assert 14 * 60 < int(answer["Retry-After"]) <= 15 * 60


def test_nine_do_not(anonymous, ada):
    fail(anonymous, 9)
    assert log_in(anonymous).status_code == 200


def test_a_good_login_forgives(anonymous, ada):
    fail(anonymous, 9)
    log_in(anonymous)
    assert fail(anonymous, 11) == [401] * 10 + [429]


def test_names_of_one_account_count_together(anonymous, ada):
    fail(anonymous, 5, username="ada")
    fail(anonymous, 5, username="ADA@example.com")
    assert log_in(anonymous).status_code == 429


def test_other_addresses_count_for_the_account_and_are_locked_out_of_it(anonymous, ada):
    for number in range(10):
        fail(anonymous, 1, ip=f"198.51.100.{number}")
    assert log_in(anonymous, ip="203.0.113.1").status_code == 429


def test_others_get_in(anonymous, ada, make_user):
    make_user(username="carol", password=PASSWORD)
    fail(anonymous, 11)
    assert log_in(anonymous, username="carol").status_code == 200


@pytest.mark.parametrize("kind", ["nobody", "inactive", "deleted", "passwordless"])
def test_accounts_that_cannot_log_in_lock_alike(anonymous, make_user, kind):
    make_user(username="inactive", password=PASSWORD, is_active=False)
    make_user(username="deleted", password=PASSWORD).delete()
    make_user(username="passwordless")
    assert fail(anonymous, 11, username=kind) == [401] * 10 + [429]


def test_fifty_bad_logins_lock_the_address(anonymous, ada):
    answers = [status for number in range(51) for status in fail(anonymous, 1, username=f"person{number}")]
    assert answers == [401] * 50 + [429]
    assert log_in(anonymous).status_code == 429
    assert log_in(anonymous, ip="203.0.113.1").status_code == 200


def test_a_good_login_does_not_forgive_the_address(anonymous, ada):
    for number in range(50):
        fail(anonymous, 1, username=f"person{number}")
        if number == 40:
            assert log_in(anonymous).status_code == 200
    assert log_in(anonymous).status_code == 429


def test_neighbours_in_one_ipv6_network_are_one_address(anonymous, ada):
    for number in range(50):
        fail(anonymous, 1, username=f"person{number}", ip=f"2001:db8:0:1::{number:x}")
    assert log_in(anonymous, ip="2001:db8:0:1:ffff::1").status_code == 429
    assert log_in(anonymous, ip="2001:db8:0:2::1").status_code == 200


@pytest.mark.parametrize(("proxies", "status"), [(0, 429), (1, 401)])
def test_forwarded_address_counts_through_trusted_proxies_only(anonymous, ada, settings, proxies, status):
    settings.TRUSTED_PROXIES = proxies
    for number in range(50):
        fail(anonymous, 1, username=f"person{number}", HTTP_X_FORWARDED_FOR=f"198.51.100.{number}")
    assert fail(anonymous, 1, username="another", HTTP_X_FORWARDED_FOR="203.0.113.1") == [status]


def test_sliding_window_lets_in_again_one_by_one(anonymous, ada):
    fail(anonymous, 5)
    pass_by(10)
    fail(anonymous, 5)
    assert 4 * 60 < int(log_in(anonymous)["Retry-After"]) <= 5 * 60
    pass_by(6)
    assert log_in(anonymous).status_code == 200


def test_attempts_while_locked_do_not_prolong_it(anonymous, ada):
    fail(anonymous, 10)
    pass_by(14)
    fail(anonymous, 20)
    pass_by(2)
    assert log_in(anonymous).status_code == 200


def test_living_sessions_go_on(anonymous, ada):
    tokens = log_in(anonymous).json()
    fail(anonymous, 11)
    anonymous.credentials(HTTP_AUTHORIZATION=f"Bearer {tokens['access_token']}")
    assert anonymous.get("/api/v1/users/me").status_code == 200
    assert anonymous.post("/api/v1/auth/refresh", {"refresh_token": tokens["refresh_token"]}).status_code == 200


@pytest.mark.parametrize("page", ["/admin/login/", "/api/login"])
def test_browser_login_counts_and_is_locked_alike(ada, page):
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


def test_guesses_of_the_current_password_count(ada, anonymous):
    client = Client(ada)
    body = {"current_password": "wrong", "new_password": "another-battery-9"}
    answers = [client.post("/api/v1/auth/change-password", body).status_code for _ in range(11)]
    assert answers == [400] * 10 + [429]


def test_bad_input_does_not_count(anonymous, ada):
    for _ in range(11):
        anonymous.post(URL, {"username": "ada"})
    assert log_in(anonymous).status_code == 200


def test_locked_login_costs_no_password_hash(anonymous, ada, monkeypatch):
    fail(anonymous, 10)
    monkeypatch.setattr(User, "check_password", None)
    assert log_in(anonymous).status_code == 429


def test_staff_unlock_in_the_admin(superuser, anonymous, ada):
    fail(anonymous, 10)
    browser = Client()
    browser.force_login(superuser.user)
    assert f"login-account:{ada.pk}" in browser.get("/admin/users/ratelimit/").content.decode()
    browser.generic("POST", f"/admin/users/ratelimit/login-account_3A{ada.pk}/delete/", "post=yes",
                    content_type="application/x-www-form-urlencoded")  # fmt: skip
    assert log_in(anonymous).status_code == 200


@pytest.mark.django_db(transaction=True)
def test_sixty_at_once_are_told_ten_times_that_they_are_wrong(ada):
    def attempt(number):
        try:
            return log_in(Client(), password=f"wrong{number}", ip=f"198.51.100.{number}").status_code
        finally:
            connections.close_all()

    with ThreadPoolExecutor(12) as pool:
        answers = sorted(pool.map(attempt, range(60)))
    assert answers == [401] * 10 + [429] * 50
    assert log_in(Client(), ip="203.0.113.1").status_code == 429


def test_expired_counts_are_purged(anonymous, ada):
    fail(anonymous, 1)
    RateLimit.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    from django.core.management import call_command

    call_command("purge_deleted", verbosity=0)
    assert not RateLimit.objects.exists()
