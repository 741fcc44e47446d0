import pytest
from rest_framework.validators import UniqueValidator

from records.db.constraints import Unique
from users.models import User

URL = "/api/v1/auth/register"
ADA = {"email": "ada@example.com", "username": "ada", "password": "analytical-engine-1843"}


@pytest.fixture
def lost_race(monkeypatch):
    """Disable validation, so that only the constraints of the database refuse a duplicate."""
    monkeypatch.setattr(Unique, "validate", lambda *args, **kwargs: None)
    monkeypatch.setattr(UniqueValidator, "__call__", lambda *args: None)


def test_anonymous_can_register(anonymous):
    profile = {"name": "Ada", "gender": "Female", "age": 36, "bio": "Engines."}
    answer = anonymous.post(URL, ADA | profile)
    assert answer.status_code == 201
    expected = {"email": "ada@example.com", "username": "ada", **profile}
    assert {name: answer.json()[name] for name in expected} == expected


def test_new_account_has_no_privileges(anonymous):
    row = anonymous.post(URL, ADA).json()
    assert (row["is_active"], row["is_verified"], row["is_staff"], row["is_superuser"]) == (True, False, False, False)
    assert row["version"] == 1


def test_response_contains_no_password(anonymous):
    answer = anonymous.post(URL, ADA)
    assert "password" not in answer.json()
    assert ADA["password"] not in answer.content.decode()
    assert User.objects.get(username="ada").password not in answer.content.decode()


def test_location_header_is_the_new_user(anonymous):
    answer = anonymous.post(URL, ADA)
    assert answer.headers["Location"] == f"/api/v1/users/{answer.json()['id']}"


def test_new_user_can_log_in(anonymous):
    password = "  blanks are kept 1843  "
    assert anonymous.post(URL, ADA | {"password": password}).status_code == 201
    login = {"username": "ada", "password": password}
    assert anonymous.post("/api/v1/auth/login", login).status_code == 200


@pytest.mark.parametrize("missing", ["email", "username", "password"])
def test_required_field_is_named(anonymous, missing):
    answer = anonymous.post(URL, {name: value for name, value in ADA.items() if name != missing})
    assert answer.status_code == 400
    assert answer.json()["errors"] == {missing: ["This field is required."]}


@pytest.mark.parametrize("field", ["email", "username", "password"])
@pytest.mark.parametrize("value", [None, "", [], {}, True])
def test_empty_required_field_is_refused(anonymous, field, value):
    answer = anonymous.post(URL, ADA | {field: value})
    assert answer.status_code == 400
    assert field in answer.json()["errors"]


@pytest.mark.parametrize("email", ["ada", "ada@", "@example.com", "a b@example.com", "a" * 245 + "@example.com"])
def test_invalid_email_is_refused(anonymous, email):
    answer = anonymous.post(URL, ADA | {"email": email})
    assert answer.status_code == 400
    assert list(answer.json()["errors"]) == ["email"]


@pytest.mark.parametrize(
    "password",
    ["x9-Kq", "password123", "1843184318431843", "ada-lovelace", "Ada.Byron", "byron@example.com", "a" * 129],
    ids=["short", "common", "numeric", "like the username", "like the name", "like the e-mail", "long"],
)
def test_weak_password_is_refused(anonymous, password):
    person = {"username": "ada-lovelace", "name": "Ada Byron", "email": "byron@example.com", "password": password}
    answer = anonymous.post(URL, person)
    assert answer.status_code == 400
    assert list(answer.json()["errors"]) == ["password"]
    assert not User.objects.filter(username="ada-lovelace").exists()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("is_staff", True),
        ("is_superuser", True),
        ("is_verified", True),
        ("is_active", True),
        ("id", 1),
        ("version", 7),
        ("oauth_provider", "google"),
        ("user_permissions", [1]),
        ("groups", [1]),
    ],
)
def test_privileges_cannot_be_registered(anonymous, field, value):
    answer = anonymous.post(URL, ADA | {field: value})
    assert answer.status_code == 400
    assert list(answer.json()["errors"]) == [field]
    assert not User.objects.filter(username="ada").exists()


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("email", "taken@example.com", "Email already in use"),
        ("email", "TAKEN@Example.COM", "Email already in use"),
        ("username", "taken", "Username already in use"),
        ("username", "TAKEN", "Username already in use"),
    ],
)
@pytest.mark.parametrize("deleted", [False, True], ids=["live", "deleted"])
def test_taken_value_is_refused_in_any_case(anonymous, make_user, field, value, message, deleted):
    user = make_user(username="taken", email="taken@example.com")
    if deleted:
        user.delete()
    answer = anonymous.post(URL, ADA | {field: value})
    assert answer.status_code == 400
    assert answer.json()["errors"] == {field: [message]}


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("email", "taken@example.com", "Email already in use"),
        ("email", "Taken@example.com", "Email already in use"),
        ("username", "taken", "Username already in use"),
        ("username", "Taken", "Username already in use"),
    ],
)
def test_concurrent_registration_with_a_taken_value_is_refused(anonymous, make_user, lost_race, field, value, message):
    make_user(username="taken", email="taken@example.com")
    answer = anonymous.post(URL, ADA | {field: value})
    assert answer.status_code == 400
    assert answer.json()["errors"] == {field: [message]}


def test_name_must_start_with_a_capital_letter(anonymous):
    answer = anonymous.post(URL, ADA | {"name": "ada"})
    assert answer.json()["errors"] == {"name": ["Name must start with a capital letter"]}


def test_invalid_token_does_not_prevent_registration(anonymous):
    anonymous.credentials(HTTP_AUTHORIZATION="Bearer dead")
    assert anonymous.post(URL, ADA).status_code == 201


def test_only_post_is_allowed(anonymous):
    answer = anonymous.get(URL)
    assert answer.status_code == 405
    assert answer.headers["Content-Type"] == "application/problem+json"
