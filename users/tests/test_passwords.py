from datetime import timedelta

import pytest
from django.contrib.auth import authenticate
from django.core import mail as outbox
from django.core.management import CommandError, call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from conftest import PASSWORD, Client, lasting_headers, mailed_token
from users import mail
from users.mail_tokens import DELETE_ACCOUNT, RESET_PASSWORD, VERIFY_EMAIL, mail_token
from users.models import RateLimit, User

NEW_PASSWORD = "a-quite-different-one-8"
BAD_PASSWORDS = {
    "short": "x7-Kq2!",
    "long": "aB3-" * 32 + "x",
    "common": "password123",
    "numeric": "8273648273645",
    "similar": "ada-lovelace",
}
AUTH = "/api/v1/auth"


@pytest.fixture
def ada(make_user):
    return make_user(username="ada-lovelace", email="ada@example.com", password=PASSWORD)


def change(client, current=PASSWORD, new=NEW_PASSWORD):
    return client.post(f"{AUTH}/change-password", {"current_password": current, "new_password": new})


def reset(client, token, new=NEW_PASSWORD):
    return client.post(f"{AUTH}/reset-password", {"token": token, "new_password": new})


def can_log_in(user, password):
    return authenticate(username=user.username, password=password) is not None


# Changing


def test_change_keeps_the_session_and_sets_the_new_password(ada):
    client = Client(ada)
    assert (change(client).status_code, client.get("/api/v1/users/me").status_code) == (204, 200)
    assert (can_log_in(ada, NEW_PASSWORD), can_log_in(ada, PASSWORD)) == (True, False)


def test_change_keeps_the_browser_session(ada):
    browser = Client()
    browser.force_login(ada)
    assert (change(browser).status_code, browser.get("/api/v1/users/me").status_code) == (204, 200)


def test_wrong_current_password_is_named_and_changes_nothing(ada):
    answer = change(Client(ada), current="wrong")
    assert (answer.status_code, list(answer.json()["errors"])) == (400, ["current_password"])
    assert can_log_in(ada, PASSWORD)


@pytest.mark.parametrize("bad", BAD_PASSWORDS)
def test_bad_new_password_is_named_and_changes_nothing(ada, bad):
    answer = change(Client(ada), new=BAD_PASSWORDS[bad])
    assert (answer.status_code, list(answer.json()["errors"])) == (400, ["new_password"])
    assert can_log_in(ada, PASSWORD)


@pytest.mark.parametrize(
    "password", ["x7-Kq2!p", "aB3-" * 32, "  blanks around  ", "пароль-очень-длинный", "🐎 battery staple"]
)
def test_password_of_8_to_128_characters_is_accepted(ada, password):
    assert change(Client(ada), new=password).status_code == 204
    assert can_log_in(ada, password)


def test_owner_of_a_locked_account_can_change_the_password(anonymous, ada):
    for _ in range(11):
        anonymous.post(f"{AUTH}/login", {"username": ada.username, "password": "wrong"})
    assert change(Client(ada)).status_code == 204


def test_change_does_not_overwrite_a_concurrent_reset(ada, monkeypatch):
    client, check_password = Client(ada), User.check_password

    def reset_meanwhile(self, password):
        is_correct = check_password(self, password)
        other = User.objects.get(pk=self.pk)
        other.set_password("the-one-of-the-reset-7")
        other.save()
        return is_correct

    monkeypatch.setattr(User, "check_password", reset_meanwhile)
    assert change(client).status_code == 400
    monkeypatch.undo()
    assert can_log_in(ada, "the-one-of-the-reset-7")


# Resetting


def test_reset_token_is_mailed_and_works_once(anonymous, ada, settings):
    assert anonymous.post(f"{AUTH}/request-password-reset", {"email": "ADA@example.com"}).status_code == 202
    [message] = outbox.outbox
    assert message.to == ["ada@example.com"]
    assert f"{settings.APP_URL}/account/reset-password#token=" in message.body
    token = mailed_token()
    assert reset(anonymous, token).status_code == 204
    assert can_log_in(ada, NEW_PASSWORD)
    assert reset(anonymous, token, new="one-more-battery-7").status_code == 400


