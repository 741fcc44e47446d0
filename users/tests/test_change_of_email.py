"""A stolen access token alone cannot change credentials, and every change notifies the account's owner."""

from datetime import timedelta

import pytest
from django.contrib.auth.models import Permission
from django.core import mail
from django.utils import timezone

from conftest import PASSWORD, Client, mailed_token
from records.audit.models import AuditEntry
from records.tests.browser import opened_form
from users.mail_tokens import CHANGE_EMAIL, RESET_PASSWORD, VERIFY_EMAIL, mail_token
from users.models import RateLimit, Session, User
from users.oidc.claims import ProviderClaims

AUTH = "/api/v1/auth"
ME = "/api/v1/users/me"
NEW_EMAIL = "new@example.com"
CONFIRMED_CHANGE = {"email": NEW_EMAIL, "current_password": PASSWORD}


@pytest.fixture
def ada(make_user):
    return make_user(username="ada-lovelace", email="ada@example.com", password=PASSWORD, is_verified=True)


@pytest.fixture
def client(ada):
    return Client(ada)


@pytest.fixture(params=["owner", "staff", "superuser"])
def own_client(request, make_user):
    """Return a client: of an ordinary user, of staff with all permissions, or of a superuser."""
    role = {"is_staff": request.param != "owner", "is_superuser": request.param == "superuser"}
    user = make_user(email="ada@example.com", password=PASSWORD, is_verified=True, **role)
    if request.param == "staff":
        user.user_permissions.set(Permission.objects.all())
    return Client(user)


def stored(user):
    return User.all_objects.get(pk=user.pk)


def verify(token):
    return Client().post(f"{AUTH}/verify-email", {"token": token})


def recipients_and_subjects():
    """Return recipient and subject of every mail."""
    return [(message.to[0], message.subject) for message in mail.outbox]


def recipients_of(text):
    return [message.to[0] for message in mail.outbox if text in message.body]


# Changing one's own address


@pytest.mark.parametrize("method", ["put", "patch"])
@pytest.mark.parametrize("path", ["/me", "/{id}"])
@pytest.mark.parametrize("password", [None, "wrong", ""])
def test_own_address_change_requires_the_password(own_client, method, path, password):
    body = {"email": NEW_EMAIL} | ({} if password is None else {"current_password": password})
    answer = getattr(own_client, method)(f"/api/v1/users{path}".format(id=own_client.user.pk), body)
    assert (answer.status_code, list(answer.json()["errors"])) == (400, ["current_password"])
    assert (stored(own_client.user).email, stored(own_client.user).pending_email) == ("ada@example.com", None)
    assert not mail.outbox


@pytest.mark.parametrize("path", ["/me", "/{id}"])
def test_own_address_changes_after_confirmation(own_client, path):
    answer = own_client.patch(
        f"/api/v1/users{path}".format(id=own_client.user.pk), CONFIRMED_CHANGE | {"bio": "Engines."}
    )
    assert (answer.status_code, answer.json()["email"], answer.json()["bio"]) == (200, "ada@example.com", "Engines.")
    row = own_client.get(ME).json()
    assert (row["email"], row["pending_email"], row["is_verified"]) == ("ada@example.com", NEW_EMAIL, True)
    assert verify(mailed_token()).status_code == 204
    row = own_client.get(ME).json()
    assert (row["email"], row["pending_email"], row["is_verified"]) == (NEW_EMAIL, None, True)


def test_address_change_notifies_both_addresses_on_request_and_on_confirmation(client):
    client.patch(ME, CONFIRMED_CHANGE)
    token = mailed_token()
    assert [address for address, _ in recipients_and_subjects()] == ["ada@example.com", NEW_EMAIL]
    assert NEW_EMAIL in mail.outbox[0].body
    mail.outbox.clear()
    verify(token)
    assert recipients_of(f"changed to {NEW_EMAIL}") == ["ada@example.com", NEW_EMAIL]


def test_token_is_bound_to_the_pending_address(client, ada):
    client.patch(ME, CONFIRMED_CHANGE)
    token = mailed_token()
    client.patch(ME, CONFIRMED_CHANGE | {"email": "other@example.com"})
    assert verify(token).status_code == 400
    assert verify(mailed_token()).status_code == 204
    assert stored(ada).email == "other@example.com"


