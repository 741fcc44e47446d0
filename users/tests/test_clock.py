"""Lockouts and expiry use the database clock, because the clock of a node may be wrong."""

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
NEW_PASSWORD = "another-battery-9"
MAILS = {
    "verify-email": (VERIFY_EMAIL, {}),
    "reset-password": (RESET_PASSWORD, {"new_password": NEW_PASSWORD}),
    "confirm-account-deletion": (DELETE_ACCOUNT, {}),
}


@pytest.fixture
def skew_clock(monkeypatch):
    """Return a function that sets the clock of this node ahead by `minutes`."""
    real_time, real_now = time.time, timezone.now

    def skew(minutes):
        monkeypatch.setattr("time.time", lambda: real_time() + minutes * 60)
        monkeypatch.setattr("django.utils.timezone.now", lambda: real_now() + timedelta(minutes=minutes))

    return skew


@pytest.fixture
def ada(make_user):
    return make_user(username="ada", email="ada@example.com", password=PASSWORD, is_staff=True)


def log_in(client, password=PASSWORD):
    return client.post(LOGIN, {"username": "ada", "password": password})


def me_status(token):
    client = Client()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {token}")
    return client.get(ME).status_code


def is_close(moment, expected):
    return abs(moment - expected) < timedelta(seconds=60)


def test_database_clock_overrides_the_clock_of_the_node(db, skew_clock):
    before = timezone.now()
    skew_clock(16)
    assert is_close(database_now(), before)
    assert database_now().utcoffset() == timedelta(0)


# Lockouts


@pytest.mark.parametrize("minutes", [*SKEWS, 24 * 60])
def test_locked_account_stays_locked(anonymous, ada, skew_clock, minutes):
    for _ in range(10):
        log_in(anonymous, "wrong")
    skew_clock(minutes)
    answer = log_in(anonymous)
    assert answer.status_code == 429
    assert 14 * 60 < int(answer["Retry-After"]) <= 15 * 60


@pytest.mark.parametrize("minutes", SKEWS)
def test_lock_by_a_node_with_a_wrong_clock_has_the_usual_duration(anonymous, ada, skew_clock, minutes):
    skew_clock(minutes)
    for _ in range(10):
        log_in(anonymous, "wrong")
    skew_clock(0)
    assert 14 * 60 < int(log_in(anonymous)["Retry-After"]) <= 15 * 60
    assert is_close(
        RateLimit.objects.get(key=f"login-account:{ada.pk}").expires_at, timezone.now() + timedelta(minutes=15)
    )


def test_failures_at_nodes_with_different_clocks_share_a_counter(anonymous, ada, skew_clock):
    for number in range(10):
        skew_clock(16 * (-1) ** number)
        log_in(anonymous, "wrong")
    assert log_in(anonymous).status_code == 429


@pytest.mark.parametrize("minutes", SKEWS)
def test_wrong_current_passwords_stay_counted(ada, skew_clock, minutes):
    client, body = Client(ada), {"current_password": "wrong", "new_password": NEW_PASSWORD}
    answers = [client.post("/api/v1/auth/change-password", body).status_code for _ in range(10)]
    skew_clock(minutes)
    assert (answers, client.post("/api/v1/auth/change-password", body).status_code) == ([400] * 10, 429)


@pytest.mark.parametrize("minutes", SKEWS)
def test_mails_stay_counted(ada, skew_clock, minutes):
    client = Client(ada)
    answers = [client.post("/api/v1/auth/request-email-verification").status_code for _ in range(5)]
    skew_clock(minutes)
    assert (answers, client.post("/api/v1/auth/request-email-verification").status_code) == ([202] * 5, 429)


# Access tokens


@pytest.mark.parametrize("minutes", SKEWS)
def test_new_access_token_is_valid_at_every_node(anonymous, ada, skew_clock, minutes):
    token = log_in(anonymous).json()["access_token"]
    skew_clock(minutes)
    assert me_status(token) == 200


@pytest.mark.parametrize("minutes", SKEWS)
def test_access_token_of_a_node_with_a_wrong_clock_has_the_usual_lifetime(anonymous, ada, skew_clock, minutes):
    skew_clock(minutes)
    pairs = [
        pair := log_in(anonymous).json(),
        anonymous.post("/api/v1/auth/refresh", {"refresh_token": pair["refresh_token"]}).json(),
    ]
    skew_clock(0)
    for pair in pairs:
        claims = jwt.decode(pair["access_token"], options={"verify_signature": False})
        assert abs(claims["iat"] - time.time()) < 60
        assert claims["exp"] - claims["iat"] == 900
        assert me_status(pair["access_token"]) == 200


@pytest.mark.parametrize("minutes", [-60, 60])
def test_expired_and_future_access_tokens_are_invalid_at_every_node(ada, skew_clock, minutes, monkeypatch):
    Client(ada)
    session = Session.objects.get(user=ada)
    session.now = timezone.now() + timedelta(minutes=minutes)
    token = access_token(session)
    skew_clock(minutes)
    assert me_status(token) == 401


# Sessions


@pytest.mark.parametrize("minutes", SKEWS)
def test_session_expires_by_the_database_clock(anonymous, ada, skew_clock, minutes):
    pair = log_in(anonymous).json()
    browser = Browser()
    browser.force_login(ada)
    remaining = timedelta(minutes=5 if minutes > 0 else -5)
    Session.objects.update(expires_at=timezone.now() + remaining)
    skew_clock(minutes)
    expected = 200 if minutes > 0 else 401
    assert me_status(pair["access_token"]) == expected
    assert browser.get(ME).status_code == expected
    assert anonymous.post("/api/v1/auth/refresh", {"refresh_token": pair["refresh_token"]}).status_code == expected


