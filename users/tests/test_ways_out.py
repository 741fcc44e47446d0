"""After each way out, the very next request is refused: by access token, by refresh token, by browser session."""

import pytest
from asgiref.sync import async_to_sync

from conftest import PASSWORD, Client, mailed_token
from users import mail
from users.mail_tokens import RESET_PASSWORD, mail_token
from users.models import Session, User
from users.models.session import Device as SessionDevice

NEW = "a-quite-different-one-8"


class Device:
    """Signed in both ways, as the same person."""

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
    body = {"current_password": PASSWORD, "new_password": NEW}
    assert Client(user).post("/api/v1/auth/change-password", body).status_code == 204


def reset_password(device, user, superuser):
    body = {"token": mail_token(RESET_PASSWORD, user), "new_password": NEW}
    assert Client().post("/api/v1/auth/reset-password", body).status_code == 204


def set_password_in_the_shell(device, user, superuser):
    user.set_password(NEW)
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


WAYS = [
    log_out, end_each_session, end_all_sessions, change_password, reset_password, set_password_in_the_shell,
    assign_a_hash_in_the_shell, deactivate, deactivate_in_the_shell,
    deactivate_in_bulk, delete, purge,
]  # fmt: skip


@pytest.mark.parametrize("use", [Device.access, Device.refresh, Device.browse])
@pytest.mark.parametrize("way_out", WAYS)
def test_next_request_is_refused(device, user, superuser, way_out, use):
    assert use(device).status_code == 200
    if use is Device.refresh:
        device = Device(user)
    way_out(device, user, superuser)
    assert use(device).status_code == 401


@pytest.mark.parametrize("use", [Device.access, Device.refresh, Device.browse])
@pytest.mark.parametrize("way_out", [deactivate, deactivate_in_the_shell, deactivate_in_bulk])
def test_reactivation_revives_no_session(device, user, superuser, way_out, use):
    way_out(device, user, superuser)
    User.objects.filter(pk=user.pk).update(is_active=True)
    assert use(device).status_code == 401


@pytest.mark.parametrize("way_out", [change_password, end_all_sessions, deactivate])
def test_others_stay_signed_in(device, user, superuser, make_user, way_out):
    other = Device(make_user(password=PASSWORD))
    way_out(device, user, superuser)
    assert [other.access().status_code, other.browse().status_code, other.refresh().status_code] == [200] * 3


def test_logout_by_token_leaves_the_browser_signed_in(device):
    device.program.post("/api/v1/auth/logout")
    assert device.browse().status_code == 200


def test_logout_on_the_page_ends_the_session_of_the_cookie_for_good(device):
    kept = device.browser.cookies["sessionid"].value
    device.browser.post("/api/logout")
    device.browser.cookies["sessionid"] = kept
    assert device.browse().status_code == 401


def test_logout_in_the_admin_does_too(superuser):
    browser = Client()
    browser.force_login(superuser.user)
    kept = browser.cookies["sessionid"].value
    browser.post("/admin/logout/")
    browser.cookies["sessionid"] = kept
    assert browser.get("/api/v1/users/me").status_code == 401


@pytest.mark.parametrize("path", ["logout", "sessions", "change-password"])
def test_anonymous_is_refused(anonymous, path):
    assert anonymous.post(f"/api/v1/auth/{path}", {}).status_code == 401


def test_browser_session_needs_a_csrf_token_to_write(user):
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


def test_only_a_browser_session_is_exchanged(owner, anonymous):
    assert [owner.post("/api/v1/auth/token").status_code, anonymous.post("/api/v1/auth/token").status_code] == [401] * 2


def test_browser_login_is_a_session_among_the_others(device):
    assert device.browser.get("/api/v1/auth/sessions").json()["total"] == 2


def test_every_login_in_the_same_browser_leaves_one_session(user):
    browser = Client()
    for _ in range(3):
        browser.force_login(user)
    assert Session.objects.alive().filter(user=user).count() == 1


@pytest.mark.parametrize("signed_in", ["program", "browser"])
def test_authentication_costs_one_query(device, signed_in, django_assert_num_queries):
    with django_assert_num_queries(2):  # the other one reads the row
        getattr(device, signed_in).get("/api/v1/users/me")


def test_login_that_runs_while_the_password_changes_opens_no_session(user):
    seen = User.objects.get(pk=user.pk)
    user.set_password(NEW)
    user.save()
    assert Session.objects.start(seen, SessionDevice(None, "")) is None


def test_login_that_runs_while_the_person_is_deactivated_opens_no_session(user):
    seen = User.objects.get(pk=user.pk)
    User.objects.filter(pk=user.pk).update(is_active=False)
    assert Session.objects.start(seen, SessionDevice(None, "")) is None


def test_session_that_has_just_ended_gives_no_other_one(user):
    ended = Session.objects.start(user, SessionDevice(None, ""))
    Session.objects.sign_out_user(user)
    assert Session.objects.start(user, SessionDevice(None, ""), by=ended) is None


def test_django_itself_does_not_believe_the_cookie_of_an_ended_session(user):
    browser = Client()
    browser.force_login(user)
    Session.objects.sign_out_user(user)
    request = browser.get("/api/login").wsgi_request
    assert not request.user.is_authenticated
    assert not async_to_sync(request.auser)().is_authenticated


def test_better_hash_of_the_same_password_ends_no_session(device, user, settings):
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.PBKDF2PasswordHasher", *settings.PASSWORD_HASHERS]
    login = {"username": user.username, "password": PASSWORD}
    assert Client().post("/api/v1/auth/login", login).status_code == 200
    assert User.objects.get(pk=user.pk).password.startswith("pbkdf2_sha256$")
    assert [device.access().status_code, device.browse().status_code] == [200, 200]


def test_mail_of_the_reset_resets(anonymous, user, mailoutbox):
    mail.queue_password_reset(user)
    body = {"token": mailed_token(), "new_password": NEW}
    assert anonymous.post("/api/v1/auth/reset-password", body).status_code == 204
    assert anonymous.post("/api/v1/auth/login", {"username": user.username, "password": NEW}).status_code == 200
