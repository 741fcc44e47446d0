"""A node's own clock may be wrong: the database's decides on lockouts and on what has expired."""

import time
from datetime import timedelta

import jwt
import pytest
from django.core.management import call_command
from django.test import Client as Browser
from django.utils import timezone

from conftest import PASSWORD, Client
from records.db.clock import database_now
from users.access_tokens import access_token
from users.mail_tokens import DELETE_ACCOUNT, RESET_PASSWORD, VERIFY_EMAIL, mail_token
from users.models import RateLimit, Session, SpentToken, User

LOGIN = "/api/v1/auth/login"
ME = "/api/v1/users/me"
SKEWS = [-16, 16]
NEW = "another-battery-9"
MAILS = {
    "verify-email": (VERIFY_EMAIL, {}),
    "reset-password": (RESET_PASSWORD, {"new_password": NEW}),
    "confirm-account-deletion": (DELETE_ACCOUNT, {}),
}


@pytest.fixture
def node(monkeypatch):
    """Let the clock of this node go `minutes` ahead from now on."""
    real_time, real_now = time.time, timezone.now

    def go(minutes):
        monkeypatch.setattr("time.time", lambda: real_time() + minutes * 60)
        monkeypatch.setattr("django.utils.timezone.now", lambda: real_now() + timedelta(minutes=minutes))

    return go


@pytest.fixture
def ada(make_user):
    return make_user(username="ada", email="ada@example.com", password=PASSWORD, is_staff=True)


def log_in(client, password=PASSWORD):
    return client.post(LOGIN, {"username": "ada", "password": password})


def me(token):
    client = Client()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {token}")
    return client.get(ME).status_code


def close(moment, expected):
    return abs(moment - expected) < timedelta(seconds=60)


def test_database_clock_overrides_the_clock_of_the_node(db, node):
    before = timezone.now()
    node(16)
    assert close(database_now(), before)
    assert database_now().utcoffset() == timedelta(0)


# Lockouts


@pytest.mark.parametrize("minutes", [*SKEWS, 24 * 60])
def test_locked_account_stays_locked(anonymous, ada, node, minutes):
    for _ in range(10):
        log_in(anonymous, "wrong")
    node(minutes)
    answer = log_in(anonymous)
    assert answer.status_code == 429
    assert 14 * 60 < int(answer["Retry-After"]) <= 15 * 60


@pytest.mark.parametrize("minutes", SKEWS)
def test_lock_by_a_node_with_a_wrong_clock_lasts_as_long(anonymous, ada, node, minutes):
    node(minutes)
    for _ in range(10):
        log_in(anonymous, "wrong")
    node(0)
    assert 14 * 60 < int(log_in(anonymous)["Retry-After"]) <= 15 * 60
    assert close(
        RateLimit.objects.get(key=f"login-account:{ada.pk}").expires_at, timezone.now() + timedelta(minutes=15)
    )


def test_failures_at_nodes_with_different_clocks_count_together(anonymous, ada, node):
    for number in range(10):
        node(16 * (-1) ** number)
        log_in(anonymous, "wrong")
    assert log_in(anonymous).status_code == 429


@pytest.mark.parametrize("minutes", SKEWS)
def test_guesses_of_the_current_password_stay_counted(ada, node, minutes):
    client, body = Client(ada), {"current_password": "wrong", "new_password": NEW}
    answers = [client.post("/api/v1/auth/change-password", body).status_code for _ in range(10)]
    node(minutes)
    assert (answers, client.post("/api/v1/auth/change-password", body).status_code) == ([400] * 10, 429)


@pytest.mark.parametrize("minutes", SKEWS)
def test_mails_stay_counted(ada, node, minutes):
    client = Client(ada)
    answers = [client.post("/api/v1/auth/request-email-verification").status_code for _ in range(5)]
    node(minutes)
    assert (answers, client.post("/api/v1/auth/request-email-verification").status_code) == ([202] * 5, 429)


# Access tokens


@pytest.mark.parametrize("minutes", SKEWS)
def test_fresh_access_token_is_good_at_every_node(anonymous, ada, node, minutes):
    token = log_in(anonymous).json()["access_token"]
    node(minutes)
    assert me(token) == 200


@pytest.mark.parametrize("minutes", SKEWS)
def test_access_token_of_a_node_with_a_wrong_clock_is_good_as_long(anonymous, ada, node, minutes):
    node(minutes)
    pairs = [
        pair := log_in(anonymous).json(),
        anonymous.post("/api/v1/auth/refresh", {"refresh_token": pair["refresh_token"]}).json(),
    ]
    node(0)
    for pair in pairs:
        claims = jwt.decode(pair["access_token"], options={"verify_signature": False})
        assert abs(claims["iat"] - time.time()) < 60
        assert claims["exp"] - claims["iat"] == 900
        assert me(pair["access_token"]) == 200


@pytest.mark.parametrize("minutes", [-60, 60])
def test_expired_and_future_access_tokens_are_bad_at_every_node(ada, node, minutes, monkeypatch):
    Client(ada)
    session = Session.objects.get(user=ada)
    session.now = timezone.now() + timedelta(minutes=minutes)
    token = access_token(session)
    node(minutes)
    assert me(token) == 401


# Sessions


@pytest.mark.parametrize("minutes", SKEWS)
def test_session_is_alive_until_the_database_says_otherwise(anonymous, ada, node, minutes):
    pair = log_in(anonymous).json()
    browser = Browser()
    browser.force_login(ada)
    left = timedelta(minutes=5 if minutes > 0 else -5)
    Session.objects.update(expires_at=timezone.now() + left)
    node(minutes)
    expected = 200 if minutes > 0 else 401
    assert me(pair["access_token"]) == expected
    assert browser.get(ME).status_code == expected
    assert anonymous.post("/api/v1/auth/refresh", {"refresh_token": pair["refresh_token"]}).status_code == expected


