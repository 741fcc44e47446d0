"""Registration mails a token that verifies the address."""

import smtplib
from datetime import timedelta

import pytest
from django.core import mail
from django.utils import timezone

from conftest import mailed_token
from users.models import User

pytestmark = pytest.mark.django_db(transaction=True)  # mails are sent when the transaction is committed

PERSON = {"username": "ada", "email": "ada@example.com", "password": "analytical-engine-1843", "name": "Ada"}


@pytest.fixture
def token(anonymous) -> str:
    anonymous.post("/api/v1/auth/register", PERSON)
    return mailed_token()


def verify(client, token):
    return client.post("/api/v1/auth/verify-email", {"token": token})


def test_mail_contains_the_token_and_app_url_as_text_and_html(token, settings):
    [message] = mail.outbox
    assert message.to == ["ada@example.com"]
    for body in (message.body, message.alternatives[0].content):
        assert token in body
        assert settings.APP_URL in body
        assert "testserver" not in body


def test_token_verifies_the_address_once(anonymous, token):
    assert verify(anonymous, token).status_code == 204
    assert User.objects.get(username="ada").is_verified
    assert verify(anonymous, token).json()["errors"] == {"token": ["This token is invalid, used or expired."]}


def test_token_is_invalid_after_an_address_change(anonymous, token):
    User.objects.filter(username="ada").update(email="other@example.com")
    assert verify(anonymous, token).status_code == 400


def test_expired_token_verifies_nothing(anonymous, monkeypatch):
    mailed_at = timezone.now() - timedelta(days=4)
    monkeypatch.setattr("users.mail_tokens.database_now", lambda: mailed_at)
    anonymous.post("/api/v1/auth/register", PERSON)
    assert verify(anonymous, mailed_token()).status_code == 400


@pytest.mark.parametrize("forged", ["x", "a:b:c", "é:ü:ß", "W10:1a:x"])
def test_forged_token_verifies_nothing(anonymous, forged):
    assert verify(anonymous, forged).status_code == 400


def test_registration_succeeds_without_a_mail_server(anonymous, monkeypatch):
    def refuse(*args):
        raise smtplib.SMTPServerDisconnected

    monkeypatch.setattr("django.core.mail.backends.locmem.EmailBackend.send_messages", refuse)
    assert anonymous.post("/api/v1/auth/register", PERSON).status_code == 201
    assert User.objects.filter(username="ada").exists()