def test_reset_request_does_not_reveal_accounts(anonymous, ada, make_user):
    make_user(email="inactive@example.com", is_active=False)
    make_user(email="deleted@example.com").delete()
    answers, statements = [], []
    for name in ("ada", "nobody", "inactive", "deleted"):
        with CaptureQueriesContext(connection) as queries:
            body = {"email": f"{name}@example.com"}
            answer = anonymous.post(f"{AUTH}/request-password-reset", body, headers={"X-Request-ID": "same"})
        answers.append((answer.status_code, answer.content, sorted(lasting_headers(answer).items())))
        statements.append([query["sql"].split()[0] for query in queries])
    assert answers == [answers[0]] * 4
    assert statements == [statements[0]] * 4
    assert [message.to for message in outbox.outbox] == [["ada@example.com"]]


def test_reset_request_accepts_the_longest_address(anonymous, db):
    email = f"{'a' * 64}@{'b' * 60}.{'c' * 60}.{'d' * 58}.com"
    assert anonymous.post(f"{AUTH}/request-password-reset", {"email": email}).status_code == 202


def test_reset_mails_are_limited(anonymous, ada):
    for _ in range(7):
        assert anonymous.post(f"{AUTH}/request-password-reset", {"email": "ada@example.com"}).status_code == 202
    assert len(outbox.outbox) == 5


def test_reset_mail_for_unknown_address_is_rendered_but_not_sent(ada, monkeypatch):
    rendered = []
    render = mail.render_to_string
    monkeypatch.setattr(mail, "render_to_string", lambda name, context: rendered.append(name) or render(name, context))
    for user in (ada, None):
        mail.queue_password_reset(user)
    assert rendered[:2] == rendered[2:]
    assert len(rendered) == 4
    assert len(outbox.outbox) == 1


def test_password_change_and_reset_send_a_notice(anonymous, ada):
    change(Client(ada))
    reset(anonymous, mail_token(RESET_PASSWORD, User.objects.get(pk=ada.pk)), new="one-more-battery-7")
    assert [message.to for message in outbox.outbox] == [["ada@example.com"]] * 2
    for message in outbox.outbox:
        assert "Your password was" in message.body
        assert "/account/forgot-password" in message.alternatives[0].content


@pytest.mark.django_db(transaction=True)
def test_failed_change_sends_no_notice(ada, make_user):
    make_user(email="taken@example.com")
    assert Client(ada).patch("/api/v1/users/me", {"email": "taken@example.com"}).status_code == 400
    assert outbox.outbox == []


def test_reset_of_an_unverified_account_removes_identities_and_deletion(anonymous, make_user):
    user = make_user(email="victim@example.com")
    user.identities.create(provider="example", subject="stranger")
    user.schedule_deletion()
    assert reset(anonymous, mail_token(RESET_PASSWORD, user)).status_code == 204
    user.refresh_from_db()
    assert (user.is_verified, user.identities.count(), user.deletion_at) == (True, 0, None)


def test_reset_of_a_verified_account_keeps_identities(anonymous, make_user):
    user = make_user(is_verified=True)
    user.identities.create(provider="example", subject="owner")
    reset(anonymous, mail_token(RESET_PASSWORD, user))
    assert user.identities.count() == 1


def test_reset_sets_a_first_password(anonymous, make_user):
    user = make_user(username="passwordless")
    assert reset(anonymous, mail_token(RESET_PASSWORD, user)).status_code == 204
    assert can_log_in(user, NEW_PASSWORD)


def test_reset_unlocks_the_account(anonymous, ada):
    for _ in range(10):
        anonymous.post(f"{AUTH}/login", {"username": ada.username, "password": "wrong"})
    reset(anonymous, mail_token(RESET_PASSWORD, ada))
    assert anonymous.post(f"{AUTH}/login", {"username": ada.username, "password": NEW_PASSWORD}).status_code == 200


