"""Sign-in through real OpenID Connect providers, in a real browser."""

import json
import re
import secrets
import subprocess
from pathlib import Path
from urllib.parse import quote
from urllib.request import urlopen

import pytest

from conftest import PASSWORD, Client, npm_ci
from users.models import Identity, Session, User
from users.oidc import client as oidc_client

pytestmark = [
    pytest.mark.browser,
    pytest.mark.django_db(transaction=True),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

OIDC = Path(__file__).parent / "oidc"
BASE = "/api/v1/auth/oauth"
ACCOUNTS = {
    "ada": {"email": "ada@example.com", "email_verified": True, "name": "Ada Lovelace", "preferred_username": "ada"},
    "eve": {"email": "ada@example.com", "email_verified": False, "name": "Eve", "preferred_username": "eve"},
    "una": {"email": "una@example.com", "email_verified": False, "name": "Una", "preferred_username": "una"},
}
# The ID tokens of the second provider contain only `sub`; the other claims come from userinfo.
PROVIDERS = {"first": {"alg": "ES256"}, "second": {"alg": "RS256", "onlyInUserinfo": True}}


@pytest.fixture(scope="module")
def oidc():
    """Install the provider and return its folder."""
    return npm_ci(OIDC)


@pytest.fixture(scope="module")
def issuers(oidc, live_server):
    """Start both providers; return their issuer URLs by name."""
    processes = {name: start_provider(oidc, live_server.url, name, **options) for name, options in PROVIDERS.items()}
    try:
        yield {name: wait_for_issuer(process) for name, process in processes.items()}
    finally:
        for process in processes.values():
            process.terminate()
            process.communicate(timeout=20)


def start_provider(oidc, url, name, **options):
    task = {"accounts": ACCOUNTS, "redirectUri": f"{url}{BASE}/{name}/callback", **options}
    # The provider exits when its standard input closes, for example when this process is killed.
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(["node", "provider.mjs", json.dumps(task)], cwd=oidc, text=True, **pipes)


def wait_for_issuer(process):
    url = process.stdout.readline().strip()  # printed once the provider listens
    with urlopen(f"{url}/.well-known/openid-configuration", timeout=20) as answer:
        assert json.load(answer)["issuer"] == url
    return url


@pytest.fixture(autouse=True)
def _providers(issuers, live_server, settings):
    settings.APP_URL = live_server.url
    settings.OAUTH_PROVIDERS = {
        name: {
            "client_id": "stocks",
            "client_secret": "secret",
            "server_metadata_url": f"{url}/.well-known/openid-configuration",
        }
        for name, url in issuers.items()
    }
    oidc_client.registry.cache_clear()
    yield
    oidc_client.registry.cache_clear()


@pytest.fixture
def new_page(chromium, live_server):
    """Return a function that opens a page in a new browser context without cookies."""
    contexts = []

    def new():
        contexts.append(chromium.new_context(base_url=live_server.url))
        page = contexts[-1].new_page()
        page.set_default_timeout(20_000)
        return page

    yield new
    for context in contexts:
        context.close()


@pytest.fixture
def page(new_page):
    return new_page()


def start_sign_in(page, provider_name="first", next_url=""):
    page.goto(f"{BASE}/{provider_name}/login?next={quote(next_url)}")


def sign_in(page, login="ada", provider_name="first", next_url=""):
    start_sign_in(page, provider_name, next_url)
    page.fill("[name=login]", login)
    page.click("[value=allow]")


def assert_signed_in(page, username):
    assert path_of(page) == "/api/v1"
    assert username in page.inner_text(".navbar")
    assert call_api(page, "GET", "/users/me")["username"] == username


def assert_refused(page, message):
    assert path_of(page).startswith(BASE)
    assert page.inner_text("h1") == "Signing in failed"
    assert message in page.inner_text("main")
    page.goto("/api/v1")
    assert "Log in" in page.inner_text(".navbar")


def path_of(page):
    return re.sub("^http://[^/]*", "", page.url)


def call_api(page, method, path, **headers):
    """Call the API from a script of the page; return the JSON body of a 200, otherwise the status code."""
    script = """async ([method, url, headers]) => {
        const csrf = document.cookie.match(/csrftoken=([^;]*)/);
        if (csrf) headers["X-CSRFToken"] = csrf[1];
        const answer = await fetch(url, {method, headers: {Accept: "application/json", ...headers}});
        return [answer.status, await answer.text()];
    }"""
    status, text = page.evaluate(script, [method, f"/api/v1{path}", headers])
    return json.loads(text) if status == 200 else status


def test_new_user_signs_in(page):
    sign_in(page)
    assert_signed_in(page, "ada")
    identity = Identity.objects.get()
    assert (identity.provider, identity.subject) == ("first", "ada")
    user = identity.user
    assert (user.email, user.name, user.is_verified) == ("ada@example.com", "Ada Lovelace", True)
    assert (user.oauth_provider, user.has_usable_password()) == ("first", False)
    [session] = call_api(page, "GET", "/auth/sessions")["items"]
    assert session["current"]
    assert "Chrom" in session["user_agent"]


@pytest.mark.parametrize(("login", "is_verified"), [("ada", True), ("una", False)])
@pytest.mark.parametrize("provider_name", PROVIDERS)
def test_email_is_verified_if_the_provider_verified_it(page, provider_name, login, is_verified):
    sign_in(page, login, provider_name)
    assert_signed_in(page, login)
    user = User.objects.get(oauth_provider=provider_name)
    assert (user.email, user.is_verified) == (f"{login}@example.com", is_verified)


def test_returning_user_is_recognized_after_an_email_change(new_page):
    sign_in(new_page())
    user = Identity.objects.get().user
    user.email, user.username = "king@example.com", "king"
    user.save()
    page = new_page()
    sign_in(page)
    assert_signed_in(page, "king")
    assert Identity.objects.get().user == user
    assert User.objects.get(pk=user.pk).email == "king@example.com"


def test_provider_session_is_reused(page):
    sign_in(page)
    assert call_api(page, "POST", "/auth/logout") == 204
    start_sign_in(page)
    assert_signed_in(page, "ada")


@pytest.mark.parametrize("provider_name", PROVIDERS)
def test_verified_email_links_the_existing_account(page, make_user, provider_name):
    ada = make_user(username="countess", email="ADA@example.com", password=PASSWORD, is_verified=True)
    sign_in(page, provider_name=provider_name)
    assert_signed_in(page, "countess")
    assert Identity.objects.get().user == ada
    assert password_login_status("countess") == 200


def test_linking_an_unverified_account_disables_its_password(page, make_user):
    make_user(username="squatter", email="ada@example.com", password=PASSWORD)
    assert password_login_status("squatter") == 200
    sign_in(page)
    assert_signed_in(page, "squatter")
    assert call_api(page, "GET", "/users/me")["is_verified"]
    assert len(call_api(page, "GET", "/auth/sessions")["items"]) == 1
    assert password_login_status("squatter") == 401


def password_login_status(username):
    return Client().post("/api/v1/auth/login", {"username": username, "password": PASSWORD}).status_code


@pytest.mark.parametrize("is_verified", [True, False])
@pytest.mark.parametrize("provider_name", PROVIDERS)
def test_unverified_email_links_no_account(page, make_user, provider_name, is_verified):
    make_user(username="ada", email="ada@example.com", password=PASSWORD, is_verified=is_verified)
    sign_in(page, "eve", provider_name)
    assert_refused(page, "An account with your e-mail address exists here")
    assert not Identity.objects.exists()
    assert password_login_status("ada") == 200


def test_denied_consent_is_reported(page):
    start_sign_in(page)
    page.click("[value=deny]")
    assert_refused(page, "You did not allow first to sign you in. Nothing was changed.")
    assert not Identity.objects.exists()


def test_user_can_sign_in_after_denying_consent(page):
    start_sign_in(page)
    page.click("[value=deny]")
    sign_in(page)
    assert_signed_in(page, "ada")


def test_accounts_at_two_providers_are_separate_identities(page):
    for provider_name in PROVIDERS:
        sign_in(page, "una" if provider_name == "first" else "ada", provider_name)
    assert set(Identity.objects.values_list("provider", "subject", "user__username")) == {
        ("first", "una", "una"),
        ("second", "ada", "ada"),
    }
    assert_signed_in(page, "ada")


def test_one_user_has_identities_at_two_providers(page):
    for provider_name in PROVIDERS:
        sign_in(page, provider_name=provider_name)
    assert_signed_in(page, "ada")
    assert Identity.objects.count() == 2
    assert Identity.objects.values("user").distinct().count() == 1


def test_browser_session_is_exchanged_for_tokens(page):
    sign_in(page)
    tokens = call_api(page, "POST", "/auth/token")
    page.context.clear_cookies()
    assert call_api(page, "GET", "/users/me", Authorization=f"Bearer {tokens['access_token']}")["username"] == "ada"
    assert Client().post("/api/v1/auth/refresh", {"refresh_token": tokens["refresh_token"]}).status_code == 200


def test_token_exchange_requires_a_csrf_token(page):
    sign_in(page)
    page.context.clear_cookies(name="csrftoken")
    assert call_api(page, "POST", "/auth/token") == 403


def test_tokens_remain_valid_after_browser_logout(page):
    sign_in(page)
    tokens = call_api(page, "POST", "/auth/token")
    assert call_api(page, "POST", "/auth/logout") == 204
    assert call_api(page, "GET", "/users/me", Authorization=f"Bearer {tokens['access_token']}")["username"] == "ada"


def test_logout_ends_the_browser_session(page):
    sign_in(page)
    cookies = page.context.cookies()
    assert call_api(page, "POST", "/auth/logout") == 204
    assert call_api(page, "GET", "/users/me") == 401
    page.context.add_cookies(cookies)  # as an attacker who copied them would
    assert call_api(page, "GET", "/users/me") == 401
    assert not Session.objects.alive().exists()


def test_deactivated_user_sees_a_reason(new_page):
    sign_in(new_page())
    user = Identity.objects.get().user
    user.is_active = False
    user.save()
    page = new_page()
    sign_in(page)
    assert_refused(page, "This account cannot be used. Please ask those who run the service.")


@pytest.mark.parametrize(
    "next_url",
    ["/docs", "/api/v1/stocks?price__gte=1&sort_by=-price", "/docs?" + "long" * 200],
    ids=lambda next_url: next_url[:30],
)
def test_user_is_redirected_to_the_requested_page(page, next_url):
    sign_in(page, next_url=next_url)
    assert path_of(page) == next_url


def test_login_page_links_to_the_provider(page):
    page.goto("/api/login?next=/docs")
    page.click("text=Log in through First")
    page.fill("[name=login]", "ada")
    page.click("[value=allow]")
    assert path_of(page) == "/docs"
    assert call_api(page, "GET", "/users/me")["username"] == "ada"


def test_oversized_next_url_does_not_prevent_sign_in(page):
    """The session cookie holds 4 KB; browsers drop longer ones."""
    sign_in(page, next_url=f"/docs?{secrets.token_urlsafe(3000)}")
    assert call_api(page, "GET", "/users/me")["username"] == "ada"


@pytest.mark.parametrize(
    "next_url", ["https://evil.example", "//evil.example", "///evil.example", r"/\evil.example", "javascript:alert(1)"]
)
def test_sign_in_redirects_to_this_service_only(page, next_url):
    sign_in(page, next_url=next_url)
    assert_signed_in(page, "ada")


def record_callbacks(page):
    """Return a list that collects the callback URLs that this page requests from now on."""
    urls = []
    page.on("request", lambda request: urls.append(request.url) if "/callback?" in request.url else None)
    return urls


def test_callback_from_another_browser_is_refused(new_page):
    """Login CSRF: such a link would sign the victim in to the attacker's account."""
    eve, victim = new_page(), new_page()
    callbacks = record_callbacks(eve)
    sign_in(eve)
    start_sign_in(victim)
    victim.goto(callbacks[0])
    assert_refused(victim, "This sign-in was begun elsewhere")
    assert Session.objects.count() == 1


def test_callback_works_once(page):
    callbacks = record_callbacks(page)
    sign_in(page)
    page.goto(callbacks[0])
    assert "finished already" in page.inner_text("main")
    page.goto("/api/v1")
    assert_signed_in(page, "ada")
    assert Session.objects.count() == 1


def test_signing_in_as_another_user_ends_the_previous_session(page):
    sign_in(page, "una")
    sign_in(page, "ada", "second")
    assert_signed_in(page, "ada")
    assert Session.objects.alive().get().user.username == "ada"


def test_sign_ins_in_two_tabs_do_not_interfere(page):
    tab = page.context.new_page()
    start_sign_in(tab)
    sign_in(page)
    tab.fill("[name=login]", "ada")
    tab.click("[value=allow]")
    assert_signed_in(tab, "ada")
    assert Session.objects.alive().count() == 1
