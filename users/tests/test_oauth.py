"""Sign-in through a provider that does not do what it should, or says what we cannot store."""

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
    """An OpenID Connect provider of one person, that does as it is told."""

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
        self.answers = {}  # by path: the status and what is answered instead
        self.visited = []
        self.asked = []  # the forms that came to the token endpoint
        self.together = threading.Barrier(1)  # how many must have come for tokens before any gets one

    def answer(self, path, form):
        self.visited.append(path)
        if path == "/token":
            self.asked.append(form)
            self.together.wait(20)
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
        header = given({"alg": "ES256", "kid": self.signing_key.kid or ...})
        return jws.serialize_compact(header, json.dumps(self.said(code)), self.signing_key)

    def said(self, code):
        """The claims; a code is simply the nonce of its sign-in."""
        now = int(time.time())
        return given({"iss": self.url, "aud": "stocks", "iat": now, "exp": now + 300, "nonce": code} | self.claims)


def given(claims):
    """Without those that a test leaves out."""
    return {name: value for name, value in claims.items() if value is not ...}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        length = int(self.headers.get("Content-Length", 0))
        status, said = self.server.provider.answer(self.path, dict(parse_qsl(self.rfile.read(length).decode())))
        body = said if isinstance(said, bytes) else json.dumps(said).encode()
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
        known = {"client_id": "stocks", "client_secret": "secret", "server_metadata_url": server.provider.url}
        known["server_metadata_url"] += "/discovery"
        settings.OAUTH_PROVIDERS = {"example": known, "other": known}
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


def begin(browser, through="example", **headers):
    """What the browser is sent to the provider with."""
    answer = browser.get(f"{BASE}/{through}/login", headers=headers)
    assert answer.status_code == 302, answer.content.decode()
    return dict(parse_qsl(urlsplit(answer["Location"]).query))


@pytest.fixture
def sign_in(provider, browser):
    """The way to the provider and back, there allowed by the one person whom it knows."""

    def go(through="example", by=browser):
        return come_back(by, begin(by, through), through)

    return go


def come_back(browser, begun, through="example"):
    return browser.get(f"{BASE}/{through}/callback", {"code": begun["nonce"], "state": begun["state"]})


def assert_signed_in(answer):
    assert (answer.status_code, answer.headers.get("Location")) == (302, "/api/v1"), words_of(answer)


def assert_refused(answer, *said, status=400):
    assert answer.status_code == status, words_of(answer)
    assert answer["Content-Type"].startswith("text/html")
    assert "<h1>Signing in failed</h1>" in answer.content.decode()
    assert "Traceback" not in answer.content.decode()
    for words in said:
        assert words in words_of(answer)
    assert not newcomers().exists()
    assert not Identity.objects.exists()
    assert not Session.objects.exists()


def newcomers():
    """Whom a provider has sent."""
    return User.all_objects.exclude(oauth_provider=None)


def words_of(answer):
    """What a person reads."""
    shown = re.sub("<style.*?</style>|<[^>]*>", " ", answer.content.decode(), flags=re.DOTALL)
    return " ".join(html.unescape(shown).split())


# The way there


def test_browser_is_sent_to_the_provider_with_state_nonce_and_challenge(provider, browser):
    answer = browser.get(f"{BASE}/example/login")
    assert answer["Location"].startswith(f"{provider.url}/authorize?")
    begun = dict(parse_qsl(urlsplit(answer["Location"]).query))
    assert begun["state"]
    assert begun["nonce"]
    assert begun.items() >= {
        "response_type": "code", "client_id": "stocks", "scope": "openid email profile",
        "code_challenge_method": "S256",
    }.items()  # fmt: skip


def test_code_verifier_is_what_the_challenge_was_made_of(provider, browser):
    begun = begin(browser)
    come_back(browser, begun)
    [asked] = provider.asked
    digest = hashlib.sha256(asked["code_verifier"].encode()).digest()
    assert base64.urlsafe_b64encode(digest).decode().rstrip("=") == begun["code_challenge"]
    assert (asked["grant_type"], asked["code"], asked["redirect_uri"]) == (
        "authorization_code", begun["nonce"], begun["redirect_uri"],
    )  # fmt: skip