def test_token_of_the_current_address_does_not_confirm_the_pending_one(client, ada):
    token = mail_token(VERIFY_EMAIL, ada)
    client.patch(ME, CONFIRMED_CHANGE)
    assert verify(token).status_code == 204
    assert (stored(ada).email, stored(ada).pending_email) == ("ada@example.com", NEW_EMAIL)


def test_wrong_passwords_share_a_counter_with_change_password(client):
    for number in range(10):
        guess = {"email": f"{number}@example.com", "current_password": "wrong"}
        assert client.patch(ME, guess).status_code == 400
    assert client.patch(ME, CONFIRMED_CHANGE).status_code == 429
    body = {"current_password": PASSWORD, "new_password": "difference-engine-1822"}
    assert client.post(f"{AUTH}/change-password", body).status_code == 429


def test_concurrent_password_change_prevents_confirmation(client, ada, monkeypatch):
    from users import confirmation

    def confirm_and_reset(user, password):
        other = stored(ada)
        other.set_password("difference-engine-1822")
        other.save()

    monkeypatch.setattr(confirmation, "confirm_password", confirm_and_reset)
    assert client.patch(ME, CONFIRMED_CHANGE).status_code == 400
    assert stored(ada).pending_email is None


@pytest.mark.parametrize("value", [1, True, [], {}, None])
def test_password_of_wrong_type_is_refused(client, value):
    answer = client.patch(ME, {"email": NEW_EMAIL, "current_password": value})
    assert (answer.status_code, list(answer.json()["errors"])) == (400, ["current_password"])


def test_same_address_without_password_keeps_the_pending_change(client, ada):
    client.patch(ME, CONFIRMED_CHANGE)
    assert client.patch(ME, {"email": "ada@example.com", "bio": "x"}).status_code == 200
    assert stored(ada).pending_email == NEW_EMAIL


def test_same_address_with_password_cancels_the_pending_change(client, ada):
    client.patch(ME, CONFIRMED_CHANGE)
    token = mailed_token()
    client.patch(ME, {"email": "ada@example.com", "current_password": PASSWORD})
    assert client.get(ME).json()["pending_email"] is None
    assert verify(token).status_code == 400


def test_removing_the_address_requires_the_password(client, ada):
    assert client.patch(ME, {"email": None}).status_code == 400
    answer = client.patch(ME, {"email": None, "current_password": PASSWORD})
    assert (answer.status_code, answer.json()["email"], answer.json()["is_verified"]) == (200, None, False)
    assert recipients_of("was removed") == ["ada@example.com"]


def test_taken_address_is_refused_on_request(client, make_user):
    make_user(email="taken@example.com")
    answer = client.patch(ME, CONFIRMED_CHANGE | {"email": "Taken@example.com"})
    assert (answer.status_code, answer.json()["errors"]) == (400, {"email": ["Email already in use"]})


def test_address_taken_before_confirmation_is_refused(client, ada, make_user):
    client.patch(ME, CONFIRMED_CHANGE)
    token = mailed_token()
    other = make_user(email=NEW_EMAIL.upper())
    answer = verify(token)
    assert (answer.status_code, answer.json()["errors"]) == (400, {"email": ["Email already in use"]})
    assert stored(ada).email == "ada@example.com"
    User.all_objects.filter(pk=other.pk).purge()
    assert verify(token).status_code == 204


def test_pending_address_is_read_only(client):
    assert client.patch(ME, {"pending_email": NEW_EMAIL}).status_code == 400


def test_password_for_another_users_row_is_refused(superuser, ada):
    answer = superuser.patch(f"/api/v1/users/{ada.pk}", CONFIRMED_CHANGE)
    assert (answer.status_code, list(answer.json()["errors"])) == (400, ["current_password"])


def test_confirmation_is_mailed_again_to_the_pending_address(client):
    client.patch(ME, CONFIRMED_CHANGE)
    mail.outbox.clear()
    assert NEW_EMAIL in client.post(f"{AUTH}/request-email-verification").json()["detail"]
    assert [message.to for message in mail.outbox] == [[NEW_EMAIL]]
    assert verify(mailed_token()).status_code == 204


def test_changes_to_one_address_are_limited(client):
    answers = []
    for number in range(6):
        client.patch(ME, {"email": f"other{number}@example.com", "current_password": PASSWORD})
        answers.append(client.patch(ME, CONFIRMED_CHANGE).status_code)
    assert answers == [200] * 5 + [429]


