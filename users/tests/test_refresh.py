from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.db import connections
from django.utils import timezone

from conftest import PASSWORD, Client
from users.models.session import REUSE_GRACE, Session

URL = "/api/v1/auth/refresh"
ME = "/api/v1/users/me"


@pytest.fixture
def person(make_user):
    return make_user(username="ada", password=PASSWORD)


@pytest.fixture
def pair(anonymous, person):
    return anonymous.post("/api/v1/auth/login", {"username": "ada", "password": PASSWORD}).json()


def refresh(client, token):
    return client.post(URL, {"refresh_token": token})


def me_status(access_token):
    client = Client()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {access_token}")
    return client.get(ME).status_code


def backdate_refresh(seconds=60):
    Session.objects.update(refreshed_at=timezone.now() - timedelta(seconds=seconds))


def test_refresh_returns_a_new_working_pair(anonymous, pair):
    answer = refresh(anonymous, pair["refresh_token"])
    assert (answer.status_code, set(answer.json())) == (200, set(pair))
    assert answer.json()["refresh_token"] != pair["refresh_token"]
    assert me_status(answer.json()["access_token"]) == 200
    assert refresh(anonymous, answer.json()["refresh_token"]).status_code == 200


def test_refresh_creates_no_session(anonymous, pair):
    for _ in range(3):
        pair = refresh(anonymous, pair["refresh_token"]).json()
    assert Session.objects.count() == 1


def test_refresh_extends_the_session(anonymous, pair):
    Session.objects.update(expires_at=timezone.now() + timedelta(hours=1))
    refresh(anonymous, pair["refresh_token"])
    assert Session.objects.get().expires_at > timezone.now() + timedelta(days=13)


def test_used_token_is_refused_within_the_grace_period_without_ending_the_session(anonymous, pair):
    new = refresh(anonymous, pair["refresh_token"]).json()
    assert refresh(anonymous, pair["refresh_token"]).status_code == 401
    assert me_status(new["access_token"]) == 200
    assert refresh(anonymous, new["refresh_token"]).status_code == 200


def test_used_token_ends_the_session_after_the_grace_period(anonymous, pair):
    new = refresh(anonymous, pair["refresh_token"]).json()
    backdate_refresh(REUSE_GRACE.total_seconds() + 1)
    assert refresh(anonymous, pair["refresh_token"]).status_code == 401
    assert me_status(new["access_token"]) == 401
    assert refresh(anonymous, new["refresh_token"]).status_code == 401


def test_older_token_ends_the_session(anonymous, pair):
    new = pair
    for _ in range(3):
        new = refresh(anonymous, new["refresh_token"]).json()
    backdate_refresh()
    refresh(anonymous, pair["refresh_token"])
    assert me_status(new["access_token"]) == 401


def test_current_token_works_after_the_grace_period(anonymous, pair):
    backdate_refresh()
    assert refresh(anonymous, pair["refresh_token"]).status_code == 200


def test_expired_token_is_refused(anonymous, pair):
    Session.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    assert refresh(anonymous, pair["refresh_token"]).status_code == 401


@pytest.mark.parametrize("token", ["x", "x.y", ".", "é.ü", "a" * 1000])
def test_forged_token_is_refused(anonymous, pair, token):
    assert refresh(anonymous, token).status_code in {400, 401}
    assert me_status(pair["access_token"]) == 200


def test_forged_token_cannot_end_a_session_by_its_id(anonymous, pair):
    backdate_refresh()
    assert refresh(anonymous, f"{Session.objects.get().pk}.x").status_code == 401
    assert me_status(pair["access_token"]) == 200


def test_access_token_is_not_a_refresh_token(anonymous, pair):
    assert refresh(anonymous, pair["access_token"]).status_code == 401


def test_refresh_token_is_not_an_access_token(pair):
    assert me_status(pair["refresh_token"]) == 401


@pytest.mark.parametrize("body", [{}, {"refresh_token": None}, {"refresh_token": ""}, {"refresh_token": []}])
def test_missing_token_is_named(anonymous, body):
    answer = anonymous.post(URL, body)
    assert (answer.status_code, list(answer.json()["errors"])) == (400, ["refresh_token"])


def test_used_and_forged_tokens_get_the_same_response(anonymous, pair):
    refresh(anonymous, pair["refresh_token"])
    answers = [
        anonymous.post(URL, {"refresh_token": token}, headers={"X-Request-ID": "same"}).content
        for token in (pair["refresh_token"], "x.y")
    ]
    assert answers[0] == answers[1]


@pytest.mark.django_db(transaction=True)
def test_one_of_several_concurrent_refreshes_succeeds(anonymous, pair):
    def attempt(_):
        try:
            return refresh(Client(), pair["refresh_token"])
        finally:
            connections.close_all()

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(attempt, range(8)))
    assert sorted(answer.status_code for answer in answers) == [200] + [401] * 7
    [winner] = [answer.json() for answer in answers if answer.status_code == 200]
    assert me_status(winner["access_token"]) == 200
    assert refresh(anonymous, winner["refresh_token"]).status_code == 200


def test_key_rotation_keeps_tokens_valid(anonymous, pair, settings):
    former, settings.SECRET_KEY = settings.SECRET_KEY, "another key, of which there are fifty characters at least"
    assert me_status(pair["access_token"]) == 401
    settings.SECRET_KEY_FALLBACKS = [former]
    assert me_status(pair["access_token"]) == 200
    settings.SECRET_KEY_FALLBACKS = []
    assert refresh(anonymous, pair["refresh_token"]).status_code == 200