@pytest.mark.parametrize("host", ["testserver", "evil.example"])
def test_provider_sends_back_to_our_own_url_whatever_the_host_header(provider, browser, settings, host):
    settings.ALLOWED_HOSTS = ["*"]
    begun = begin(browser, host=host, x_forwarded_host=host)
    assert begun["redirect_uri"] == f"{APP_URL}{BASE}/example/callback"


def test_every_sign_in_has_a_state_nonce_and_challenge_of_its_own(provider, browser):
    first, second = begin(browser), begin(browser)
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
def test_unusable_discovery_is_said_so_and_recovered_from(provider, browser, sign_in, discovery):
    provider.answers["/discovery"] = discovery
    answer = browser.get(f"{BASE}/example/login")
    assert_refused(answer, "The provider example does not answer as it should", status=502)
    del provider.answers["/discovery"]
    assert_signed_in(sign_in())


def test_discovery_that_says_who_we_are_ends_in_a_page_or_is_not_believed(provider, browser):
    provider.discovery["client_id"] = "somebody-else"
    answer = browser.get(f"{BASE}/example/login")
    if answer.status_code == 302:
        assert "client_id=stocks" in answer["Location"]
    else:
        assert_refused(answer, "The provider example", status=502)


def test_provider_that_is_down_is_said_so(provider, browser, settings):
    settings.OAUTH_PROVIDERS["example"]["server_metadata_url"] = "http://127.0.0.1:1/discovery"
    assert_refused(browser.get(f"{BASE}/example/login"), "does not answer as it should", status=502)


@pytest.mark.parametrize("name", ["issuer", "authorization_endpoint", "token_endpoint", "jwks_uri"])
def test_discovery_that_lacks_something_is_refused_and_recovered_from(provider, browser, sign_in, name):
    value = provider.discovery.pop(name)
    answer = browser.get(f"{BASE}/example/login")
    if answer.status_code == 302:
        answer = sign_in()
    assert_refused(answer, "The provider example", status=answer.status_code)
    assert answer.status_code in {400, 502}
    provider.discovery[name] = value
    assert_signed_in(sign_in())


# The way back


def test_person_signs_in(sign_in, browser):
    assert_signed_in(sign_in())
    user = newcomers().get()
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
def test_id_token_that_is_not_for_us_now_is_refused(provider, sign_in, claims):
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
    monkeypatch.setattr(provider, "id_token", lambda code: unsigned({"alg": alg, "kid": "first"}, provider.said(code)))
    assert_refused(sign_in(), "did not confirm who you are")


@pytest.mark.parametrize("kid", ["first", "second"])
def test_id_token_signed_by_another_key_is_refused(provider, sign_in, kid):
    provider.signing_key = ECKey.generate_key("P-256", {"kid": kid})
    assert_refused(sign_in(), "did not confirm who you are")


@pytest.mark.parametrize("name", [{"kid": "second"}, {}], ids=str)
def test_new_key_of_the_provider_is_fetched_at_the_latest_for_the_second_try(provider, sign_in, name):
    sign_in()
    provider.key = provider.signing_key = ECKey.generate_key("P-256", name, auto_kid=False)
    assert 302 in {sign_in().status_code, sign_in().status_code}


@pytest.mark.parametrize("id_token", [None, "", "nonsense", "a.b.c", 7, [], {}, "\N{SNOWMAN}.b.c"], ids=str)
def test_what_is_no_id_token_is_refused(provider, sign_in, id_token):
    provider.token["id_token"] = id_token
    assert_refused(sign_in(), "did not confirm who you are")


@pytest.mark.parametrize(
    "answered",
    [
        (500, {"error": "server_error"}), (400, {"error": "invalid_grant"}), (401, {"error": "invalid_client"}),
        (400, b""), (200, b"<html>"), (200, {}), (200, []), (200, None), (200, "token"), (200, b"\xff"),
        (200, {"access_token": "opaque", "token_type": "Bearer"}), (200, {"error": ["invalid_grant"]}),
    ],
    ids=str,
)  # fmt: skip
def test_token_endpoint_that_gives_no_id_token_is_refused(provider, sign_in, answered):
    provider.answers["/token"] = answered
    assert_refused(sign_in(), "did not confirm who you are")


