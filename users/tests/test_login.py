from urllib.parse import urlencode

import pytest
from django.contrib.auth.hashers import MD5PasswordHasher
from django.db import connection
from django.test.utils import CaptureQueriesContext

from conftest import PASSWORD, Client, lasting_headers
from users.models import RateLimit, Session, User

URL = "/api/v1/auth/login"


@pytest.fixture
def ada(make_user):
    return make_user(username="Ada", email="Ada.L@example.com", password=PASSWORD)


@pytest.fixture
def hashes(monkeypatch):
    """Return the list of the passwords that are hashed during the test."""
    hashed = []
    encode = MD5PasswordHasher.encode

    def counting_encode(self, password, salt):
        hashed.append(password)
        return encode(self, password, salt)

    monkeypatch.setattr(MD5PasswordHasher, "encode", counting_encode)
    return hashed


@pytest.fixture
def failures(make_user):
    """Return the request body of each kind of failed login."""
    make_user(username="ada", email="ada@example.com", password=PASSWORD)
    make_user(username="inactive", password=PASSWORD, is_active=False)
    make_user(username="deleted", password=PASSWORD).delete()
    make_user(username="passwordless")
    return {
        "unknown username": {"username": "nobody", "password": PASSWORD},
        "unknown e-mail": {"username": "nobody@example.com", "password": PASSWORD},
        "wrong": {"username": "ada", "password": "wrong"},
        "wrong by e-mail": {"username": "ada@example.com", "password": "wrong"},
        "inactive": {"username": "inactive", "password": PASSWORD},
        "deleted": {"username": "deleted", "password": PASSWORD},
        "no password": {"username": "passwordless", "password": PASSWORD},
    }


FAILURE_KINDS = [
    "unknown username", "unknown e-mail", "wrong", "wrong by e-mail", "inactive", "deleted", "no password",
]  # fmt: skip


@pytest.mark.parametrize("login", ["Ada", "ada", "ADA", "Ada.L@example.com", "ada.l@EXAMPLE.com"])
def test_login_by_username_or_email_in_any_case(anonymous, ada, login):
    answer = anonymous.post(URL, {"username": login, "password": PASSWORD})
    assert answer.status_code == 200
    assert set(answer.json()) == {"access_token", "refresh_token", "token_type", "expires_in"}
    assert (answer.json()["token_type"], answer.json()["expires_in"]) == ("bearer", 900)


def test_login_accepts_a_multipart_form(anonymous, ada):
    assert anonymous.post(URL, {"username": "ada", "password": PASSWORD}, format="multipart").status_code == 200


def test_login_accepts_a_urlencoded_form(anonymous, ada):
    form = urlencode({"username": "ada", "password": PASSWORD})
    answer = anonymous.generic("POST", URL, form, content_type="application/x-www-form-urlencoded")
    assert answer.status_code == 200


def test_access_token_authenticates(anonymous, ada):
    token = anonymous.post(URL, {"username": "ada", "password": PASSWORD}).json()["access_token"]
    anonymous.credentials(HTTP_AUTHORIZATION=f"Bearer {token}")
    assert anonymous.get("/api/v1/users/me").json()["id"] == ada.pk


def test_refresh_token_is_stored_hashed(anonymous, ada):
    token = anonymous.post(URL, {"username": "ada", "password": PASSWORD}).json()["refresh_token"]
    assert token not in str(Session.objects.filter(user=ada).values().get())


def test_session_stores_address_and_user_agent(anonymous, ada):
    headers = {"User-Agent": "curl/8.7"}
    anonymous.post(URL, {"username": "ada", "password": PASSWORD}, headers=headers, REMOTE_ADDR="192.0.2.7")
    session = Session.objects.get(user=ada)
    assert (session.ip, session.user_agent) == ("192.0.2.7", "curl/8.7")


def test_each_login_creates_a_session(anonymous, ada):
    first, second = (anonymous.post(URL, {"username": "ada", "password": PASSWORD}).json() for _ in range(2))
    assert first["access_token"] != second["access_token"]
    assert Session.objects.filter(user=ada).count() == 2


def test_login_does_not_modify_the_user(anonymous, ada):
    before = User.objects.filter(pk=ada.pk).values().get()
    anonymous.post(URL, {"username": "ada", "password": PASSWORD})
    assert User.objects.filter(pk=ada.pk).values().get() == before


def test_tokens_are_not_cached(anonymous, ada):
    answer = anonymous.post(URL, {"username": "ada", "password": PASSWORD})
    assert answer.headers["Cache-Control"] == "no-store"


def test_every_failure_has_the_same_body(anonymous, failures):
    answers = [anonymous.post(URL, body, headers={"X-Request-ID": "same"}) for body in failures.values()]
    assert {answer.status_code for answer in answers} == {401}
    assert len({answer.content for answer in answers}) == 1
    assert len({tuple(sorted(lasting_headers(answer).items())) for answer in answers}) == 1


@pytest.mark.parametrize("kind", FAILURE_KINDS)
def test_every_failure_costs_one_password_hash(anonymous, failures, hashes, kind):
    hashes.clear()
    assert anonymous.post(URL, failures[kind]).status_code == 401
    assert len(hashes) == 1


def test_success_costs_one_password_hash(anonymous, ada, hashes):
    assert anonymous.post(URL, {"username": "ada", "password": PASSWORD}).status_code == 200
    assert len(hashes) == 1


