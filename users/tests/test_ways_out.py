"""Events that end sessions take effect on the next request, by access token, refresh token or cookie."""

import pytest
from asgiref.sync import async_to_sync

from conftest import PASSWORD, Client, mailed_token
from users import mail
from users.mail_tokens import RESET_PASSWORD, mail_token
from users.models import Session, User
from users.models.session import Device as SessionDevice

NEW_PASSWORD = "a-quite-different-one-8"


class Device:
    """A user's API client and browser, both signed in."""

    def __init__(self, user):
        self.program, self.browser = Client(), Client()
        login = self.program.post("/api/v1/auth/login", {"username": user.username, "password": PASSWORD}).json()
        self.program.credentials(HTTP_AUTHORIZATION=f"Bearer {login['access_token']}")
        self.refresh_token = login["refresh_token"]
        self.browser.force_login(user)

    def access(self):
        return self.program.get("/api/v1/users/me")

    def refresh(self):
        return Client().post("/api/v1/auth/refresh", {"refresh_token": self.refresh_token})

    def browse(self):
        return self.browser.get("/api/v1/users/me")


@pytest.fixture
def user(make_user):
    return make_user(password=PASSWORD)


@pytest.fixture
def device(user):
    return Device(user)


def log_out(device, user, superuser):
    assert device.program.post("/api/v1/auth/logout").status_code == 204
    assert device.browser.post("/api/v1/auth/logout").status_code == 204


def end_each_session(device, user, superuser):
    other = Client(user)
    for session in other.get("/api/v1/auth/sessions").json()["items"]:
        if not session["current"]:
            assert other.delete(f"/api/v1/auth/sessions/{session['id']}").status_code == 204


def end_all_sessions(device, user, superuser):
    assert Client(user).delete("/api/v1/auth/sessions").status_code == 204


def change_password(device, user, superuser):
    body = {"current_password": PASSWORD, "new_password": NEW_PASSWORD}
    assert Client(user).post("/api/v1/auth/change-password", body).status_code == 204


def reset_password(device, user, superuser):
    body = {"token": mail_token(RESET_PASSWORD, user), "new_password": NEW_PASSWORD}
    assert Client().post("/api/v1/auth/reset-password", body).status_code == 204


def set_password_in_the_shell(device, user, superuser):
    user.set_password(NEW_PASSWORD)
    user.save()


def assign_a_hash_in_the_shell(device, user, superuser):
    User.objects.filter(pk=user.pk).update(password="!unusable")


def deactivate(device, user, superuser):
    assert superuser.patch(f"/api/v1/users/{user.pk}", {"is_active": False}).status_code == 200


def deactivate_in_the_shell(device, user, superuser):
    User.objects.filter(pk=user.pk).update(is_active=False)


def deactivate_in_bulk(device, user, superuser):
    user.is_active = False
    User.objects.bulk_update([user], ["is_active"])


def delete(device, user, superuser):
    assert superuser.delete(f"/api/v1/users/{user.pk}").status_code == 204


def purge(device, user, superuser):
    assert superuser.delete(f"/api/v1/users/{user.pk}?permanent=true").status_code == 204


END_EVENTS = [
    log_out, end_each_session, end_all_sessions, change_password, reset_password, set_password_in_the_shell,
    assign_a_hash_in_the_shell, deactivate, deactivate_in_the_shell,
    deactivate_in_bulk, delete, purge,
]  # fmt: skip


@pytest.mark.parametrize("use", [Device.access, Device.refresh, Device.browse])
@pytest.mark.parametrize("end_event", END_EVENTS)
def test_ended_session_is_refused_on_the_next_request(device, user, superuser, end_event, use):
    assert use(device).status_code == 200
    if use is Device.refresh:
        device = Device(user)
    end_event(device, user, superuser)
    assert use(device).status_code == 401


@pytest.mark.parametrize("use", [Device.access, Device.refresh, Device.browse])
@pytest.mark.parametrize("end_event", [deactivate, deactivate_in_the_shell, deactivate_in_bulk])
def test_reactivation_restores_no_session(device, user, superuser, end_event, use):
    end_event(device, user, superuser)
    User.objects.filter(pk=user.pk).update(is_active=True)
    assert use(device).status_code == 401


@pytest.mark.parametrize("end_event", [change_password, end_all_sessions, deactivate])
def test_sessions_of_other_users_stay_valid(device, user, superuser, make_user, end_event):
    other = Device(make_user(password=PASSWORD))
    end_event(device, user, superuser)
    assert [other.access().status_code, other.browse().status_code, other.refresh().status_code] == [200] * 3


def test_logout_by_token_keeps_the_browser_session(device):
    device.program.post("/api/v1/auth/logout")
    assert device.browse().status_code == 200


