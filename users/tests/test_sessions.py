import uuid

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from conftest import Client
from users.models import Session

URL = "/api/v1/auth/sessions"
FIELDS = ["id", "created_at", "refreshed_at", "expires_at", "ip", "user_agent", "current"]


def test_sessions_are_a_list_of_ones_own(owner, stranger):
    answer = owner.get(URL).json()
    assert (answer["total"], list(answer["items"][0])) == (1, FIELDS)
    assert answer["items"][0]["id"] == str(Session.objects.get(user=owner.user).pk)


def test_staff_see_their_own_sessions_only(superuser, owner):
    assert superuser.get(URL).json()["total"] == 1


def test_newest_session_comes_first_and_the_present_one_is_marked(owner):
    Client(owner.user)
    assert [each["current"] for each in owner.get(URL).json()["items"]] == [False, True]


@pytest.mark.parametrize("key", ["id", "created_at", "-created_at", "refreshed_at"])
def test_sessions_are_paged_by_cursor_under_every_sort(owner, key):
    for _ in range(4):
        Client(owner.user)
    found, link = [], f"{URL}?cursor=&size=2&sort_by={key}"
    while link:
        page = owner.get(link).json()
        found += [each["id"] for each in page["items"]]
        link = page["links"]["next"]
    assert len(found) == len(set(found)) == 5


def test_ended_and_expired_sessions_are_not_listed(owner):
    Client(owner.user), Client(owner.user)
    ended, expired = Session.objects.filter(user=owner.user).order_by("-created_at")[:2]
    ended.end()
    Session.objects.filter(pk=expired.pk).update(expires_at="2020-01-01T00:00:00Z")
    assert owner.get(URL).json()["total"] == 1


def test_session_ends_at_once(owner):
    other = Client(owner.user)
    [present] = [each["id"] for each in other.get(URL).json()["items"] if each["current"]]
    assert owner.delete(f"{URL}/{present}").status_code == 204
    assert other.get(URL).status_code == 401
    assert owner.get(URL).json()["total"] == 1


def test_all_sessions_end_at_once(owner):
    other = Client(owner.user)
    assert owner.delete(URL).status_code == 204
    assert [owner.get(URL).status_code, other.get(URL).status_code] == [401, 401]


def test_sessions_of_others_go_on(owner, stranger):
    owner.delete(URL)
    assert stranger.get(URL).status_code == 200


@pytest.mark.parametrize("method", ["get", "delete"])
def test_stranger_does_not_see_a_session(owner, stranger, superuser, method):
    theirs = Session.objects.get(user=owner.user).pk
    for client in (stranger, superuser):
        missing = client.delete(f"{URL}/{uuid.uuid4()}", headers={"X-Request-ID": "same"})
        answer = client.delete(f"{URL}/{theirs}", headers={"X-Request-ID": "same"})
        assert answer.status_code == missing.status_code == 404
    assert owner.get(URL).status_code == 200


@pytest.mark.parametrize("identifier", ["abc", "1", "%00", "0" * 32, str(10**30)])
def test_session_that_cannot_be_is_not_found(owner, identifier):
    assert owner.delete(f"{URL}/{identifier}").status_code == 404


def test_unknown_parameter_is_refused(owner):
    assert owner.get(f"{URL}?user_id=1").status_code == 400


def test_list_costs_two_queries_for_any_length(owner):
    counts = []
    for _ in range(2):
        with CaptureQueriesContext(connection) as queries:
            owner.get(URL)
        counts.append(len(queries))
        for _ in range(5):
            Client(owner.user)
    assert counts == [2, 2]


def test_tokens_and_their_hashes_are_not_shown(owner):
    session = Session.objects.get(user=owner.user)
    token = session.next_refresh_token()
    session.refresh_from_db()
    text = owner.get(URL).content.decode()
    for secret in (token, session.refresh_hash, session.family_hash):
        assert secret not in text


@pytest.mark.parametrize(
    ("proxies", "forwarded", "ip"),
    [
        (0, "203.0.113.9", "192.0.2.1"),
        (1, "203.0.113.9", "203.0.113.9"),
        (1, "10.9.9.9, 203.0.113.9", "203.0.113.9"),
        (2, "10.9.9.9, 203.0.113.9, 198.51.100.2", "203.0.113.9"),
        (2, "203.0.113.9", "203.0.113.9"),
        (1, "203.0.113.9:4711", "203.0.113.9"),
        (1, "[2001:db8::9]:4711", "2001:db8::9"),
        (1, "2001:db8::9", "2001:db8::9"),
        (1, "::ffff:203.0.113.9", "203.0.113.9"),
        (1, "not an address", "192.0.2.1"),
        (1, "", "192.0.2.1"),
    ],
)
def test_address_is_what_trusted_proxies_say(anonymous, make_user, settings, proxies, forwarded, ip):
    settings.TRUSTED_PROXIES = proxies
    user = make_user(password="a-fine-battery-7")
    login = {"username": user.username, "password": "a-fine-battery-7"}
    anonymous.post("/api/v1/auth/login", login, REMOTE_ADDR="192.0.2.1", HTTP_X_FORWARDED_FOR=forwarded)
    assert Session.objects.get(user=user).ip == ip


def test_superuser_signs_devices_out_in_the_admin(anonymous, superuser, owner):
    anonymous.force_login(superuser.user)
    theirs = Session.objects.get(user=owner.user)
    page = anonymous.get("/admin/users/session/").content.decode()
    assert owner.user.username in page
    chosen = {"action": "end", "_selected_action": str(theirs.pk)}
    anonymous.generic("POST", "/admin/users/session/", "&".join(f"{k}={v}" for k, v in chosen.items()),
                      content_type="application/x-www-form-urlencoded")  # fmt: skip
    assert owner.get(URL).status_code == 401
