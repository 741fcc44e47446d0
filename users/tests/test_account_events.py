"""The audit log records account events, successful and failed."""

import pytest
from django.core import mail

from conftest import PASSWORD, Client, mailed_token
from records.audit.models import AuditEntry
from users.mail_tokens import DELETE_ACCOUNT, RESET_PASSWORD, VERIFY_EMAIL, mail_token
from users.models import Session, User

AUTH = "/api/v1/auth"
NEW_PASSWORD = "difference-engine-1822"


@pytest.fixture
def person(make_user):
    return make_user(password=PASSWORD)


@pytest.fixture
def signed_in(person):
    return Client(person)


def events(**conditions):
    entries = AuditEntry.objects.filter(**conditions).exclude(action__in=["create", "update"]).order_by("id")
    return [(entry.action, entry.outcome, entry.user_id) for entry in entries]


def last_event():
    return events()[-1]


# Signing in


def test_login_is_logged(anonymous, person):
    answer = anonymous.post(f"{AUTH}/login", {"username": person.username, "password": PASSWORD})
    [entry] = AuditEntry.objects.filter(action="login")
    assert (entry.outcome, entry.user_id, entry.object_type, entry.object_id, entry.ip, entry.request_id) == (
        "success", person.pk, "users", str(person.pk), "127.0.0.1", answer.headers["X-Request-ID"],
    )  # fmt: skip


def wrong_password(client, person):
    client.post(f"{AUTH}/login", {"username": person.username, "password": "wrong"})


def inactive(client, person):
    User.objects.filter(pk=person.pk).update(is_active=False)
    client.post(f"{AUTH}/login", {"username": person.username, "password": PASSWORD})


def deleted(client, person):
    person.delete()
    client.post(f"{AUTH}/login", {"username": person.username, "password": PASSWORD})


def in_the_admin(client, person):
    client.post("/admin/login/", {"username": person.username, "password": "wrong"}, format="multipart")


def in_the_browsable_api(client, person):
    client.post("/api/login", {"username": person.username, "password": "wrong"}, format="multipart")


FAILED_LOGINS = [wrong_password, inactive, deleted, in_the_admin, in_the_browsable_api]


@pytest.mark.parametrize("fail", FAILED_LOGINS)
def test_failed_login_is_logged_with_its_account(anonymous, person, fail):
    fail(anonymous, person)
    [entry] = AuditEntry.objects.filter(action="login")
    assert (entry.outcome, entry.user_id, entry.ip) == ("failure", person.pk, "127.0.0.1")


def test_failed_login_of_unknown_user_is_logged_without_the_name(anonymous):
    anonymous.post(f"{AUTH}/login", {"username": "secret-typed-here", "password": "wrong"})
    [entry] = AuditEntry.objects.filter(action="login")
    assert (entry.outcome, entry.user_id, entry.object_id) == ("failure", None, None)


def test_refused_login_of_a_locked_account_is_logged(anonymous, person):
    for _ in range(11):
        anonymous.post(f"{AUTH}/login", {"username": person.username, "password": "wrong"})
    assert events() == [("login", "failure", person.pk)] * 11


def test_logged_refusals_are_capped(anonymous, person):
    for _ in range(40):
        anonymous.post("/admin/login/", {"username": person.username, "password": "wrong"}, format="multipart")
    assert events() == [("login", "failure", person.pk)] * 20


def test_login_and_logout_in_the_admin_are_logged(client, superuser):
    User.objects.filter(pk=superuser.user.pk)
    superuser.user.set_password(PASSWORD)
    superuser.user.save()
    client.post("/admin/login/", {"username": superuser.user.username, "password": PASSWORD, "next": "/admin/"})
    client.post("/admin/logout/")
    assert [event[0] for event in events(user_id=superuser.user.pk)][-2:] == ["login", "logout"]


