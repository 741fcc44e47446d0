import uuid

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from conftest import Client
from users.models import Session

URL = "/api/v1/auth/sessions"
FIELDS = ["id", "created_at", "refreshed_at", "expires_at", "ip", "user_agent", "current"]


def test_user_lists_own_sessions(owner, stranger):
    answer = owner.get(URL).json()
    assert (answer["total"], list(answer["items"][0])) == (1, FIELDS)
    assert answer["items"][0]["id"] == str(Session.objects.get(user=owner.user).pk)


def test_superuser_lists_only_own_sessions(superuser, owner):
    assert superuser.get(URL).json()["total"] == 1


def test_list_starts_with_the_newest_session_and_marks_the_current_one(owner):
    Client(owner.user)
    assert [session["current"] for session in owner.get(URL).json()["items"]] == [False, True]


@pytest.mark.parametrize("key", ["id", "created_at", "-created_at", "refreshed_at"])
def test_sessions_are_paged_by_cursor_with_every_sort(owner, key):
    for _ in range(4):
        Client(owner.user)
    session_ids, link = [], f"{URL}?cursor=&size=2&sort_by={key}"
    while link:
        page = owner.get(link).json()
        session_ids += [session["id"] for session in page["items"]]
        link = page["links"]["next"]
    assert len(session_ids) == len(set(session_ids)) == 5


def test_ended_and_expired_sessions_are_not_listed(owner):
    Client(owner.user), Client(owner.user)
    ended, expired = Session.objects.filter(user=owner.user).order_by("-created_at")[:2]
    ended.end()
    Session.objects.filter(pk=expired.pk).update(expires_at="2020-01-01T00:00:00Z")
    assert owner.get(URL).json()["total"] == 1


def test_deleted_session_ends_immediately(owner):
    other = Client(owner.user)
    [current_id] = [session["id"] for session in other.get(URL).json()["items"] if session["current"]]
    assert owner.delete(f"{URL}/{current_id}").status_code == 204
    assert other.get(URL).status_code == 401
    assert owner.get(URL).json()["total"] == 1


def test_deleting_all_sessions_ends_them_immediately(owner):
    other = Client(owner.user)
    assert owner.delete(URL).status_code == 204
    assert [owner.get(URL).status_code, other.get(URL).status_code] == [401, 401]


def test_sessions_of_other_users_stay_valid(owner, stranger):
    owner.delete(URL)
    assert stranger.get(URL).status_code == 200


@pytest.mark.parametrize("method", ["get", "delete"])
def test_stranger_and_superuser_cannot_end_a_session(owner, stranger, superuser, method):
    session_id = Session.objects.get(user=owner.user).pk
    for client in (stranger, superuser):
        missing = client.delete(f"{URL}/{uuid.uuid4()}", headers={"X-Request-ID": "same"})
        answer = client.delete(f"{URL}/{session_id}", headers={"X-Request-ID": "same"})
        assert answer.status_code == missing.status_code == 404
    assert owner.get(URL).status_code == 200


@pytest.mark.parametrize("identifier", ["abc", "1", "%00", "0" * 32, str(10**30)])
def test_invalid_session_id_is_not_found(owner, identifier):
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


def test_list_hides_tokens_and_their_hashes(owner):
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
def test_session_address_is_read_from_trusted_proxies(anonymous, make_user, settings, proxies, forwarded, ip):
    settings.TRUSTED_PROXIES = proxies
    user = make_user(password="a-fine-battery-7")
    login = {"username": user.username, "password": "a-fine-battery-7"}
    anonymous.post("/api/v1/auth/login", login, REMOTE_ADDR="192.0.2.1", HTTP_X_FORWARDED_FOR=forwarded)
    assert Session.objects.get(user=user).ip == ip


def test_superuser_ends_sessions_in_the_admin(anonymous, superuser, owner):
    anonymous.force_login(superuser.user)
    session_id = Session.objects.get(user=owner.user)
    page = anonymous.get("/admin/users/session/").content.decode()
    assert owner.user.username in page
    form = {"action": "end", "_selected_action": str(session_id.pk)}
    anonymous.generic("POST", "/admin/users/session/", "&".join(f"{k}={v}" for k, v in form.items()),
                      content_type="application/x-www-form-urlencoded")  # fmt: skip
    assert owner.get(URL).status_code == 401