@pytest.mark.parametrize(
    "answered",
    [
        (500, {}), (200, b"<html>"), (200, {}), (200, []), (200, None), (200, {"keys": []}), (200, {"keys": None}),
        (200, {"keys": ["first"]}), (200, {"keys": [{"kid": "first"}]}), (200, {"keys": [{"kty": "oct", "k": ""}]}),
        (200, {"keys": [{"kty": "EC", "crv": "P-256", "x": "", "y": "", "kid": "first"}]}),
    ],
    ids=str,
)  # fmt: skip
def test_provider_without_usable_keys_is_refused_and_recovered_from(provider, sign_in, answered):
    provider.answers["/jwks"] = answered
    assert_refused(sign_in(), "did not confirm who you are")
    del provider.answers["/jwks"]
    assert_signed_in(sign_in())


def test_keys_of_an_unknown_kind_beside_ours_do_no_harm(provider, sign_in):
    unknown = {"kty": "AKP", "alg": "ML-DSA-44", "kid": "later", "pub": "AAAA"}
    provider.answers["/jwks"] = (200, {"keys": [unknown, provider.key.as_dict(private=False)]})
    assert_signed_in(sign_in())


def test_provider_that_goes_down_during_sign_in_is_refused(provider, browser):
    begun = begin(browser)
    provider.answers = dict.fromkeys(["/discovery", "/token", "/jwks"], (503, b"down"))
    oidc_client.registry.cache_clear()  # another worker, which has not met the provider before
    answer = come_back(browser, begun)
    assert_refused(answer, "The provider example", status=answer.status_code)
    assert answer.status_code in {400, 502}


def test_sign_in_is_logged(sign_in):
    sign_in()
    sign_in()
    user = newcomers().get()
    told = AuditEntry.objects.filter(user_id=user.pk).order_by("id").values_list("action", "outcome")
    assert list(told) == [
        ("register", "success"), ("oauth_login", "success"), ("logout", "success"), ("oauth_login", "success"),
    ]  # fmt: skip


def test_failed_sign_in_is_logged(provider, sign_in, make_user):
    holder = make_user(email=ADA["email"])
    provider.claims["email_verified"] = False
    sign_in()
    provider.answers["/token"] = (200, {})
    sign_in()
    told = AuditEntry.objects.filter(action="oauth_login").order_by("id").values_list("outcome", "user_id")
    assert list(told) == [("failure", holder.pk), ("failure", None)]


def test_denial_is_said_so(provider, browser):
    state = begin(browser)["state"]
    answer = browser.get(f"{BASE}/example/callback", {"error": "access_denied", "state": state})
    assert_refused(answer, "You did not allow example to sign you in")


@pytest.mark.parametrize("error", ["server_error", "temporarily_unavailable", "<script>alert(1)</script>", ""])
def test_other_errors_of_the_provider_are_said_so(provider, browser, error):
    query = {"error": error, "error_description": "<script>alert(2)</script>", "state": begin(browser)["state"]}
    answer = browser.get(f"{BASE}/example/callback", query)
    assert_refused(answer, "did not confirm who you are")
    assert b"<script>alert" not in answer.content


def test_callback_without_a_code_is_refused(provider, browser):
    answer = browser.get(f"{BASE}/example/callback", {"state": begin(browser)["state"]})
    assert_refused(answer, "did not confirm who you are")


@pytest.mark.parametrize(
    "query", [{}, {"code": "code"}, {"code": "code", "state": "foreign"}, {"state": "\0"}], ids=str
)
def test_callback_that_was_not_begun_here_is_refused(provider, browser, query):
    begin(browser)
    assert_refused(browser.get(f"{BASE}/example/callback", query), "begun elsewhere")
    assert provider.asked == []


def test_callbacks_that_were_not_begun_here_do_not_make_us_ask_the_provider(provider, browser):
    """Anybody can send them, and each would wait for the provider."""
    begin(browser)
    for _ in range(3):
        new_browser().get(f"{BASE}/example/callback", {"code": "code", "state": "foreign"})
    assert provider.visited == ["/discovery"]


def test_state_of_another_browser_is_refused(provider, browser):
    assert_refused(come_back(browser, begin(new_browser())), "begun elsewhere")


def test_state_of_another_provider_is_refused(provider, browser):
    assert_refused(come_back(browser, begin(browser, "other")), "begun elsewhere")