@pytest.mark.parametrize(
    "log_out",
    [
        lambda client: client.post(f"{AUTH}/logout"),
        lambda client: client.delete(f"{AUTH}/sessions"),
        lambda client: client.delete(f"{AUTH}/sessions/{Session.objects.get(user=client.user).pk}"),
    ],
)
def test_logout_is_logged(signed_in, log_out):
    assert log_out(signed_in).status_code == 204
    assert last_event() == ("logout", "success", signed_in.user.pk)


def test_sign_out_in_the_admin_is_logged(client, superuser, signed_in):
    client.force_login(superuser.user)
    session = Session.objects.get(user=signed_in.user)
    client.post("/admin/users/session/", {"action": "end", "_selected_action": str(session.pk)})
    entry = AuditEntry.objects.latest("id")
    assert (entry.action, entry.user_id, entry.owner_id) == ("logout", superuser.user.pk, signed_in.user.pk)


# Passwords


def test_password_change_is_logged(signed_in):
    body = {"current_password": PASSWORD, "new_password": NEW_PASSWORD}
    signed_in.post(f"{AUTH}/change-password", body)
    assert last_event() == ("password_change", "success", signed_in.user.pk)


@pytest.mark.parametrize(
    "body",
    [{"current_password": "wrong", "new_password": NEW_PASSWORD}, {"current_password": PASSWORD, "new_password": "1"}],
)
def test_failed_password_change_is_logged(signed_in, body):
    assert signed_in.post(f"{AUTH}/change-password", body).status_code == 400
    assert last_event() == ("password_change", "failure", signed_in.user.pk)


def test_password_set_in_the_admin_is_logged(client, superuser, person):
    client.force_login(superuser.user)
    form = {"usable_password": "true", "password1": NEW_PASSWORD, "password2": NEW_PASSWORD}
    assert client.post(f"/admin/users/user/{person.pk}/password/", form).status_code == 302
    entry = AuditEntry.objects.filter(action="password_change").get()
    assert (entry.user_id, entry.owner_id, entry.changes) == (superuser.user.pk, person.pk, {})


def test_password_reset_is_logged_once(anonymous, person):
    anonymous.post(
        f"{AUTH}/reset-password", {"token": mail_token(RESET_PASSWORD, person), "new_password": NEW_PASSWORD}
    )
    assert events() == [("password_reset", "success", person.pk)]


def test_failed_password_reset_is_logged_with_its_account(anonymous, person):
    token = mail_token(RESET_PASSWORD, person)
    anonymous.post(f"{AUTH}/reset-password", {"token": token, "new_password": NEW_PASSWORD})
    anonymous.post(f"{AUTH}/reset-password", {"token": token, "new_password": NEW_PASSWORD})
    anonymous.post(f"{AUTH}/reset-password", {"token": "forged", "new_password": NEW_PASSWORD})
    assert events()[1:] == [("password_reset", "failure", person.pk), ("password_reset", "failure", None)]


def test_password_rehash_is_not_logged(anonymous, person, settings):
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.PBKDF2PasswordHasher", *settings.PASSWORD_HASHERS]
    anonymous.post(f"{AUTH}/login", {"username": person.username, "password": PASSWORD})
    assert events() == [("login", "success", person.pk)]


# The account


def test_registration_is_logged_with_its_values(anonymous):
    body = {"username": "ada", "email": "ada@example.com", "password": PASSWORD, "name": "Ada"}
    user_id = anonymous.post(f"{AUTH}/register", body).json()["id"]
    [entry] = AuditEntry.objects.of_row(User, user_id)
    assert (entry.action, entry.user_id, entry.owner_id) == ("register", user_id, user_id)
    assert (entry.changes["name"], "password" in entry.changes) == ([None, "Ada"], False)


def test_failed_registration_is_logged(anonymous, person):
    anonymous.post(f"{AUTH}/register", {"username": person.username, "email": "a@example.com", "password": PASSWORD})
    assert events() == [("register", "failure", None)]