def test_reset_is_mailed_only_to_the_confirmed_address(client, anonymous, ada):
    client.patch(ME, CONFIRMED_CHANGE)
    mail.outbox.clear()
    for email in (NEW_EMAIL, "ada@example.com"):
        assert anonymous.post(f"{AUTH}/request-password-reset", {"email": email}).status_code == 202
    assert [message.to for message in mail.outbox] == [["ada@example.com"]]


def change_password(ada):
    body = {"current_password": PASSWORD, "new_password": "difference-engine-1822"}
    assert Client(ada).post(f"{AUTH}/change-password", body).status_code == 204


def reset_password(ada):
    body = {"token": mail_token(RESET_PASSWORD, ada), "new_password": "difference-engine-1822"}
    assert Client().post(f"{AUTH}/reset-password", body).status_code == 204


def set_password_in_bulk(ada):
    User.objects.filter(pk=ada.pk).update(password="!unusable")


def change_by_staff(ada):
    User.objects.filter(pk=ada.pk).update(email="third@example.com")


@pytest.mark.parametrize("event", [change_password, reset_password, set_password_in_bulk, change_by_staff])
def test_new_password_or_address_cancels_the_pending_change(client, ada, event):
    client.patch(ME, CONFIRMED_CHANGE)
    token = mailed_token()
    event(stored(ada))
    assert verify(token).status_code == 400
    assert stored(ada).pending_email is None
    assert stored(ada).email != NEW_EMAIL


# Accounts without a password


@pytest.mark.parametrize(("minutes", "status"), [(0, 200), (4, 200), (6, 403)])
def test_account_without_password_requires_a_recent_login(make_user, minutes, status):
    client = Client(make_user(email="ada@example.com"))
    Session.objects.update(created_at=timezone.now() - timedelta(minutes=minutes))
    answer = client.patch(ME, {"email": NEW_EMAIL})
    assert answer.status_code == status
    assert (client.get(ME).json()["pending_email"] == NEW_EMAIL) is (status == 200)


def test_session_derived_from_an_old_one_is_not_a_recent_login(make_user):
    browser = Client()
    browser.force_login(make_user(email="ada@example.com"))
    Session.objects.update(created_at=timezone.now() - timedelta(minutes=6))
    browser.credentials(HTTP_AUTHORIZATION="Bearer " + browser.post(f"{AUTH}/token").json()["access_token"])
    browser.cookies.clear()
    assert browser.patch(ME, {"email": NEW_EMAIL}).status_code == 403


def test_refreshed_session_is_not_a_recent_login(make_user):
    client = Client(make_user(email="ada@example.com"))
    Session.objects.update(created_at=timezone.now() - timedelta(minutes=6))
    refreshed = {"refresh_token": Session.objects.get().next_refresh_token()}
    client.credentials(
        HTTP_AUTHORIZATION="Bearer " + Client().post(f"{AUTH}/refresh", refreshed).json()["access_token"]
    )
    assert client.patch(ME, {"email": NEW_EMAIL}).status_code == 403


# Changing the address of another user


def test_address_changed_by_staff_takes_effect_immediately_and_notifies_both(staff, ada):
    answer = staff.patch(f"/api/v1/users/{ada.pk}", {"email": NEW_EMAIL})
    assert (answer.status_code, answer.json()["email"], answer.json()["is_verified"]) == (200, NEW_EMAIL, False)
    assert recipients_of(f"changed to {NEW_EMAIL}") == ["ada@example.com", NEW_EMAIL]


@pytest.fixture
def browser(superuser):
    browser = Client()
    browser.force_login(superuser.user)
    return browser


def submit_user_form(browser, user, **changes):
    page = f"/admin/users/user/{user.pk}/change/"
    return browser.post(page, opened_form(browser, page) | changes, format="multipart")


def test_address_changed_in_the_admin_notifies_both_addresses(browser, ada):
    assert submit_user_form(browser, ada, email=NEW_EMAIL).status_code == 302
    assert (stored(ada).email, stored(ada).is_verified) == (NEW_EMAIL, False)
    assert recipients_of(f"changed to {NEW_EMAIL}") == ["ada@example.com", NEW_EMAIL]


def test_own_address_cannot_be_changed_in_the_admin(browser, superuser):
    assert submit_user_form(browser, superuser.user, email=NEW_EMAIL, bio="Changed").status_code == 302
    assert (stored(superuser.user).email, stored(superuser.user).bio) == (superuser.user.email, "Changed")


