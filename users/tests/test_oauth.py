"""Sign-in through a faulty provider, or with claims that cannot be stored."""

import base64
import hashlib
import html
import json
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

import pytest
import requests
from django.db import connection
from joserfc import jws
from joserfc.jwk import ECKey

from conftest import PASSWORD, Client
from records.audit.models import AuditEntry
from users.models import Identity, Session, User
from users.oidc import client as oidc_client
from users.oidc.views import MAX_PENDING_SIGN_INS
from users.tests.environments import assert_refused as assert_start_refused
from users.tests.environments import check, setting

pytestmark = pytest.mark.django_db

APP_URL = "https://stocks.example.com"
BASE = "/api/v1/auth/oauth"
ADA = {
    "sub": "ada-1",
    "email": "ada@example.com",
    "email_verified": True,
    "name": "Ada Lovelace",
    "preferred_username": "ada",
}


class Provider:
    """An OpenID Connect provider with one user, whose responses a test can replace."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.key = self.signing_key = ECKey.generate_key("P-256", {"kid": "first"})
        self.claims = dict(ADA)
        self.userinfo = {}
        self.discovery = {
            "issuer": url,
            "authorization_endpoint": f"{url}/authorize",
            "token_endpoint": f"{url}/token",
            "jwks_uri": f"{url}/jwks",
            "userinfo_endpoint": f"{url}/userinfo",
            "id_token_signing_alg_values_supported": ["ES256"],
        }
        self.token = {"access_token": "opaque", "token_type": "Bearer"}
        self.answers = {}  # overrides by path: status and body
        self.requested_paths = []
        self.token_requests = []  # the forms posted to the token endpoint
        self.barrier = threading.Barrier(1)  # waits for this many token requests before answering any

    def answer(self, path, form):
        self.requested_paths.append(path)
        if path == "/token":
            self.token_requests.append(form)
            self.barrier.wait(20)
        if path in self.answers:
            return self.answers[path]
        if path == "/token":
            return 200, {"id_token": self.id_token(form.get("code"))} | self.token
        return 200, {
            "/discovery": self.discovery,
            "/jwks": {"keys": [self.key.as_dict(private=False)]},
            "/userinfo": {"sub": self.claims.get("sub")} | self.userinfo,
        }[path]

    def id_token(self, code):
        header = without_omitted({"alg": "ES256", "kid": self.signing_key.kid or ...})
        return jws.serialize_compact(header, json.dumps(self.claims_for(code)), self.signing_key)

    def claims_for(self, code):
        """Return the claims of an ID token; the code is the nonce of its sign-in."""
        now = int(time.time())
        defaults = {"iss": self.url, "aud": "stocks", "iat": now, "exp": now + 300, "nonce": code}
        return without_omitted(defaults | self.claims)


def without_omitted(claims):
    """Return the claims except for those that a test sets to `...`."""
    return {name: value for name, value in claims.items() if value is not ...}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        length = int(self.headers.get("Content-Length", 0))
        status, content = self.server.provider.answer(self.path, dict(parse_qsl(self.rfile.read(length).decode())))
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET  # noqa: N815

    def log_message(self, *args):
        pass


@pytest.fixture
def provider(settings):
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.provider = Provider(f"http://127.0.0.1:{server.server_port}")
        config = {"client_id": "stocks", "client_secret": "secret", "server_metadata_url": server.provider.url}
        config["server_metadata_url"] += "/discovery"
        settings.OAUTH_PROVIDERS = {"example": config, "other": config}
        settings.APP_URL = APP_URL
        oidc_client.registry.cache_clear()
        oidc_client._paused_until.clear()
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        yield server.provider
        server.shutdown()
        thread.join()
        oidc_client.registry.cache_clear()


def new_browser():
    browser = Client()
    browser.credentials(HTTP_ACCEPT="text/html,application/xhtml+xml,*/*;q=0.8")
    return browser


@pytest.fixture
def browser():
    return new_browser()


def start_sign_in(browser, provider_name="example", **headers):
    """Start a sign-in and return the query of the redirect to the provider."""
    answer = browser.get(f"{BASE}/{provider_name}/login", headers=headers)
    assert answer.status_code == 302, answer.content.decode()
    return dict(parse_qsl(urlsplit(answer["Location"]).query))


@pytest.fixture
def sign_in(provider, browser):
    """Return a function that completes a sign-in at the provider."""

    def complete(provider_name="example", client=browser):
        return complete_sign_in(client, start_sign_in(client, provider_name), provider_name)

    return complete


def complete_sign_in(browser, authorization, provider_name="example"):
    return browser.get(
        f"{BASE}/{provider_name}/callback", {"code": authorization["nonce"], "state": authorization["state"]}
    )


def assert_signed_in(answer):
    assert (answer.status_code, answer.headers.get("Location")) == (302, "/api/v1"), visible_text(answer)


def assert_refused(answer, *messages, status=400):
    assert answer.status_code == status, visible_text(answer)
    assert answer["Content-Type"].startswith("text/html")
    assert "<h1>Signing in failed</h1>" in answer.content.decode()
    assert "Traceback" not in answer.content.decode()
    for message in messages:
        assert message in visible_text(answer)
    assert not users_from_providers().exists()
    assert not Identity.objects.exists()
    assert not Session.objects.exists()


def users_from_providers():
    """Return the users that signed up through a provider."""
    return User.all_objects.exclude(oauth_provider=None)


def visible_text(answer):
    """Return the visible text of a page."""
    text = re.sub("<style.*?</style>|<[^>]*>", " ", answer.content.decode(), flags=re.DOTALL)
    return " ".join(html.unescape(text).split())


# Redirect to the provider


def test_browser_is_redirected_to_the_provider_with_state_nonce_and_challenge(provider, browser):
    answer = browser.get(f"{BASE}/example/login")
    assert answer["Location"].startswith(f"{provider.url}/authorize?")
    authorization = dict(parse_qsl(urlsplit(answer["Location"]).query))
    assert authorization["state"]
    assert authorization["nonce"]
    assert authorization.items() >= {
        "response_type": "code", "client_id": "stocks", "scope": "openid email profile",
        "code_challenge_method": "S256",
    }.items()  # fmt: skip


def test_code_verifier_matches_the_challenge(provider, browser):
    authorization = start_sign_in(browser)
    complete_sign_in(browser, authorization)
    [request] = provider.token_requests
    digest = hashlib.sha256(request["code_verifier"].encode()).digest()
    assert base64.urlsafe_b64encode(digest).decode().rstrip("=") == authorization["code_challenge"]
    assert (request["grant_type"], request["code"], request["redirect_uri"]) == (
        "authorization_code", authorization["nonce"], authorization["redirect_uri"],
    )  # fmt: skip


@pytest.mark.parametrize("host", ["testserver", "evil.example"])
def test_redirect_uri_ignores_the_host_header(provider, browser, settings, host):
    settings.ALLOWED_HOSTS = ["*"]
    authorization = start_sign_in(browser, host=host, x_forwarded_host=host)
    assert authorization["redirect_uri"] == f"{APP_URL}{BASE}/example/callback"


def test_state_nonce_and_challenge_are_unique_per_sign_in(provider, browser):
    first, second = start_sign_in(browser), start_sign_in(browser)
    assert all(first[name] != second[name] for name in ("state", "nonce", "code_challenge"))


@pytest.mark.parametrize("step", ["login", "callback"])
def test_unknown_provider_is_not_found(provider, anonymous, step):
    answer = anonymous.get(f"{BASE}/nobody/{step}")
    assert (answer.status_code, answer["Content-Type"]) == (404, "application/problem+json")
    assert "nobody" in answer.json()["detail"]


@pytest.mark.parametrize(
    "discovery",
    [
        (500, {"error": "down"}), (404, b""), (200, b"<h1>Maintenance</h1>"), (200, b""), (200, {}), (200, []),
        (200, None), (200, "maintenance"), (200, b"\xff"),
    ],
    ids=str,
)  # fmt: skip
def test_invalid_discovery_document_is_reported_and_fetched_again(provider, browser, sign_in, discovery):
    provider.answers["/discovery"] = discovery
    answer = browser.get(f"{BASE}/example/login")
    assert_refused(answer, "The provider example does not answer as it should", status=502)
    del provider.answers["/discovery"]
    assert_signed_in(sign_in())


def test_client_id_of_a_discovery_document_is_not_used(provider, browser):
    provider.discovery["client_id"] = "somebody-else"
    answer = browser.get(f"{BASE}/example/login")
    if answer.status_code == 302:
        assert "client_id=stocks" in answer["Location"]
    else:
        assert_refused(answer, "The provider example", status=502)


def test_unreachable_provider_is_reported(provider, browser, settings):
    settings.OAUTH_PROVIDERS["example"]["server_metadata_url"] = "http://127.0.0.1:1/discovery"
    assert_refused(browser.get(f"{BASE}/example/login"), "does not answer as it should", status=502)


@pytest.mark.parametrize("name", ["issuer", "authorization_endpoint", "token_endpoint", "jwks_uri"])
def test_incomplete_discovery_document_is_refused_and_fetched_again(provider, browser, sign_in, name):
    value = provider.discovery.pop(name)
    answer = browser.get(f"{BASE}/example/login")
    if answer.status_code == 302:
        answer = sign_in()
    assert_refused(answer, "The provider example", status=answer.status_code)
    assert answer.status_code in {400, 502}
    provider.discovery[name] = value
    assert_signed_in(sign_in())


# Callback


def test_sign_in_creates_user_and_identity(sign_in, browser):
    assert_signed_in(sign_in())
    user = users_from_providers().get()
    assert (user.username, user.email, user.name, user.is_verified) == ("ada", ADA["email"], ADA["name"], True)
    assert (user.oauth_provider, user.has_usable_password()) == ("example", False)
    assert Identity.objects.values_list("user", "provider", "subject").get() == (user.pk, "example", "ada-1")


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "https://other.example"}, {"iss": ...}, {"iss": ""}, {"iss": None},
        {"aud": "somebody-else"}, {"aud": ["somebody-else"]}, {"aud": []}, {"aud": ...},
        {"aud": ["stocks", "somebody-else"]}, {"aud": ["stocks", "somebody-else"], "azp": "somebody-else"},
        {"azp": "somebody-else"},
        {"nonce": "another"}, {"nonce": ""}, {"nonce": None}, {"nonce": ...},
        {"exp": 1}, {"exp": ...}, {"exp": None}, {"exp": "soon"},
        {"iat": 9_999_999_999}, {"iat": ...}, {"nbf": 9_999_999_999},
        {"at_hash": "of-another-token"},
    ],
    ids=str,
)  # fmt: skip
def test_id_token_with_invalid_claims_is_refused(provider, sign_in, claims):
    provider.claims |= claims
    assert_refused(sign_in(), "The provider example did not confirm who you are")


def unsigned(header, claims):
    parts = [json.dumps(part).encode() for part in (header, claims)]
    return b".".join([base64.urlsafe_b64encode(part).rstrip(b"=") for part in parts] + [b""]).decode()


@pytest.mark.filterwarnings("ignore:JWS algorithm")
@pytest.mark.parametrize("alg", ["none", "None", "NONE", "HS256", "ES256", ""])
@pytest.mark.parametrize("supported", [["ES256"], ["ES256", "HS256", "none"], None], ids=str)
def test_unsigned_id_token_is_refused_for_any_supported_algorithms(provider, sign_in, monkeypatch, alg, supported):
    provider.discovery["id_token_signing_alg_values_supported"] = supported
    header = {"alg": alg, "kid": "first"}
    monkeypatch.setattr(provider, "id_token", lambda code: unsigned(header, provider.claims_for(code)))
    assert_refused(sign_in(), "did not confirm who you are")


@pytest.mark.parametrize("kid", ["first", "second"])
def test_id_token_signed_by_another_key_is_refused(provider, sign_in, kid):
    provider.signing_key = ECKey.generate_key("P-256", {"kid": kid})
    assert_refused(sign_in(), "did not confirm who you are")


@pytest.mark.parametrize("name", [{"kid": "second"}, {}], ids=str)
def test_rotated_provider_key_is_fetched_by_the_second_attempt(provider, sign_in, name):
    sign_in()
    provider.key = provider.signing_key = ECKey.generate_key("P-256", name, auto_kid=False)
    assert 302 in {sign_in().status_code, sign_in().status_code}


@pytest.mark.parametrize("id_token", [None, "", "nonsense", "a.b.c", 7, [], {}, "\N{SNOWMAN}.b.c"], ids=str)
def test_malformed_id_token_is_refused(provider, sign_in, id_token):
    provider.token["id_token"] = id_token
    assert_refused(sign_in(), "did not confirm who you are")


@pytest.mark.parametrize(
    "response",
    [
        (500, {"error": "server_error"}), (400, {"error": "invalid_grant"}), (401, {"error": "invalid_client"}),
        (400, b""), (200, b"<html>"), (200, {}), (200, []), (200, None), (200, "token"), (200, b"\xff"),
        (200, {"access_token": "opaque", "token_type": "Bearer"}), (200, {"error": ["invalid_grant"]}),
    ],
    ids=str,
)  # fmt: skip
def test_token_response_without_id_token_is_refused(provider, sign_in, response):
    provider.answers["/token"] = response
    assert_refused(sign_in(), "did not confirm who you are")


@pytest.mark.parametrize(
    "response",
    [
        (500, {}), (200, b"<html>"), (200, {}), (200, []), (200, None), (200, {"keys": []}), (200, {"keys": None}),
        (200, {"keys": ["first"]}), (200, {"keys": [{"kid": "first"}]}), (200, {"keys": [{"kty": "oct", "k": ""}]}),
        (200, {"keys": [{"kty": "EC", "crv": "P-256", "x": "", "y": "", "kid": "first"}]}),
    ],
    ids=str,
)  # fmt: skip
def test_unusable_provider_keys_are_refused_and_fetched_again(provider, sign_in, response):
    provider.answers["/jwks"] = response
    assert_refused(sign_in(), "did not confirm who you are")
    del provider.answers["/jwks"]
    assert_signed_in(sign_in())


def test_keys_of_unknown_type_are_ignored(provider, sign_in):
    unknown = {"kty": "AKP", "alg": "ML-DSA-44", "kid": "later", "pub": "AAAA"}
    provider.answers["/jwks"] = (200, {"keys": [unknown, provider.key.as_dict(private=False)]})
    assert_signed_in(sign_in())


def test_provider_failure_during_sign_in_is_reported(provider, browser):
    authorization = start_sign_in(browser)
    provider.answers = dict.fromkeys(["/discovery", "/token", "/jwks"], (503, b"down"))
    oidc_client.registry.cache_clear()  # as in a worker that has not loaded this provider yet
    answer = complete_sign_in(browser, authorization)
    assert_refused(answer, "The provider example", status=answer.status_code)
    assert answer.status_code in {400, 502}


def test_sign_in_is_logged(sign_in):
    sign_in()
    sign_in()
    user = users_from_providers().get()
    entries = AuditEntry.objects.filter(user_id=user.pk).order_by("id").values_list("action", "outcome")
    assert list(entries) == [
        ("register", "success"), ("oauth_login", "success"), ("logout", "success"), ("oauth_login", "success"),
    ]  # fmt: skip


def test_failed_sign_in_is_logged(provider, sign_in, make_user):
    holder = make_user(email=ADA["email"])
    provider.claims["email_verified"] = False
    sign_in()
    provider.answers["/token"] = (200, {})
    sign_in()
    entries = AuditEntry.objects.filter(action="oauth_login").order_by("id").values_list("outcome", "user_id")
    assert list(entries) == [("failure", holder.pk), ("failure", None)]


def test_denied_consent_is_reported(provider, browser):
    state = start_sign_in(browser)["state"]
    answer = browser.get(f"{BASE}/example/callback", {"error": "access_denied", "state": state})
    assert_refused(answer, "You did not allow example to sign you in")


@pytest.mark.parametrize("error", ["server_error", "temporarily_unavailable", "<script>alert(1)</script>", ""])
def test_other_provider_errors_are_reported(provider, browser, error):
    query = {"error": error, "error_description": "<script>alert(2)</script>", "state": start_sign_in(browser)["state"]}
    answer = browser.get(f"{BASE}/example/callback", query)
    assert_refused(answer, "did not confirm who you are")
    assert b"<script>alert" not in answer.content


def test_callback_without_a_code_is_refused(provider, browser):
    answer = browser.get(f"{BASE}/example/callback", {"state": start_sign_in(browser)["state"]})
    assert_refused(answer, "did not confirm who you are")


@pytest.mark.parametrize(
    "query", [{}, {"code": "code"}, {"code": "code", "state": "foreign"}, {"state": "\0"}], ids=str
)
def test_callback_with_unknown_state_is_refused(provider, browser, query):
    start_sign_in(browser)
    assert_refused(browser.get(f"{BASE}/example/callback", query), "begun elsewhere")
    assert provider.token_requests == []


def test_callback_with_unknown_state_sends_no_request_to_the_provider(provider, browser):
    """Anonymous requests must not make the service call the provider."""
    start_sign_in(browser)
    for _ in range(3):
        new_browser().get(f"{BASE}/example/callback", {"code": "code", "state": "foreign"})
    assert provider.requested_paths == ["/discovery"]


def test_state_of_another_browser_is_refused(provider, browser):
    assert_refused(complete_sign_in(browser, start_sign_in(new_browser())), "begun elsewhere")


def test_state_of_another_provider_is_refused(provider, browser):
    assert_refused(complete_sign_in(browser, start_sign_in(browser, "other")), "begun elsewhere")


def test_callback_works_once(provider, browser):
    authorization = start_sign_in(browser)
    assert_signed_in(complete_sign_in(browser, authorization))
    second_response = complete_sign_in(browser, authorization)
    assert second_response.status_code == 400
    assert "finished already" in visible_text(second_response)
    assert Session.objects.count() == len(provider.token_requests) == 1


def test_failed_sign_in_cannot_be_resumed(provider, browser):
    authorization = start_sign_in(browser)
    provider.claims["nonce"] = "another"
    complete_sign_in(browser, authorization)
    del provider.claims["nonce"]
    assert_refused(complete_sign_in(browser, authorization), "begun elsewhere")


def test_concurrent_sign_ins_in_one_browser_succeed(provider, browser):
    for authorization in [start_sign_in(browser) for _ in range(MAX_PENDING_SIGN_INS)]:
        assert_signed_in(complete_sign_in(browser, authorization))


def test_abandoned_sign_ins_do_not_fill_the_cookie(provider, browser):
    for _ in range(20):
        start_sign_in(browser)
    assert len(browser.cookies["sessionid"].value) < 3800


@pytest.mark.parametrize("method", ["post", "put", "patch", "delete"])
@pytest.mark.parametrize("step", ["login", "callback"])
def test_sign_in_endpoints_accept_only_get(provider, anonymous, step, method):
    assert getattr(anonymous, method)(f"{BASE}/example/{step}").status_code == 405


# Claims


def test_missing_email_is_read_from_userinfo(provider, sign_in):
    provider.userinfo = {name: provider.claims.pop(name) for name in ("email", "email_verified", "name")}
    assert_signed_in(sign_in())
    user = users_from_providers().get()
    assert (user.email, user.is_verified, user.name) == (ADA["email"], True, ADA["name"])


@pytest.mark.parametrize("email", [None, ""])
def test_empty_email_is_read_from_userinfo(provider, sign_in, email):
    provider.claims["email"] = email
    provider.userinfo = {"email": ADA["email"], "email_verified": True}
    assert_signed_in(sign_in())
    assert users_from_providers().get().email == ADA["email"]


@pytest.mark.parametrize("subject", ["eve-2", None, "", ["ada-1"], ...], ids=str)
def test_userinfo_of_another_subject_is_ignored(provider, sign_in, subject):
    del provider.claims["email"]
    userinfo = {"sub": subject, "email": "eve@example.com", "email_verified": True}
    provider.answers["/userinfo"] = (200, without_omitted(userinfo))
    answer = sign_in()
    if answer.status_code == 302:
        assert users_from_providers().get().email is None
    else:
        assert_refused(answer)


@pytest.mark.parametrize(
    "response",
    [(500, {}), (403, b""), (200, b"<html>"), (200, []), (200, None), (200, "ada"), (200, [["sub"]])],
    ids=str,
)
def test_invalid_userinfo_is_refused_or_ignored(provider, sign_in, response):
    del provider.claims["email"]
    provider.answers["/userinfo"] = response
    answer = sign_in()
    if answer.status_code == 302:
        assert users_from_providers().get().email is None
    else:
        assert_refused(answer, "did not confirm who you are")


def test_userinfo_is_optional_if_the_id_token_has_an_email(provider, sign_in):
    provider.answers["/userinfo"] = (500, {})
    assert_signed_in(sign_in())


@pytest.mark.parametrize(
    "name",
    [
        "ada",
        "A" * 300,
        "Al",
        "",
        "  ",
        "Ada\nLovelace",
        "Ada\0",
        "Ada \ud800",
        "<b>",
        None,
        7,
        ["Ada"],
        {"given": "Ada"},
    ],
    ids=ascii,
)
def test_invalid_name_is_omitted(provider, sign_in, name):
    provider.claims["name"] = name
    assert_signed_in(sign_in())
    user = users_from_providers().get()
    assert (user.name, user.email, user.is_verified) == (None, ADA["email"], True)


@pytest.mark.parametrize(
    "email",
    [
        ..., None, "", "  ", "ada", "ada@", "@example.com", "ada@example", "a b@example.com", "ada@example.com\0",
        "ada\ud800@example.com", "ada@example.com\nbcc: eve@example.com", "a" * 300 + "@example.com", 7, True,
        ["ada@example.com"], {"value": "ada@example.com"},
    ],
    ids=ascii,
)  # fmt: skip
def test_invalid_email_is_omitted(provider, sign_in, email):
    provider.claims["email"] = email
    assert_signed_in(sign_in())
    user = users_from_providers().get()
    assert (user.email, user.is_verified, user.name) == (None, False, ADA["name"])


def test_subjects_without_email_are_separate_users(provider, sign_in):
    for subject in ("ada-1", "eve-2"):
        provider.claims |= {"sub": subject, "email": ""}
        assert_signed_in(sign_in())
    assert users_from_providers().count() == Identity.objects.count() == 2


@pytest.mark.parametrize(
    "username",
    [
        ..., None, "", "a", "x" * 300, "Ünï ☃ <script>", "ada@example.com", "\0", "\ud800", "-- ", 7, ["ada"], {"a": 1},
        "../../admin", "李",
    ],
    ids=ascii,
)  # fmt: skip
def test_invalid_username_is_replaced_by_a_valid_one(provider, sign_in, username):
    provider.claims["preferred_username"] = username
    assert_signed_in(sign_in())
    user = users_from_providers().get()
    user.full_clean(exclude=["password"])
    assert user.email == ADA["email"]


def test_taken_username_gets_a_numeric_suffix(sign_in, make_user):
    make_user(username="Ada")
    assert_signed_in(sign_in())
    assert User.objects.get(email=ADA["email"]).username == "ada-2"


def test_subject_is_the_only_required_claim(provider, sign_in):
    provider.claims = {"sub": "ada-1"}
    del provider.discovery["userinfo_endpoint"]
    assert_signed_in(sign_in())
    user = users_from_providers().get()
    user.full_clean(exclude=["password"])
    assert (user.email, user.name, user.is_verified) == (None, None, False)


def test_subject_of_maximum_length_is_accepted(provider, sign_in):
    provider.claims["sub"] = "x" * 255
    assert_signed_in(sign_in())
    assert_signed_in(sign_in())
    assert Identity.objects.get().subject == "x" * 255


@pytest.mark.parametrize(
    "subject",
    [..., None, "", "x" * 256, "x" * 100_000, 7, 0, True, ["ada-1"], {"id": "ada-1"}, "ada\0", "ada\ud800"],
    ids=lambda subject: ascii(subject)[:20],
)
def test_invalid_subject_is_refused(provider, sign_in, subject):
    """OpenID Connect Core, section 2: a string of at most 255 ASCII characters."""
    provider.claims["sub"] = subject
    assert_refused(sign_in(), "did not confirm who you are")


def test_subjects_are_case_sensitive(provider, sign_in):
    sign_in()
    provider.claims |= {"sub": "ADA-1", "email": "other@example.com"}
    assert_signed_in(sign_in())
    assert users_from_providers().count() == 2


# Accounts with the same e-mail address


def test_verified_email_links_the_existing_account(sign_in, make_user):
    ada = make_user(email="Ada@example.com", is_verified=True, password=PASSWORD)
    assert_signed_in(sign_in())
    ada.refresh_from_db()
    assert Identity.objects.get().user == ada
    assert (ada.oauth_provider, ada.check_password(PASSWORD)) == ("example", True)


@pytest.mark.parametrize(
    "verified", [False, None, "", "false", "TRUE?", 0, 1, "1", [], ["true"], {"x": 1}, ...], ids=str
)
def test_unverified_email_links_no_account(provider, sign_in, make_user, verified):
    make_user(email=ADA["email"], is_verified=True)
    provider.claims["email_verified"] = verified
    assert_refused(sign_in(), "An account with your e-mail address exists here", "password", status=403)


@pytest.mark.parametrize("verified", [True, "true"])
def test_email_verified_claim_may_be_a_string(provider, sign_in, make_user, verified):
    make_user(email=ADA["email"])
    provider.claims["email_verified"] = verified
    assert_signed_in(sign_in())


def test_linking_an_unverified_account_revokes_its_password_and_sessions(sign_in, make_user):
    holder = make_user(email=ADA["email"], password=PASSWORD)
    stranger = Client(holder)
    assert_signed_in(sign_in())
    holder.refresh_from_db()
    assert (holder.is_verified, holder.has_usable_password()) == (True, False)
    assert stranger.get("/api/v1/users/me").status_code == 401


def test_linking_an_unverified_account_removes_its_other_identities(provider, sign_in):
    provider.claims |= {"sub": "eve-2", "email_verified": False}
    assert_signed_in(sign_in("other", client=new_browser()))  # Eve, whose claim to the address is unverified
    provider.claims = dict(ADA)
    assert_signed_in(sign_in())
    ada = Identity.objects.get(provider="example").user
    provider.claims |= {"sub": "eve-2", "email_verified": False}
    answer = sign_in("other", client=new_browser())
    assert answer.status_code == 403
    assert not Identity.objects.filter(user=ada, provider="other").exists()


@pytest.mark.parametrize("claims", [{"email": "ada"}, {"email": "Ada"}, {"email": " ada "}], ids=str)
def test_email_equal_to_another_username_links_no_account(provider, sign_in, make_user, claims):
    ada = make_user(username="ada", email="ada@example.com", is_verified=True)
    provider.claims |= claims
    sign_in()
    assert not Identity.objects.filter(user=ada).exists()


@pytest.mark.parametrize("email", ["\N{KELVIN SIGN}im@example.com", "kim@e\N{LATIN SMALL LETTER LONG S}ample.com"])
def test_email_with_lookalike_characters_links_no_account(provider, sign_in, make_user, email):
    kim = make_user(email="kim@example.com", is_verified=True)
    make_user(email="kim@esample.com", is_verified=True)
    provider.claims["email"] = email
    sign_in()
    assert not Identity.objects.filter(user=kim).exists()


@pytest.mark.parametrize("account", [{"is_active": False}, {"deleted": True}], ids=str)
def test_verified_email_of_an_inactive_or_deleted_account_is_refused(sign_in, make_user, account):
    user = make_user(email=ADA["email"], is_active=account.get("is_active", True))
    if account.get("deleted"):
        user.delete()
    assert_refused(sign_in(), "This account cannot be used", status=403)


@pytest.mark.parametrize("end", ["delete", "deactivate"])
def test_user_with_inactive_or_deleted_account_is_refused(sign_in, end):
    sign_in()
    user = users_from_providers().get()
    if end == "delete":
        user.delete()
    else:
        user.is_active = False
        user.save()
    answer = sign_in(client=new_browser())
    assert answer.status_code == 403
    assert "This account cannot be used" in visible_text(answer)
    assert not Session.objects.alive().exists()


def test_user_is_recognized_by_subject_after_profile_changes(provider, sign_in):
    sign_in()
    user = users_from_providers().get()
    users_from_providers().update(email="changed@example.com", username="changed")
    provider.claims |= {"email": "new@example.com", "email_verified": False, "name": "Ada King"}
    assert_signed_in(sign_in(client=new_browser()))
    assert Identity.objects.get().user == user
    assert users_from_providers().values_list("email", "name").get() == ("changed@example.com", ADA["name"])


def test_same_subject_at_two_providers_is_two_identities(sign_in):
    assert_signed_in(sign_in("example"))
    assert_signed_in(sign_in("other"))
    assert Identity.objects.values("user").distinct().count() == 1  # matched by their verified address
    assert users_from_providers().get().oauth_provider == "example"


def concurrent_callbacks(provider, *provider_names):
    """Send concurrent callbacks, one for each provider name; return their status codes."""
    browsers = [new_browser() for _ in provider_names]
    authorization = [
        start_sign_in(browser, provider_name) for browser, provider_name in zip(browsers, provider_names, strict=True)
    ]
    provider.barrier = threading.Barrier(len(provider_names))

    def send_callback(*callback):
        try:
            return complete_sign_in(*callback).status_code
        finally:
            connection.close()

    with ThreadPoolExecutor(len(provider_names)) as pool:
        return list(pool.map(send_callback, browsers, authorization, provider_names))


@pytest.mark.django_db(transaction=True)
def test_concurrent_sign_ins_create_one_user(provider):
    assert concurrent_callbacks(provider, *["example"] * 6) == [302] * 6
    assert users_from_providers().count() == Identity.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_concurrent_sign_ins_at_several_providers_create_one_user(provider):
    assert concurrent_callbacks(provider, "example", "other", "example", "other", "example", "other") == [302] * 6
    assert users_from_providers().count() == 1
    assert Identity.objects.count() == 2


# Slow providers


def drip(self):
    """Answer one byte at a time and never finish."""
    self.send_response(200)
    self.send_header("Content-Type", "application/json")
    self.end_headers()
    while not self.server.provider.is_done.wait(0.05):
        try:
            self.wfile.write(b" ")
        except OSError:
            return


def drip_headers(self):
    while not self.server.provider.is_done.wait(0.05):
        try:
            self.wfile.write(b"H")
        except OSError:
            return


@pytest.fixture
def slow_provider(provider, monkeypatch):
    """Return a function that makes the provider drip at a path: `slow("/token", drip)`."""
    provider.is_done = threading.Event()
    monkeypatch.setattr(oidc_client, "EXCHANGE_SECONDS", 0.5)

    def start(path, handler):
        answer = Handler.do_GET
        handle = lambda self: handler(self) if self.path == path else answer(self)  # noqa: E731
        monkeypatch.setattr(Handler, "do_GET", handle)
        monkeypatch.setattr(Handler, "do_POST", handle)

    yield start
    provider.is_done.set()


@pytest.mark.parametrize("handler", [drip, drip_headers])
@pytest.mark.parametrize(("path", "status"), [("/discovery", 502), ("/token", 400), ("/jwks", 400)])
def test_slow_provider_is_abandoned_at_the_deadline(provider, browser, slow_provider, path, handler, status):
    authorization = start_sign_in(browser) if path != "/discovery" else None
    slow_provider(path, handler)
    started_at = time.monotonic()
    answer = complete_sign_in(browser, authorization) if authorization else browser.get(f"{BASE}/example/login")
    assert_refused(answer, status=status)
    assert 0.4 < time.monotonic() - started_at < 3


def test_oversized_provider_response_is_refused(provider, browser, monkeypatch):
    monkeypatch.setattr("users.oidc.bounded_session.MAX_RESPONSE_BYTES", 1000)
    provider.answers["/discovery"] = (200, b" " * 2000 + b"{}")
    assert_refused(browser.get(f"{BASE}/example/login"), status=502)


# Settings


COMPLETE = {
    "OAUTH_MY_ID_CLIENT_ID": "stocks",
    "OAUTH_MY_ID_CLIENT_SECRET": "secret",
    "OAUTH_MY_ID_DISCOVERY_URL": "https://id.example.com/.well-known/openid-configuration",
}


def test_provider_name_is_derived_from_its_settings():
    assert setting("list(OAUTH_PROVIDERS)", **COMPLETE) == "['my-id']"


def test_no_provider_is_configured_by_default():
    assert setting("OAUTH_PROVIDERS") == "{}"


@pytest.mark.parametrize("name", COMPLETE)
@pytest.mark.parametrize("value", [None, ""])
def test_incomplete_provider_settings_are_refused_naming_the_missing_one(name, value):
    environment = {key: COMPLETE[key] for key in COMPLETE if key != name}
    process = check(**environment | ({name: value} if value is not None else {}))
    assert_start_refused(process, f"{name} must be set too")
    assert not any(key in process.stderr for key in COMPLETE if key != name)


@pytest.mark.parametrize(
    "url",
    [
        "http://id.example.com/openid", "http://127.0.0.1.example.com/", "http://localhost@example.com/",
        "http://localhost.example.com", "http://127.0.0.1:80@example.com/", "//id.example.com", "id.example.com",
        "ftp://id.example.com/", "https://", "https:///openid", "file:///etc/passwd", "https://id.exa mple.com/",
    ],
)  # fmt: skip
def test_insecure_discovery_url_is_refused(url):
    process = check(**COMPLETE | {"OAUTH_MY_ID_DISCOVERY_URL": url})
    assert_start_refused(process, "OAUTH_MY_ID_DISCOVERY_URL")
    assert "secret" not in process.stderr


@pytest.mark.parametrize(
    "url", ["http://localhost:8080/realms/x", "http://127.0.0.1/", "http://[::1]:9/", "https://id.example.com/"]
)
def test_local_or_https_discovery_url_is_accepted(url):
    assert check(**COMPLETE | {"OAUTH_MY_ID_DISCOVERY_URL": url}).stderr == ""


def test_unreachable_provider_is_not_retried_immediately(provider, browser, monkeypatch):
    requests_sent = []

    def refuse(self, *args, **kwargs):
        requests_sent.append(args)
        raise requests.Timeout

    monkeypatch.setattr(oidc_client, "_paused_until", {})
    monkeypatch.setattr(requests.Session, "request", refuse)
    assert [browser.get(f"{BASE}/example/login").status_code for _ in range(3)] == [502] * 3
    assert len(requests_sent) == 1


def test_linking_an_account_cancels_its_scheduled_deletion(sign_in, make_user):
    user = make_user(email="ada@example.com")
    user.schedule_deletion()
    sign_in()
    user.refresh_from_db()
    assert (user.deletion_at, user.is_verified) == (None, True)