@pytest.mark.parametrize("bad", BAD_PASSWORDS)
def test_refused_password_does_not_spend_the_token(anonymous, ada, bad):
    token = mail_token(RESET_PASSWORD, ada)
    answer = reset(anonymous, token, new=BAD_PASSWORDS[bad])
    assert (answer.status_code, list(answer.json()["errors"])) == (400, ["new_password"])
    assert reset(anonymous, token).status_code == 204


# Tokens from mails


def change_address(user):
    User.objects.filter(pk=user.pk).update(email="other@example.com")


def change_password(user):
    user.set_password("yet-another-battery-3")
    user.save()


def deactivate(user):
    User.objects.filter(pk=user.pk).update(is_active=False)


def delete(user):
    user.delete()


PURPOSES = {
    "verify-email": VERIFY_EMAIL,
    "reset-password": RESET_PASSWORD,
    "confirm-account-deletion": DELETE_ACCOUNT,
}


def use(client, endpoint, token):
    body = {"token": token} | ({"new_password": NEW_PASSWORD} if endpoint == "reset-password" else {})
    return client.post(f"{AUTH}/{endpoint}", body)


@pytest.mark.parametrize("endpoint", PURPOSES)
@pytest.mark.parametrize("change_account", [change_address, change_password, deactivate, delete])
def test_token_is_invalidated_by_account_changes(anonymous, ada, endpoint, change_account):
    token = mail_token(PURPOSES[endpoint], ada)
    change_account(ada)
    assert use(anonymous, endpoint, token).json()["errors"] == {"token": ["This token is invalid, used or expired."]}


@pytest.mark.parametrize("endpoint", PURPOSES)
def test_token_survives_profile_changes(anonymous, ada, endpoint):
    token = mail_token(PURPOSES[endpoint], ada)
    Client(ada).patch("/api/v1/users/me", {"bio": "Analyst"})
    assert use(anonymous, endpoint, token).status_code in {200, 204}


@pytest.mark.parametrize("endpoint", PURPOSES)
def test_token_works_only_for_its_purpose(anonymous, ada, endpoint):
    for other in PURPOSES.keys() - {endpoint}:
        assert use(anonymous, endpoint, mail_token(PURPOSES[other], ada)).status_code == 400


@pytest.mark.parametrize("endpoint", PURPOSES)
def test_token_expires(anonymous, ada, endpoint, monkeypatch):
    mailed_at = timezone.now() - PURPOSES[endpoint].lifetime - timedelta(seconds=1)
    monkeypatch.setattr("users.mail_tokens.database_now", lambda: mailed_at)
    token = mail_token(PURPOSES[endpoint], ada)
    assert use(anonymous, endpoint, token).status_code == 400


@pytest.mark.parametrize("endpoint", PURPOSES)
def test_token_works_once(anonymous, ada, endpoint):
    token = mail_token(PURPOSES[endpoint], ada)
    assert use(anonymous, endpoint, token).status_code in {200, 204}
    User.objects.filter(pk=ada.pk).update(is_verified=False)
    Client(User.objects.get(pk=ada.pk)).post(f"{AUTH}/cancel-account-deletion")
    assert use(anonymous, endpoint, token).status_code == 400


@pytest.mark.parametrize("endpoint", PURPOSES)
@pytest.mark.parametrize("token", ["x", "a:b:c", "é:ü:ß", "W10:1a:x", ":::", "x" * 1000])
def test_forged_token_is_refused(anonymous, ada, endpoint, token):
    assert use(anonymous, endpoint, token).status_code == 400


def test_token_survives_key_rotation(anonymous, ada, settings):
    token = mail_token(VERIFY_EMAIL, ada)
    settings.SECRET_KEY_FALLBACKS = [settings.SECRET_KEY]
    settings.SECRET_KEY = "another key, of which there are fifty characters at least"
    assert use(anonymous, "verify-email", token).status_code == 204