@pytest.mark.parametrize("minutes", SKEWS)
def test_session_started_by_a_node_with_a_wrong_clock_has_correct_times(anonymous, ada, skew_clock, settings, minutes):
    skew_clock(minutes)
    log_in(anonymous)
    Browser().force_login(ada)
    skew_clock(0)
    for session in Session.objects.all():
        assert is_close(session.created_at, timezone.now())
        assert is_close(session.refreshed_at, timezone.now())
        assert is_close(session.expires_at, timezone.now() + settings.REFRESH_TOKEN_LIFETIME)


@pytest.mark.parametrize("minutes", SKEWS)
def test_stolen_refresh_token_ends_the_session_at_every_node(anonymous, ada, skew_clock, minutes):
    pair = log_in(anonymous).json()
    new = anonymous.post("/api/v1/auth/refresh", {"refresh_token": pair["refresh_token"]}).json()
    Session.objects.update(refreshed_at=timezone.now() - timedelta(seconds=60))
    skew_clock(minutes)
    assert anonymous.post("/api/v1/auth/refresh", {"refresh_token": pair["refresh_token"]}).status_code == 401
    assert me_status(new["access_token"]) == 401


@pytest.mark.parametrize("minutes", SKEWS)
def test_concurrent_refresh_keeps_the_session(anonymous, ada, skew_clock, minutes):
    pair = log_in(anonymous).json()
    new = anonymous.post("/api/v1/auth/refresh", {"refresh_token": pair["refresh_token"]}).json()
    skew_clock(minutes)
    assert anonymous.post("/api/v1/auth/refresh", {"refresh_token": pair["refresh_token"]}).status_code == 401
    assert me_status(new["access_token"]) == 200


@pytest.mark.parametrize("minutes", SKEWS)
def test_session_end_is_dated_by_the_database_clock(ada, skew_clock, minutes):
    client = Client(ada)
    skew_clock(minutes)
    client.post("/api/v1/auth/logout")
    skew_clock(0)
    assert is_close(Session.objects.get(user=ada).revoked_at, timezone.now())


def test_admin_shows_active_sessions_by_the_database_clock(superuser, ada, skew_clock):
    Client(ada)
    Session.objects.update(expires_at=timezone.now() + timedelta(minutes=5))
    browser = Browser()
    browser.force_login(superuser.user)
    skew_clock(16)
    page = browser.get("/admin/users/session/").content.decode()
    assert "icon-yes" in page
    assert "icon-no" not in page


# Mails


def is_accepted(client, endpoint, token):
    body = {"token": token} | MAILS[endpoint][1]
    return client.post(f"/api/v1/auth/{endpoint}", body).status_code in {200, 204}


@pytest.mark.parametrize("minutes", [-24 * 60, 24 * 60 * 4])
@pytest.mark.parametrize("endpoint", MAILS)
def test_new_mailed_token_is_valid_at_every_node(anonymous, ada, skew_clock, endpoint, minutes):
    token = mail_token(MAILS[endpoint][0], ada)
    skew_clock(minutes)
    assert is_accepted(anonymous, endpoint, token)


@pytest.mark.parametrize("minutes", [-24 * 60, 24 * 60 * 4])
@pytest.mark.parametrize("endpoint", MAILS)
def test_token_mailed_by_a_node_with_a_wrong_clock_is_valid(anonymous, ada, skew_clock, endpoint, minutes):
    skew_clock(minutes)
    token = mail_token(MAILS[endpoint][0], ada)
    skew_clock(0)
    assert is_accepted(anonymous, endpoint, token)


@pytest.mark.parametrize("minutes", SKEWS)
@pytest.mark.parametrize("endpoint", MAILS)
def test_expired_mailed_token_is_invalid_at_every_node(anonymous, ada, skew_clock, endpoint, minutes, monkeypatch):
    purpose = MAILS[endpoint][0]
    long_ago = timezone.now() - purpose.lifetime - timedelta(seconds=2)
    monkeypatch.setattr("users.mail_tokens.database_now", lambda: long_ago)
    token = mail_token(purpose, ada)
    skew_clock(minutes)
    assert not is_accepted(anonymous, endpoint, token)


@pytest.mark.parametrize("minutes", SKEWS)
def test_spent_token_is_kept_until_it_expires(anonymous, ada, skew_clock, minutes):
    skew_clock(minutes)
    assert is_accepted(anonymous, "reset-password", mail_token(RESET_PASSWORD, ada))
    skew_clock(0)
    assert is_close(SpentToken.objects.get().expires_at, timezone.now() + RESET_PASSWORD.lifetime)


# Deletion


@pytest.mark.parametrize("minutes", SKEWS)
def test_deletion_date_uses_the_database_clock(anonymous, ada, skew_clock, settings, minutes):
    skew_clock(minutes)
    assert is_accepted(anonymous, "confirm-account-deletion", mail_token(DELETE_ACCOUNT, ada))
    skew_clock(0)
    assert is_close(User.objects.get(pk=ada.pk).deletion_at, timezone.now() + settings.ACCOUNT_DELETION_GRACE)


def test_purge_uses_the_database_clock(ada, skew_clock):
    Client(ada)
    User.objects.filter(pk=ada.pk).update(deletion_at=timezone.now() + timedelta(minutes=5))
    Session.objects.update(expires_at=timezone.now() + timedelta(minutes=5))
    skew_clock(16)
    call_command("purge_deleted", verbosity=0)
    assert User.objects.filter(pk=ada.pk).exists()
    assert Session.objects.filter(user=ada).exists()