@pytest.mark.parametrize("minutes", SKEWS)
def test_session_begun_by_a_node_with_a_wrong_clock_has_right_times(anonymous, ada, node, settings, minutes):
    node(minutes)
    log_in(anonymous)
    Browser().force_login(ada)
    node(0)
    for session in Session.objects.all():
        assert close(session.created_at, timezone.now())
        assert close(session.refreshed_at, timezone.now())
        assert close(session.expires_at, timezone.now() + settings.REFRESH_TOKEN_LIFETIME)


@pytest.mark.parametrize("minutes", SKEWS)
def test_stolen_refresh_token_ends_the_session_at_every_node(anonymous, ada, node, minutes):
    pair = log_in(anonymous).json()
    new = anonymous.post("/api/v1/auth/refresh", {"refresh_token": pair["refresh_token"]}).json()
    Session.objects.update(refreshed_at=timezone.now() - timedelta(seconds=60))
    node(minutes)
    assert anonymous.post("/api/v1/auth/refresh", {"refresh_token": pair["refresh_token"]}).status_code == 401
    assert me(new["access_token"]) == 401


@pytest.mark.parametrize("minutes", SKEWS)
def test_two_tabs_that_race_keep_their_session(anonymous, ada, node, minutes):
    pair = log_in(anonymous).json()
    new = anonymous.post("/api/v1/auth/refresh", {"refresh_token": pair["refresh_token"]}).json()
    node(minutes)
    assert anonymous.post("/api/v1/auth/refresh", {"refresh_token": pair["refresh_token"]}).status_code == 401
    assert me(new["access_token"]) == 200


@pytest.mark.parametrize("minutes", SKEWS)
def test_end_of_a_session_is_dated_by_the_database(ada, node, minutes):
    client = Client(ada)
    node(minutes)
    client.post("/api/v1/auth/logout")
    node(0)
    assert close(Session.objects.get(user=ada).revoked_at, timezone.now())


def test_admin_shows_who_is_signed_in_by_the_database(superuser, ada, node):
    Client(ada)
    Session.objects.update(expires_at=timezone.now() + timedelta(minutes=5))
    browser = Browser()
    browser.force_login(superuser.user)
    node(16)
    page = browser.get("/admin/users/session/").content.decode()
    assert "icon-yes" in page
    assert "icon-no" not in page


# Mails


def spend(client, endpoint, token):
    body = {"token": token} | MAILS[endpoint][1]
    return client.post(f"/api/v1/auth/{endpoint}", body).status_code in {200, 204}


@pytest.mark.parametrize("minutes", [-24 * 60, 24 * 60 * 4])
@pytest.mark.parametrize("endpoint", MAILS)
def test_fresh_token_of_a_mail_is_good_at_every_node(anonymous, ada, node, endpoint, minutes):
    token = mail_token(MAILS[endpoint][0], ada)
    node(minutes)
    assert spend(anonymous, endpoint, token)


@pytest.mark.parametrize("minutes", [-24 * 60, 24 * 60 * 4])
@pytest.mark.parametrize("endpoint", MAILS)
def test_token_mailed_by_a_node_with_a_wrong_clock_is_good(anonymous, ada, node, endpoint, minutes):
    node(minutes)
    token = mail_token(MAILS[endpoint][0], ada)
    node(0)
    assert spend(anonymous, endpoint, token)


@pytest.mark.parametrize("minutes", SKEWS)
@pytest.mark.parametrize("endpoint", MAILS)
def test_expired_token_of_a_mail_is_bad_at_every_node(anonymous, ada, node, endpoint, minutes, monkeypatch):
    purpose = MAILS[endpoint][0]
    long_ago = timezone.now() - purpose.lifetime - timedelta(seconds=2)
    monkeypatch.setattr("users.mail_tokens.database_now", lambda: long_ago)
    token = mail_token(purpose, ada)
    node(minutes)
    assert not spend(anonymous, endpoint, token)


@pytest.mark.parametrize("minutes", SKEWS)
def test_spent_token_is_kept_as_long_as_it_lives(anonymous, ada, node, minutes):
    node(minutes)
    assert spend(anonymous, "reset-password", mail_token(RESET_PASSWORD, ada))
    node(0)
    assert close(SpentToken.objects.get().expires_at, timezone.now() + RESET_PASSWORD.lifetime)


# Deletion


@pytest.mark.parametrize("minutes", SKEWS)
def test_day_of_deletion_is_counted_by_the_database(anonymous, ada, node, settings, minutes):
    node(minutes)
    assert spend(anonymous, "confirm-account-deletion", mail_token(DELETE_ACCOUNT, ada))
    node(0)
    assert close(User.objects.get(pk=ada.pk).deletion_at, timezone.now() + settings.ACCOUNT_DELETION_GRACE)


def test_purge_waits_for_the_day_of_the_database(ada, node):
    Client(ada)
    User.objects.filter(pk=ada.pk).update(deletion_at=timezone.now() + timedelta(minutes=5))
    Session.objects.update(expires_at=timezone.now() + timedelta(minutes=5))
    node(16)
    call_command("purge_deleted", verbosity=0)
    assert User.objects.filter(pk=ada.pk).exists()
    assert Session.objects.filter(user=ada).exists()