def test_callback_works_once(provider, browser):
    begun = begin(browser)
    assert_signed_in(come_back(browser, begun))
    again = come_back(browser, begun)
    assert again.status_code == 400
    assert "finished already" in words_of(again)
    assert Session.objects.count() == len(provider.asked) == 1


def test_sign_in_that_failed_cannot_be_continued(provider, browser):
    begun = begin(browser)
    provider.claims["nonce"] = "another"
    come_back(browser, begun)
    del provider.claims["nonce"]
    assert_refused(come_back(browser, begun), "begun elsewhere")


def test_several_tabs_may_sign_in_side_by_side(provider, browser):
    for begun in [begin(browser) for _ in range(MAX_PENDING_SIGN_INS)]:
        assert_signed_in(come_back(browser, begun))


def test_abandoned_sign_ins_do_not_fill_the_cookie(provider, browser):
    for _ in range(20):
        begin(browser)
    assert len(browser.cookies["sessionid"].value) < 3800


@pytest.mark.parametrize("method", ["post", "put", "patch", "delete"])
@pytest.mark.parametrize("step", ["login", "callback"])
def test_steps_can_only_be_visited(provider, anonymous, step, method):
    assert getattr(anonymous, method)(f"{BASE}/example/{step}").status_code == 405


# What the provider says of the person


def test_email_is_taken_from_userinfo_where_the_id_token_has_none(provider, sign_in):
    provider.userinfo = {name: provider.claims.pop(name) for name in ("email", "email_verified", "name")}
    assert_signed_in(sign_in())
    user = newcomers().get()
    assert (user.email, user.is_verified, user.name) == (ADA["email"], True, ADA["name"])


@pytest.mark.parametrize("email", [None, ""])
def test_email_is_taken_from_userinfo_where_that_of_the_id_token_is_empty(provider, sign_in, email):
    provider.claims["email"] = email
    provider.userinfo = {"email": ADA["email"], "email_verified": True}
    assert_signed_in(sign_in())
    assert newcomers().get().email == ADA["email"]


@pytest.mark.parametrize("subject", ["eve-2", None, "", ["ada-1"], ...], ids=str)
def test_userinfo_of_another_subject_is_ignored(provider, sign_in, subject):
    del provider.claims["email"]
    userinfo = {"sub": subject, "email": "eve@example.com", "email_verified": True}
    provider.answers["/userinfo"] = (200, given(userinfo))
    answer = sign_in()
    if answer.status_code == 302:
        assert newcomers().get().email is None
    else:
        assert_refused(answer)


@pytest.mark.parametrize(
    "answered",
    [(500, {}), (403, b""), (200, b"<html>"), (200, []), (200, None), (200, "ada"), (200, [["sub"]])],
    ids=str,
)
def test_userinfo_that_cannot_be_read_ends_in_a_page_or_without_it(provider, sign_in, answered):
    del provider.claims["email"]
    provider.answers["/userinfo"] = answered
    answer = sign_in()
    if answer.status_code == 302:
        assert newcomers().get().email is None
    else:
        assert_refused(answer, "did not confirm who you are")


def test_userinfo_is_not_needed_where_the_id_token_has_the_email(provider, sign_in):
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
def test_name_that_cannot_be_stored_is_done_without(provider, sign_in, name):
    provider.claims["name"] = name
    assert_signed_in(sign_in())
    user = newcomers().get()
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
def test_email_that_cannot_be_stored_is_done_without(provider, sign_in, email):
    provider.claims["email"] = email
    assert_signed_in(sign_in())
    user = newcomers().get()
    assert (user.email, user.is_verified, user.name) == (None, False, ADA["name"])


def test_people_without_an_email_are_different_people(provider, sign_in):
    for subject in ("ada-1", "eve-2"):
        provider.claims |= {"sub": subject, "email": ""}
        assert_signed_in(sign_in())
    assert newcomers().count() == Identity.objects.count() == 2


@pytest.mark.parametrize(
    "username",
    [
        ..., None, "", "a", "x" * 300, "Ünï ☃ <script>", "ada@example.com", "\0", "\ud800", "-- ", 7, ["ada"], {"a": 1},
        "../../admin", "李",
    ],
    ids=ascii,
)  # fmt: skip
def test_odd_username_becomes_one_that_can_be_stored(provider, sign_in, username):
    provider.claims["preferred_username"] = username
    assert_signed_in(sign_in())
    user = newcomers().get()
    user.full_clean(exclude=["password"])
    assert user.email == ADA["email"]