def test_address_restored_by_undo_notifies_both_addresses(superuser, ada):
    superuser.patch(f"/api/v1/users/{ada.pk}", {"email": NEW_EMAIL})
    mail.outbox.clear()
    entry = AuditEntry.objects.of_row(User, ada.pk).latest("id")
    assert superuser.post(f"/api/v1/admin/audit-logs/{entry.pk}/undo").status_code == 200
    assert recipients_of("changed to ada@example.com") == [NEW_EMAIL, "ada@example.com"]


def test_own_address_is_not_restored_by_undo(superuser):
    User.objects.filter(pk=superuser.user.pk).update(email=NEW_EMAIL)
    entry = AuditEntry.objects.of_row(User, superuser.user.pk).latest("id")
    assert superuser.post(f"/api/v1/admin/audit-logs/{entry.pk}/undo").status_code == 403
    assert stored(superuser.user).email == NEW_EMAIL


# Passwords, identities, names


def test_own_password_page_of_the_admin_redirects_to_password_change(browser, superuser):
    path = f"/admin/users/user/{superuser.user.pk}/password/"
    form = {"usable_password": "true", "password1": "difference-engine-1822", "password2": "difference-engine-1822"}
    for answer in (browser.get(path), browser.post(path, form, format="multipart")):
        assert (answer.status_code, answer["Location"]) == (302, "/admin/password_change/")
    assert not stored(superuser.user).has_usable_password()


def test_wrong_passwords_in_the_admin_are_counted(make_user):
    browser = Client()
    browser.force_login(make_user(password=PASSWORD, is_staff=True))
    new = {"new_password1": "difference-engine-1822", "new_password2": "difference-engine-1822"}
    for _ in range(10):
        answer = browser.post("/admin/password_change/", new | {"old_password": "wrong"}, format="multipart")
        assert answer.status_code == 200
    assert (
        browser.post("/admin/password_change/", new | {"old_password": PASSWORD}, format="multipart").status_code == 429
    )
    RateLimit.objects.all().delete()
    assert (
        browser.post("/admin/password_change/", new | {"old_password": PASSWORD}, format="multipart").status_code == 302
    )


def test_password_set_by_staff_sends_a_notice(browser, ada):
    form = {"usable_password": "true", "password1": "difference-engine-1822", "password2": "difference-engine-1822"}
    browser.post(f"/admin/users/user/{ada.pk}/password/", form, format="multipart")
    assert recipients_of("Your password was changed") == ["ada@example.com"]


def test_changed_username_sends_a_notice(client):
    client.patch(ME, {"username": "countess"})
    assert recipients_of("changed to countess") == ["ada@example.com"]


def test_added_identity_sends_a_notice(ada):
    User.objects.get_or_create_from_claims(
        "example", ProviderClaims({"sub": "1", "email": "ada@example.com", "email_verified": True})
    )
    assert recipients_of("Signing in through example") == ["ada@example.com"]


def test_pending_address_links_no_identity(client, ada):
    client.patch(ME, CONFIRMED_CHANGE)
    user = User.objects.get_or_create_from_claims(
        "example", ProviderClaims({"sub": "1", "email": NEW_EMAIL, "email_verified": True})
    )
    assert user.pk != ada.pk


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("post", f"{AUTH}/change-password", {"new_password": "difference-engine-1822"}),
        ("patch", ME, {"email": NEW_EMAIL}),
        ("patch", ME, {"password": "difference-engine-1822"}),
        ("patch", ME, {"is_verified": True}),
        ("patch", ME, {"is_active": False}),
        ("delete", ME, {}),
        ("post", f"{AUTH}/token", {}),
    ],
)
def test_access_token_alone_cannot_take_over_or_close_an_account(client, ada, method, path, body):
    assert getattr(client, method)(path, body).status_code in {400, 401, 405}
    row = stored(ada)
    assert (row.email, row.password, row.is_active, row.is_verified) == (ada.email, ada.password, True, True)


def test_email_change_token_works_only_for_its_purpose(client, ada):
    client.patch(ME, CONFIRMED_CHANGE)
    body = {"token": mail_token(CHANGE_EMAIL, stored(ada)), "new_password": "difference-engine-1822"}
    assert Client().post(f"{AUTH}/reset-password", body).status_code == 400
    assert Client().post(f"{AUTH}/confirm-account-deletion", {"token": body["token"]}).status_code == 400