def test_every_failure_costs_the_same_statements(anonymous, failures):
    statements = []
    for body in failures.values():
        RateLimit.objects.all().delete()
        with CaptureQueriesContext(connection) as queries:
            anonymous.post(URL, body)
        statements.append([query["sql"].split()[0] for query in queries])
    assert len({tuple(verbs) for verbs in statements}) == 1


@pytest.mark.parametrize("kind", FAILURE_KINDS)
def test_no_failure_opens_a_session(anonymous, failures, kind):
    anonymous.post(URL, failures[kind])
    assert not Session.objects.exists()


def test_failed_login_names_the_authentication_scheme(anonymous):
    answer = anonymous.post(URL, {"username": "nobody", "password": "wrong"})
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert answer.headers["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize("password", [PASSWORD.upper(), f" {PASSWORD}", f"{PASSWORD} ", PASSWORD[:-1]])
def test_password_must_match_exactly(anonymous, ada, password):
    assert anonymous.post(URL, {"username": "ada", "password": password}).status_code == 401


@pytest.mark.parametrize("missing", ["username", "password"])
def test_missing_field_is_named(anonymous, missing):
    body = {"username": "ada", "password": PASSWORD}
    del body[missing]
    answer = anonymous.post(URL, body)
    assert answer.status_code == 400
    assert list(answer.json()["errors"]) == [missing]


@pytest.mark.parametrize("field", ["username", "password"])
@pytest.mark.parametrize("value", [None, "", [], {}, True, "a\0b", "x" * 1025])
def test_invalid_value_is_named(anonymous, field, value):
    answer = anonymous.post(URL, {"username": "ada", "password": PASSWORD} | {field: value})
    assert answer.status_code == 400
    assert list(answer.json()["errors"]) == [field]


def test_unknown_field_is_refused(anonymous, ada):
    answer = anonymous.post(URL, {"username": "ada", "password": PASSWORD, "email": "ada@example.com"})
    assert answer.status_code == 400
    assert list(answer.json()["errors"]) == ["email"]


def test_login_works_while_signed_in(ada):
    assert Client(ada).post(URL, {"username": "ada", "password": PASSWORD}).status_code == 200


# The password grant of OAuth2

FORM = "application/x-www-form-urlencoded"
GRANT = {"grant_type": "password", "username": "ada", "password": PASSWORD}
CLIENT = {"scope": "read write", "client_id": "swagger", "client_secret": "s3cret"}


def send_form(client, form, **headers):
    return client.generic("POST", URL, urlencode(form), content_type=FORM, **headers)


@pytest.mark.parametrize(
    "extra",
    [{}, CLIENT, dict.fromkeys(["grant_type", *CLIENT], ""), {"scope": ""}, {"client_id": "x" * 5000}],
    ids=lambda extra: len(extra),
)
@pytest.mark.parametrize("kind", ["urlencoded", "multipart"])
def test_password_grant_logs_in(anonymous, ada, kind, extra):
    form = GRANT | extra
    answer = send_form(anonymous, form) if kind == "urlencoded" else anonymous.post(URL, form, format="multipart")
    assert (answer.status_code, answer.json().get("token_type")) == (200, "bearer")


@pytest.mark.parametrize("header", ["Basic c3dhZ2dlcjpzM2NyZXQ=", "Basic Og==", "Basic", "Bearer expired"])
def test_client_credentials_are_ignored(anonymous, ada, header):
    assert send_form(anonymous, GRANT, HTTP_AUTHORIZATION=header).status_code == 200


@pytest.mark.parametrize("grant", ["client_credentials", "refresh_token", "PASSWORD"])
def test_other_grant_types_are_refused(anonymous, ada, grant):
    answer = send_form(anonymous, GRANT | {"grant_type": grant})
    assert (answer.status_code, list(answer.json()["errors"])) == (400, ["grant_type"])
    assert not Session.objects.exists()


def test_unsupported_grant_type_has_the_oauth_error_code(anonymous, ada):
    answer = send_form(anonymous, GRANT | {"grant_type": "client_credentials"})
    assert answer.json()["errors"]["grant_type"][0].startswith("unsupported_grant_type")


@pytest.mark.parametrize("field", ["grant_type", *CLIENT])
def test_json_body_refuses_oauth_fields(anonymous, ada, field):
    answer = anonymous.post(URL, {"username": "ada", "password": PASSWORD, field: "password"})
    assert (answer.status_code, list(answer.json()["errors"])) == (400, [field])


@pytest.mark.parametrize("field", ["email", "remember", "code"])
def test_unknown_field_of_a_form_is_refused(anonymous, ada, field):
    answer = send_form(anonymous, GRANT | {field: "x"})
    assert (answer.status_code, list(answer.json()["errors"])) == (400, [field])


def test_openapi_documents_the_password_flow(anonymous):
    schema = anonymous.get("/openapi.json").json()
    assert schema["components"]["securitySchemes"]["password"]["flows"] == {"password": {"tokenUrl": URL, "scopes": {}}}
    assert {"password": []} in schema["paths"]["/api/v1/stocks"]["get"]["security"]
    bodies = schema["paths"][URL]["post"]["requestBody"]["content"]
    assert bodies[FORM]["schema"] == {"$ref": "#/components/schemas/LoginFormRequest"}
    assert {"grant_type", *CLIENT} <= schema["components"]["schemas"]["LoginFormRequest"]["properties"].keys()
    assert bodies["application/json"]["schema"] == {"$ref": "#/components/schemas/LoginRequest"}