def test_taken_username_gets_a_number(sign_in, make_user):
    make_user(username="Ada")
    assert_signed_in(sign_in())
    assert User.objects.get(email=ADA["email"]).username == "ada-2"


def test_provider_that_says_nothing_but_who_it_is_will_do(provider, sign_in):
    provider.claims = {"sub": "ada-1"}
    del provider.discovery["userinfo_endpoint"]
    assert_signed_in(sign_in())
    user = newcomers().get()
    user.full_clean(exclude=["password"])
    assert (user.email, user.name, user.is_verified) == (None, None, False)


def test_longest_subject_will_do(provider, sign_in):
    provider.claims["sub"] = "x" * 255
    assert_signed_in(sign_in())
    assert_signed_in(sign_in())
    assert Identity.objects.get().subject == "x" * 255


@pytest.mark.parametrize(
    "subject",
    [..., None, "", "x" * 256, "x" * 100_000, 7, 0, True, ["ada-1"], {"id": "ada-1"}, "ada\0", "ada\ud800"],
    ids=lambda subject: ascii(subject)[:20],
)
def test_subject_that_is_none_is_refused(provider, sign_in, subject):
    """OpenID Connect Core, section 2: a string of at most 255 ASCII characters."""
    provider.claims["sub"] = subject
    assert_refused(sign_in(), "did not confirm who you are")


def test_subjects_differ_by_case(provider, sign_in):
    sign_in()
    provider.claims |= {"sub": "ADA-1", "email": "other@example.com"}
    assert_signed_in(sign_in())
    assert newcomers().count() == 2


# Whose e-mail an existing account holds


def test_verified_email_joins_the_account_that_holds_it(sign_in, make_user):
    ada = make_user(email="Ada@example.com", is_verified=True, password=PASSWORD)
    assert_signed_in(sign_in())
    ada.refresh_from_db()
    assert Identity.objects.get().user == ada
    assert (ada.oauth_provider, ada.check_password(PASSWORD)) == ("example", True)


@pytest.mark.parametrize(
    "verified", [False, None, "", "false", "TRUE?", 0, 1, "1", [], ["true"], {"x": 1}, ...], ids=str
)
def test_email_that_is_not_said_to_be_verified_joins_nothing(provider, sign_in, make_user, verified):
    make_user(email=ADA["email"], is_verified=True)
    provider.claims["email_verified"] = verified
    assert_refused(sign_in(), "An account with your e-mail address exists here", "password", status=403)


@pytest.mark.parametrize("verified", [True, "true"])
def test_verification_may_be_said_by_a_word(provider, sign_in, make_user, verified):
    make_user(email=ADA["email"])
    provider.claims["email_verified"] = verified
    assert_signed_in(sign_in())


def test_joining_an_unverified_account_ends_what_the_stranger_had_there(sign_in, make_user):
    squatter = make_user(email=ADA["email"], password=PASSWORD)
    stranger = Client(squatter)
    assert_signed_in(sign_in())
    squatter.refresh_from_db()
    assert (squatter.is_verified, squatter.has_usable_password()) == (True, False)
    assert stranger.get("/api/v1/users/me").status_code == 401


def test_joining_an_unverified_account_ends_the_strangers_way_in_through_a_provider(provider, sign_in):
    provider.claims |= {"sub": "eve-2", "email_verified": False}
    assert_signed_in(sign_in("other", by=new_browser()))  # Eve, who only says that the address is hers
    provider.claims = dict(ADA)
    assert_signed_in(sign_in())
    ada = Identity.objects.get(provider="example").user
    provider.claims |= {"sub": "eve-2", "email_verified": False}
    answer = sign_in("other", by=new_browser())
    assert answer.status_code == 403
    assert not Identity.objects.filter(user=ada, provider="other").exists()


@pytest.mark.parametrize("claims", [{"email": "ada"}, {"email": "Ada"}, {"email": " ada "}], ids=str)
def test_email_equal_to_another_username_links_no_account(provider, sign_in, make_user, claims):
    ada = make_user(username="ada", email="ada@example.com", is_verified=True)
    provider.claims |= claims
    sign_in()
    assert not Identity.objects.filter(user=ada).exists()