def test_concurrent_registration_failure_is_logged(anonymous, person, monkeypatch):
    monkeypatch.setattr("records.db.constraints.Unique.validate", lambda *args, **kwargs: None)
    body = {"username": person.username, "email": "a@example.com", "password": PASSWORD}
    assert anonymous.post(f"{AUTH}/register", body).status_code == 400
    assert events() == [("register", "failure", None)]


def test_verification_of_a_verified_address_is_logged(anonymous, signed_in):
    User.objects.filter(pk=signed_in.user.pk).update(is_verified=True)
    token = mail_token(VERIFY_EMAIL, signed_in.user)
    assert anonymous.post(f"{AUTH}/verify-email", {"token": token}).status_code == 204
    assert last_event() == ("email_verify", "success", signed_in.user.pk)


def test_token_of_a_purged_user_is_logged_without_the_user(anonymous, person):
    token = mail_token(RESET_PASSWORD, person)
    User.all_objects.filter(pk=person.pk).purge()
    anonymous.post(f"{AUTH}/reset-password", {"token": token, "new_password": NEW_PASSWORD})
    assert last_event() == ("password_reset", "failure", None)


def test_verification_is_logged(anonymous, person):
    token = mail_token(VERIFY_EMAIL, person)
    for _ in range(2):
        anonymous.post(f"{AUTH}/verify-email", {"token": token})
    assert events() == [("email_verify", "success", person.pk), ("email_verify", "failure", person.pk)]


def test_account_deletion_is_logged_step_by_step(signed_in, anonymous):
    signed_in.post(f"{AUTH}/request-account-deletion")
    token = mailed_token()
    anonymous.post(f"{AUTH}/confirm-account-deletion", {"token": token})
    signed_in.post(f"{AUTH}/cancel-account-deletion")
    anonymous.post(f"{AUTH}/confirm-account-deletion", {"token": token})
    assert [(action, outcome) for action, outcome, user in events(user_id=signed_in.user.pk)][1:] == [
        ("deletion_request", "success"),
        ("deletion_confirm", "success"),
        ("deletion_cancel", "success"),
        ("deletion_confirm", "failure"),
    ]


def test_deletion_request_without_an_address_is_logged_as_failure(signed_in):
    User.objects.filter(pk=signed_in.user.pk).update(email=None)
    assert signed_in.post(f"{AUTH}/request-account-deletion").status_code == 400
    assert last_event() == ("deletion_request", "failure", signed_in.user.pk)


def test_confirmed_deletion_can_be_undone_from_the_log(superuser, anonymous, person):
    anonymous.post(f"{AUTH}/confirm-account-deletion", {"token": mail_token(DELETE_ACCOUNT, person)})
    entry = AuditEntry.objects.get(action="deletion_confirm")
    assert superuser.post(f"/api/v1/admin/audit-logs/{entry.pk}/undo").status_code == 200
    assert User.objects.get(pk=person.pk).deletion_at is None


# Secrets


def test_entries_contain_no_secret(anonymous, superuser):
    body = {"username": "ada", "email": "ada@example.com", "password": PASSWORD}
    anonymous.post(f"{AUTH}/register", body)
    verification = mailed_token()
    pair = anonymous.post(f"{AUTH}/login", {"username": "ada", "password": PASSWORD}).json()
    anonymous.post(f"{AUTH}/verify-email", {"token": verification})
    anonymous.post(f"{AUTH}/login", {"username": PASSWORD, "password": NEW_PASSWORD})
    user = User.objects.get(username="ada")
    Client(user).post(f"{AUTH}/change-password", {"current_password": PASSWORD, "new_password": NEW_PASSWORD})
    secrets = [
        PASSWORD,
        NEW_PASSWORD,
        user.password,
        User.objects.get(pk=user.pk).password,
        verification,
        *pair.values(),
    ]
    audit_log = superuser.get("/api/v1/admin/audit-logs?size=200").content.decode()
    assert mail.outbox
    assert not [secret for secret in secrets if isinstance(secret, str) and len(secret) > 6 and secret in audit_log]
