from datetime import timedelta

import jwt
import pytest
from django.conf import settings
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from conftest import PASSWORD, Client
from users import access_tokens
from users.models import Session, User

ME = "/api/v1/users/me"
FOREIGN_KEY = "somebody else's key, and long enough for every algorithm that there is, HS512 too"


def use(client, token, scheme="Bearer"):
    client.credentials(HTTP_AUTHORIZATION=f"{scheme} {token}")
    return client.get(ME)


@pytest.fixture
def claims(owner):
    """Return the claims of a valid token."""
    token = access_tokens.access_token(Session.objects.get(user=owner.user))
    return jwt.decode(token, options={"verify_signature": False})


def signed(claims, key=None, algorithm="HS256"):
    return jwt.encode(claims, key or access_tokens._key(settings.SECRET_KEY), algorithm)


def assert_refused(answer):
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert answer.headers["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_valid_token_authenticates(anonymous, owner, claims, scheme):
    answer = use(anonymous, signed(claims), scheme)
    assert (answer.status_code, answer.json()["id"]) == (200, owner.user.pk)


def test_token_expires_after_fifteen_minutes(claims):
    assert claims["exp"] - claims["iat"] == 900


def test_token_contains_only_session_claims(claims):
    assert set(claims) == {"iss", "aud", "sub", "sid", "iat", "exp"}


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", "Bearer a b", "Basic YTpi", "Token abc"])
def test_missing_token_is_refused(anonymous, header):
    anonymous.credentials(HTTP_AUTHORIZATION=header)
    assert_refused(anonymous.get(ME))


@pytest.mark.parametrize("token", ["x", "a.b.c", "..", "é", "\x00", "null", "." * 5000])
def test_malformed_token_is_refused(anonymous, token):
    assert_refused(use(anonymous, token))


def test_expired_token_is_refused(anonymous, claims):
    past = int(timezone.now().timestamp()) - 3600
    assert_refused(use(anonymous, signed(claims | {"iat": past - 900, "exp": past})))


def test_token_from_the_future_is_refused(anonymous, claims):
    assert_refused(use(anonymous, signed(claims | {"iat": claims["iat"] + 3600, "exp": claims["exp"] + 3600})))


@pytest.mark.parametrize("algorithm", ["HS384", "HS512"])
def test_other_algorithm_is_refused(anonymous, claims, algorithm):
    assert_refused(use(anonymous, signed(claims, algorithm=algorithm)))


def test_unsigned_token_is_refused(anonymous, claims):
    assert_refused(use(anonymous, jwt.encode(claims, None, "none")))


@pytest.mark.parametrize("key", [FOREIGN_KEY, "SECRET_KEY"])
def test_token_signed_by_another_key_is_refused(anonymous, claims, key):
    key = settings.SECRET_KEY if key == "SECRET_KEY" else key
    assert_refused(use(anonymous, signed(claims, key=key)))


def test_signature_of_another_token_is_refused(anonymous, claims):
    body = signed(claims | {"exp": claims["exp"] + 60}).rpartition(".")[0]
    assert_refused(use(anonymous, f"{body}.{signed(claims).rpartition('.')[2]}"))


@pytest.mark.parametrize(("claim", "value"), [("aud", "others"), ("aud", []), ("iss", "others"), ("iss", "")])
def test_token_of_another_service_is_refused(anonymous, claims, claim, value):
    assert_refused(use(anonymous, signed(claims | {claim: value})))


@pytest.mark.parametrize("claim", ["iss", "aud", "sub", "sid", "iat", "exp"])
def test_missing_claim_is_refused(anonymous, claims, claim):
    del claims[claim]
    assert_refused(use(anonymous, signed(claims)))


@pytest.mark.parametrize("sid", ["", "7", "x" * 36, "00000000-0000-0000-0000-000000000000"])
def test_unknown_session_is_refused(anonymous, claims, sid):
    assert_refused(use(anonymous, signed(claims | {"sid": sid})))


@pytest.mark.parametrize("sub", ["", "x", "0", "-1", "9" * 30])
def test_unknown_user_is_refused(anonymous, claims, sub):
    assert_refused(use(anonymous, signed(claims | {"sub": sub})))


def test_session_of_another_user_is_refused(anonymous, claims, stranger):
    assert_refused(use(anonymous, signed(claims | {"sub": str(stranger.user.pk)})))


def test_revoked_session_is_refused_on_the_next_request(owner):
    assert owner.get(ME).status_code == 200
    Session.objects.filter(user=owner.user).update(revoked_at=timezone.now())
    assert_refused(owner.get(ME))


def test_expired_session_is_refused(owner):
    Session.objects.filter(user=owner.user).update(expires_at=timezone.now() - timedelta(seconds=1))
    assert_refused(owner.get(ME))


def test_deactivated_user_is_refused_on_the_next_request(owner, staff):
    assert staff.patch(f"/api/v1/users/{owner.user.pk}", {"is_active": False}).status_code == 200
    assert_refused(owner.get(ME))


def test_deleted_user_is_refused_on_the_next_request(owner, staff):
    assert staff.delete(f"/api/v1/users/{owner.user.pk}").status_code == 204
    assert_refused(owner.get(ME))


def test_purged_user_is_refused(owner):
    User.all_objects.filter(pk=owner.user.pk).purge()
    assert_refused(owner.get(ME))


def test_other_sessions_of_the_user_stay_valid(owner):
    other = Client(owner.user)
    Session.objects.filter(user=owner.user).order_by("created_at").first().delete()
    assert sorted([owner.get(ME).status_code, other.get(ME).status_code]) == [200, 401]


def test_refresh_token_is_not_an_access_token(anonymous, make_user):
    make_user(username="ada", password=PASSWORD)
    answer = anonymous.post("/api/v1/auth/login", {"username": "ada", "password": PASSWORD})
    assert_refused(use(anonymous, answer.json()["refresh_token"]))


def test_authentication_costs_one_query(owner):
    with CaptureQueriesContext(connection) as queries:
        assert owner.get(ME).status_code == 200
    session_queries = [query["sql"] for query in queries if '"sessions"' in query["sql"]]
    assert len(session_queries) == 1
    assert '"users"' in session_queries[0]
    assert len(queries) == 2


def test_forged_token_costs_no_query(anonymous, claims, django_assert_num_queries):
    with django_assert_num_queries(0):
        use(anonymous, signed(claims, key=FOREIGN_KEY))


def test_browser_session_without_csrf_token_cannot_write(anonymous, make_user):
    anonymous.force_login(make_user(name="Mary"))
    anonymous.handler.enforce_csrf_checks = True
    answer = anonymous.patch(ME, {"name": "Ada"})
    assert (answer.status_code, answer.headers["Content-Type"]) == (403, "application/problem+json")
    assert anonymous.get(ME).json()["name"] == "Mary"


def test_browser_session_with_csrf_token_can_write(anonymous, make_user):
    anonymous.force_login(make_user())
    anonymous.handler.enforce_csrf_checks = True
    anonymous.cookies["csrftoken"] = "c" * 32
    answer = anonymous.patch(ME, {"name": "Ada"}, headers={"X-CSRFToken": "c" * 32})
    assert answer.status_code == 200


@pytest.mark.parametrize("change", [{"is_active": False}, {"deleted_at": timezone.now()}])
def test_browser_session_ends_with_the_account(anonymous, make_user, change):
    user = make_user()
    anonymous.force_login(user)
    assert anonymous.get(ME).status_code == 200
    User.all_objects.filter(pk=user.pk).update(**change)
    assert_refused(anonymous.get(ME))


@pytest.mark.parametrize(
    "header",
    [
        {"kid": "../../../../dev/null"},
        {"kid": "' UNION SELECT 'x"},
        {"jku": "http://127.0.0.1:1/jwks.json"},
        {"x5u": "http://127.0.0.1:1/certificate.pem"},
        {"jwk": {"kty": "oct", "k": "c29tZWJvZHkgZWxzZSdzIGtleQ"}},
        {"crit": ["exp"]},
        {"typ": "refresh"},
    ],
)
def test_keys_in_a_token_header_are_ignored(anonymous, claims, header):
    assert_refused(use(anonymous, jwt.encode(claims, FOREIGN_KEY, "HS256", headers=header)))


@pytest.mark.parametrize(("seconds", "status"), [(20, 200), (40, 401)])
def test_expiry_tolerates_thirty_seconds_of_clock_skew(anonymous, claims, seconds, status):
    claims["exp"] = int(timezone.now().timestamp()) - seconds
    assert use(anonymous, signed(claims)).status_code == status