@pytest.mark.parametrize("email", ["\N{KELVIN SIGN}im@example.com", "kim@e\N{LATIN SMALL LETTER LONG S}ample.com"])
def test_email_that_only_looks_alike_joins_nothing(provider, sign_in, make_user, email):
    kim = make_user(email="kim@example.com", is_verified=True)
    make_user(email="kim@esample.com", is_verified=True)
    provider.claims["email"] = email
    sign_in()
    assert not Identity.objects.filter(user=kim).exists()


@pytest.mark.parametrize("account", [{"is_active": False}, {"deleted": True}], ids=str)
def test_verified_email_of_an_account_that_cannot_be_used_is_refused(sign_in, make_user, account):
    user = make_user(email=ADA["email"], is_active=account.get("is_active", True))
    if account.get("deleted"):
        user.delete()
    assert_refused(sign_in(), "This account cannot be used", status=403)


@pytest.mark.parametrize("end", ["delete", "deactivate"])
def test_person_whose_account_cannot_be_used_is_refused(sign_in, end):
    sign_in()
    user = newcomers().get()
    if end == "delete":
        user.delete()
    else:
        user.is_active = False
        user.save()
    answer = sign_in(by=new_browser())
    assert answer.status_code == 403
    assert "This account cannot be used" in words_of(answer)
    assert not Session.objects.alive().exists()


def test_person_is_known_again_whatever_has_changed(provider, sign_in):
    sign_in()
    user = newcomers().get()
    newcomers().update(email="changed@example.com", username="changed")
    provider.claims |= {"email": "new@example.com", "email_verified": False, "name": "Ada King"}
    assert_signed_in(sign_in(by=new_browser()))
    assert Identity.objects.get().user == user
    assert newcomers().values_list("email", "name").get() == ("changed@example.com", ADA["name"])


def test_same_subject_of_two_providers_is_two_identities(sign_in):
    assert_signed_in(sign_in("example"))
    assert_signed_in(sign_in("other"))
    assert Identity.objects.values("user").distinct().count() == 1  # of one person, whose address is verified
    assert newcomers().get().oauth_provider == "example"


def at_once(provider, *throughs):
    """The statuses that browsers get which come back from their providers at the same time."""
    browsers = [new_browser() for _ in throughs]
    begun = [begin(browser, through) for browser, through in zip(browsers, throughs, strict=True)]
    provider.together = threading.Barrier(len(throughs))

    def come(*each):
        try:
            return come_back(*each).status_code
        finally:
            connection.close()

    with ThreadPoolExecutor(len(throughs)) as pool:
        return list(pool.map(come, browsers, begun, throughs))


@pytest.mark.django_db(transaction=True)
def test_person_who_comes_several_times_at_once_is_one_user(provider):
    assert at_once(provider, *["example"] * 6) == [302] * 6
    assert newcomers().count() == Identity.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_person_who_comes_through_several_providers_at_once_is_one_user(provider):
    assert at_once(provider, "example", "other", "example", "other", "example", "other") == [302] * 6
    assert newcomers().count() == 1
    assert Identity.objects.count() == 2


# Providers that take their time


def drip(self):
    """Answer a byte at a time, without an end."""
    self.send_response(200)
    self.send_header("Content-Type", "application/json")
    self.end_headers()
    while not self.server.provider.is_done.wait(0.05):
        try:
            self.wfile.write(b" ")
        except OSError:
            return


def drip_the_head(self):
    while not self.server.provider.is_done.wait(0.05):
        try:
            self.wfile.write(b"H")
        except OSError:
            return


@pytest.fixture
def slow(provider, monkeypatch):
    """Let the provider drip at a path: `slow("/token", drip)`."""
    provider.is_done = threading.Event()
    monkeypatch.setattr(oidc_client, "EXCHANGE_SECONDS", 0.5)

    def start(path, how):
        answer = Handler.do_GET
        handle = lambda self: how(self) if self.path == path else answer(self)  # noqa: E731
        monkeypatch.setattr(Handler, "do_GET", handle)
        monkeypatch.setattr(Handler, "do_POST", handle)

    yield start
    provider.is_done.set()