def test_logout_page_ends_the_cookie_session_permanently(device):
    cookie = device.browser.cookies["sessionid"].value
    device.browser.post("/api/logout")
    device.browser.cookies["sessionid"] = cookie
    assert device.browse().status_code == 401


def test_admin_logout_ends_the_cookie_session_permanently(superuser):
    browser = Client()
    browser.force_login(superuser.user)
    cookie = browser.cookies["sessionid"].value
    browser.post("/admin/logout/")
    browser.cookies["sessionid"] = cookie
    assert browser.get("/api/v1/users/me").status_code == 401


@pytest.mark.parametrize("path", ["logout", "sessions", "change-password"])
def test_anonymous_is_refused(anonymous, path):
    assert anonymous.post(f"/api/v1/auth/{path}", {}).status_code == 401


def test_browser_session_requires_a_csrf_token_to_write(user):
    browser = Client()
    browser.handler.enforce_csrf_checks = True
    browser.force_login(user)
    assert browser.get("/api/v1/users/me").status_code == 200
    for path in ("auth/logout", "auth/token", "auth/sessions"):
        answer = getattr(browser, "delete" if path.endswith("sessions") else "post")(f"/api/v1/{path}")
        assert (answer.status_code, answer["Content-Type"]) == (403, "application/problem+json")
    assert browser.get("/api/v1/users/me").status_code == 200


def test_browser_session_is_exchanged_for_tokens(device):
    answer = device.browser.post("/api/v1/auth/token")
    assert (answer.status_code, answer.json()["token_type"]) == (200, "bearer")
    program = Client()
    program.credentials(HTTP_AUTHORIZATION=f"Bearer {answer.json()['access_token']}")
    assert program.get("/api/v1/users/me").status_code == 200
    assert program.post("/api/v1/auth/refresh", {"refresh_token": answer.json()["refresh_token"]}).status_code == 200


def test_token_exchange_requires_a_browser_session(owner, anonymous):
    assert [owner.post("/api/v1/auth/token").status_code, anonymous.post("/api/v1/auth/token").status_code] == [401] * 2


def test_browser_login_is_listed_as_a_session(device):
    assert device.browser.get("/api/v1/auth/sessions").json()["total"] == 2


def test_repeated_login_in_one_browser_keeps_one_session(user):
    browser = Client()
    for _ in range(3):
        browser.force_login(user)
    assert Session.objects.alive().filter(user=user).count() == 1


@pytest.mark.parametrize("signed_in", ["program", "browser"])
def test_authentication_costs_one_query(device, signed_in, django_assert_num_queries):
    with django_assert_num_queries(2):  # the other one reads the row
        getattr(device, signed_in).get("/api/v1/users/me")


def test_login_during_a_password_change_opens_no_session(user):
    loaded = User.objects.get(pk=user.pk)
    user.set_password(NEW_PASSWORD)
    user.save()
    assert Session.objects.start(loaded, SessionDevice(None, "")) is None


def test_login_during_deactivation_opens_no_session(user):
    loaded = User.objects.get(pk=user.pk)
    User.objects.filter(pk=user.pk).update(is_active=False)
    assert Session.objects.start(loaded, SessionDevice(None, "")) is None


def test_ended_session_cannot_start_another(user):
    ended = Session.objects.start(user, SessionDevice(None, ""))
    Session.objects.sign_out_user(user)
    assert Session.objects.start(user, SessionDevice(None, ""), by=ended) is None


def test_ended_session_is_unauthenticated_in_django_requests(user):
    browser = Client()
    browser.force_login(user)
    Session.objects.sign_out_user(user)
    request = browser.get("/api/login").wsgi_request
    assert not request.user.is_authenticated
    assert not async_to_sync(request.auser)().is_authenticated


def test_password_rehash_keeps_sessions(device, user, settings):
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.PBKDF2PasswordHasher", *settings.PASSWORD_HASHERS]
    login = {"username": user.username, "password": PASSWORD}
    assert Client().post("/api/v1/auth/login", login).status_code == 200
    assert User.objects.get(pk=user.pk).password.startswith("pbkdf2_sha256$")
    assert [device.access().status_code, device.browse().status_code] == [200, 200]


def test_mailed_token_resets_the_password(anonymous, user, mailoutbox):
    mail.queue_password_reset(user)
    body = {"token": mailed_token(), "new_password": NEW_PASSWORD}
    assert anonymous.post("/api/v1/auth/reset-password", body).status_code == 204
    assert (
        anonymous.post("/api/v1/auth/login", {"username": user.username, "password": NEW_PASSWORD}).status_code == 200
    )