# Requesting another verification mail


def test_verification_is_mailed_again(ada, anonymous):
    answer = Client(ada).post(f"{AUTH}/request-email-verification")
    assert (answer.status_code, "ada@example.com" in answer.json()["detail"]) == (202, True)
    assert use(anonymous, "verify-email", mailed_token()).status_code == 204
    assert User.objects.get(pk=ada.pk).is_verified


def test_verified_address_is_not_mailed(ada):
    User.objects.filter(pk=ada.pk).update(is_verified=True)
    assert Client(ada).post(f"{AUTH}/request-email-verification").status_code == 202
    assert not outbox.outbox


@pytest.mark.parametrize("path", ["request-email-verification", "request-account-deletion"])
def test_mail_request_without_address_is_400(make_user, path):
    user = make_user(email=None)
    assert "no e-mail address" in Client(user).post(f"{AUTH}/{path}").json()["detail"]


@pytest.mark.parametrize("path", ["request-email-verification", "request-account-deletion"])
def test_mails_are_limited(ada, path):
    client = Client(ada)
    answers = [client.post(f"{AUTH}/{path}") for _ in range(6)]
    assert [answer.status_code for answer in answers] == [202] * 5 + [429]
    assert int(answers[-1]["Retry-After"]) > 0
    RateLimit.objects.all().delete()
    assert client.post(f"{AUTH}/{path}").status_code == 202


def test_mails_to_one_address_share_one_limit(anonymous):
    results = []
    for number in range(6):
        person = {"username": f"person-{number}", "email": "victim@example.com", "password": PASSWORD}
        results.append(anonymous.post(f"{AUTH}/register", person).json()["verification_mail"])
        User.objects.filter(username=f"person-{number}").update(email=f"moved-{number}@example.com")
    assert results == ["queued"] * 5 + ["failed"]
    assert len(outbox.outbox) == 5


@pytest.mark.parametrize("email", ["a@ⓔx.com", '"a"@example.com', "é@example.com", f"a@{'é' * 60}.com"])
def test_address_with_several_spellings_is_refused(anonymous, db, email):
    answer = anonymous.post(f"{AUTH}/register", {"username": "ada-l", "email": email, "password": PASSWORD})
    assert (answer.status_code, list(answer.json()["errors"])) == (400, ["email"])


# Other ways of setting a password


@pytest.mark.parametrize("bad", BAD_PASSWORDS)
def test_admin_refuses_a_bad_password(superuser, bad):
    browser = Client()
    browser.force_login(superuser.user)
    passwords = f"password1={BAD_PASSWORDS[bad]}&password2={BAD_PASSWORDS[bad]}"
    form = f"username=ada-lovelace&email=a%40example.com&usable_password=true&{passwords}"
    browser.generic("POST", "/admin/users/user/add/", form, content_type="application/x-www-form-urlencoded")
    assert not User.objects.filter(username="ada-lovelace").exists()


@pytest.mark.parametrize("bad", BAD_PASSWORDS)
def test_admin_refuses_a_bad_password_for_a_user(superuser, ada, bad):
    browser = Client()
    browser.force_login(superuser.user)
    form = f"usable_password=true&password1={BAD_PASSWORDS[bad]}&password2={BAD_PASSWORDS[bad]}"
    path = f"/admin/users/user/{ada.pk}/password/"
    browser.generic("POST", path, form, content_type="application/x-www-form-urlencoded")
    assert can_log_in(ada, PASSWORD)


def test_createsuperuser_refuses_a_bad_password(db, monkeypatch):
    monkeypatch.setenv("DJANGO_SUPERUSER_PASSWORD", BAD_PASSWORDS["common"])
    with pytest.raises(CommandError, match="too common"):
        call_command("createsuperuser", "--noinput", username="root", email="root@example.com")
    assert not User.objects.filter(username="root").exists()