@pytest.mark.parametrize("how", [drip, drip_the_head])
@pytest.mark.parametrize(("path", "status"), [("/discovery", 502), ("/token", 400), ("/jwks", 400)])
def test_provider_that_drips_is_given_up_in_time(provider, browser, slow, path, how, status):
    begun = begin(browser) if path != "/discovery" else None
    slow(path, how)
    began = time.monotonic()
    answer = come_back(browser, begun) if begun else browser.get(f"{BASE}/example/login")
    assert_refused(answer, status=status)
    assert 0.4 < time.monotonic() - began < 3


def test_answer_without_an_end_is_not_read(provider, browser, monkeypatch):
    monkeypatch.setattr("users.oidc.bounded_session.MAX_RESPONSE_BYTES", 1000)
    provider.answers["/discovery"] = (200, b" " * 2000 + b"{}")
    assert_refused(browser.get(f"{BASE}/example/login"), status=502)


def test_some_threads_never_wait_for_providers(provider, browser, monkeypatch):
    monkeypatch.setattr(oidc_client, "_exchanges", threading.BoundedSemaphore(1))
    oidc_client._exchanges.acquire()
    assert_refused(browser.get(f"{BASE}/example/login"), status=502)
    assert provider.visited == []
    oidc_client._exchanges.release()
    assert begin(browser)


# Settings


COMPLETE = {
    "OAUTH_MY_ID_CLIENT_ID": "stocks",
    "OAUTH_MY_ID_CLIENT_SECRET": "secret",
    "OAUTH_MY_ID_DISCOVERY_URL": "https://id.example.com/.well-known/openid-configuration",
}


def test_provider_is_named_by_its_settings():
    assert setting("list(OAUTH_PROVIDERS)", **COMPLETE) == "['my-id']"


def test_without_settings_there_is_no_provider():
    assert setting("OAUTH_PROVIDERS") == "{}"


@pytest.mark.parametrize("name", COMPLETE)
@pytest.mark.parametrize("value", [None, ""])
def test_incomplete_provider_is_refused_naming_what_is_missing(name, value):
    given = {**COMPLETE, name: value} if value is not None else {key: COMPLETE[key] for key in COMPLETE if key != name}
    done = check(**given)
    assert_start_refused(done, f"{name} must be set too")
    assert not any(key in done.stderr for key in COMPLETE if key != name)


@pytest.mark.parametrize(
    "url",
    [
        "http://id.example.com/openid", "http://127.0.0.1.example.com/", "http://localhost@example.com/",
        "http://localhost.example.com", "http://127.0.0.1:80@example.com/", "//id.example.com", "id.example.com",
        "ftp://id.example.com/", "https://", "https:///openid", "file:///etc/passwd", "https://id.exa mple.com/",
    ],
)  # fmt: skip
def test_discovery_url_that_others_could_answer_is_refused(url):
    done = check(**COMPLETE | {"OAUTH_MY_ID_DISCOVERY_URL": url})
    assert_start_refused(done, "OAUTH_MY_ID_DISCOVERY_URL")
    assert "secret" not in done.stderr


@pytest.mark.parametrize(
    "url", ["http://localhost:8080/realms/x", "http://127.0.0.1/", "http://[::1]:9/", "https://id.example.com/"]
)
def test_discovery_url_that_only_the_provider_answers_will_do(url):
    assert check(**COMPLETE | {"OAUTH_MY_ID_DISCOVERY_URL": url}).stderr == ""


def test_provider_that_does_not_answer_is_not_asked_again_at_once(provider, browser, monkeypatch):
    asked = []

    def refuse(self, *args, **kwargs):
        asked.append(args)
        raise requests.Timeout

    monkeypatch.setattr(oidc_client, "_paused_until", {})
    monkeypatch.setattr(requests.Session, "request", refuse)
    assert [browser.get(f"{BASE}/example/login").status_code for _ in range(3)] == [502] * 3
    assert len(asked) == 1


def test_joined_account_is_not_removed_for_a_stranger_who_asked_for_it(sign_in, make_user):
    user = make_user(email="ada@example.com")
    user.schedule_deletion()
    sign_in()
    user.refresh_from_db()
    assert (user.deletion_at, user.is_verified) == (None, True)
