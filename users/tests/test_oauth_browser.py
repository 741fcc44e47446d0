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
# The ID tokens of the second say no more of a person than their `sub`: the rest is asked for.
PROVIDERS = {"first": {"alg": "ES256"}, "second": {"alg": "RS256", "onlyInUserinfo": True}}


@pytest.fixture(scope="module")
def oidc():
    """Where the provider is installed."""
    return npm_ci(OIDC)


@pytest.fixture(scope="module")
def issuers(oidc, live_server):
    """Both providers, running: the issuer of each by its name."""
    processes = {name: start(oidc, live_server.url, name, **kind) for name, kind in PROVIDERS.items()}
    try:
        yield {name: issuer(process) for name, process in processes.items()}
    finally:
        for process in processes.values():
            process.terminate()
            process.communicate(timeout=20)


def start(oidc, url, name, **kind):
    task = {"accounts": ACCOUNTS, "redirectUri": f"{url}{BASE}/{name}/callback", **kind}
    # They end with their standard input too, should this process be killed.
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(["node", "provider.mjs", json.dumps(task)], cwd=oidc, text=True, **pipes)


def issuer(process):
    url = process.stdout.readline().strip()  # as soon as it listens
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
    """A page in a browser of its own, which remembers nobody."""
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


def begin(page, through="first", to=""):
    page.goto(f"{BASE}/{through}/login?next={quote(to)}")


def sign_in(page, login="ada", through="first", to=""):
    begin(page, through, to)
    page.fill("[name=login]", login)
    page.click("[value=allow]")


def assert_signed_in(page, username):
    assert path_of(page) == "/api/v1"
    assert username in page.inner_text(".navbar")
    assert ask(page, "GET", "/users/me")["username"] == username


def assert_refused(page, words):
    assert path_of(page).startswith(BASE)
    assert page.inner_text("h1") == "Signing in failed"
    assert words in page.inner_text("main")
    page.goto("/api/v1")
    assert "Log in" in page.inner_text(".navbar")


def path_of(page):
    return re.sub("^http://[^/]*", "", page.url)


def ask(page, method, path, **headers):
    """What the API answers to a script of the page."""
    script = """async ([method, url, headers]) => {
        const csrf = document.cookie.match(/csrftoken=([^;]*)/);
        if (csrf) headers["X-CSRFToken"] = csrf[1];
        const answer = await fetch(url, {method, headers: {Accept: "application/json", ...headers}});
        return [answer.status, await answer.text()];
    }"""
    status, text = page.evaluate(script, [method, f"/api/v1{path}", headers])
    return json.loads(text) if status == 200 else status


def test_new_person_signs_in(page):
    sign_in(page)
    assert_signed_in(page, "ada")
    identity = Identity.objects.get()
    assert (identity.provider, identity.subject) == ("first", "ada")
    user = identity.user
    assert (user.email, user.name, user.is_verified) == ("ada@example.com", "Ada Lovelace", True)
    assert (user.oauth_provider, user.has_usable_password()) == ("first", False)
    [session] = ask(page, "GET", "/auth/sessions")["items"]
    assert session["current"]
    assert "Chrom" in session["user_agent"]


@pytest.mark.parametrize(("login", "is_verified"), [("ada", True), ("una", False)])
@pytest.mark.parametrize("through", PROVIDERS)
def test_email_is_verified_if_the_provider_says_so(page, through, login, is_verified):
    sign_in(page, login, through)
    assert_signed_in(page, login)
    user = User.objects.get(oauth_provider=through)
    assert (user.email, user.is_verified) == (f"{login}@example.com", is_verified)


def test_person_who_comes_back_is_known_whatever_their_email_is_now(new_page):
    sign_in(new_page())
    user = Identity.objects.get().user
    user.email, user.username = "king@example.com", "king"
    user.save()
    page = new_page()
    sign_in(page)
    assert_signed_in(page, "king")
    assert Identity.objects.get().user == user
    assert User.objects.get(pk=user.pk).email == "king@example.com"


def test_person_whom_the_provider_remembers_need_not_log_in_there_again(page):
    sign_in(page)
    assert ask(page, "POST", "/auth/logout") == 204
    begin(page)
    assert_signed_in(page, "ada")


@pytest.mark.parametrize("through", PROVIDERS)
def test_verified_email_joins_the_account_that_holds_it(page, make_user, through):
    ada = make_user(username="countess", email="ADA@example.com", password=PASSWORD, is_verified=True)
    sign_in(page, through=through)
    assert_signed_in(page, "countess")
    assert Identity.objects.get().user == ada
    assert logged_in("countess") == 200


def test_password_of_an_unverified_account_that_is_joined_works_no_longer(page, make_user):
    make_user(username="squatter", email="ada@example.com", password=PASSWORD)
    assert logged_in("squatter") == 200
    sign_in(page)
    assert_signed_in(page, "squatter")
    assert ask(page, "GET", "/users/me")["is_verified"]
    assert len(ask(page, "GET", "/auth/sessions")["items"]) == 1
    assert logged_in("squatter") == 401


def logged_in(username):
    return Client().post("/api/v1/auth/login", {"username": username, "password": PASSWORD}).status_code


@pytest.mark.parametrize("is_verified", [True, False])
@pytest.mark.parametrize("through", PROVIDERS)
def test_unverified_email_joins_nothing(page, make_user, through, is_verified):
    make_user(username="ada", email="ada@example.com", password=PASSWORD, is_verified=is_verified)
    sign_in(page, "eve", through)
    assert_refused(page, "An account with your e-mail address exists here")
    assert not Identity.objects.exists()
    assert logged_in("ada") == 200


def test_denial_is_said_so(page):
    begin(page)
    page.click("[value=deny]")
    assert_refused(page, "You did not allow first to sign you in. Nothing was changed.")
    assert not Identity.objects.exists()


def test_person_who_denied_may_change_their_mind(page):
    begin(page)
    page.click("[value=deny]")
    sign_in(page)
    assert_signed_in(page, "ada")


def test_each_provider_is_an_identity_of_its_own(page):
    for through in PROVIDERS:
        sign_in(page, "una" if through == "first" else "ada", through)
    assert set(Identity.objects.values_list("provider", "subject", "user__username")) == {
        ("first", "una", "una"),
        ("second", "ada", "ada"),
    }
    assert_signed_in(page, "ada")


def test_same_person_at_two_providers_is_one_user_with_two_identities(page):
    for through in PROVIDERS:
        sign_in(page, through=through)
    assert_signed_in(page, "ada")
    assert Identity.objects.count() == 2
    assert Identity.objects.values("user").distinct().count() == 1


def test_browser_exchanges_its_session_for_tokens(page):
    sign_in(page)
    tokens = ask(page, "POST", "/auth/token")
    page.context.clear_cookies()
    assert ask(page, "GET", "/users/me", Authorization=f"Bearer {tokens['access_token']}")["username"] == "ada"
    assert Client().post("/api/v1/auth/refresh", {"refresh_token": tokens["refresh_token"]}).status_code == 200


def test_browser_needs_its_csrf_token_for_tokens(page):
    sign_in(page)
    page.context.clear_cookies(name="csrftoken")
    assert ask(page, "POST", "/auth/token") == 403


def test_tokens_live_on_when_the_browser_logs_out(page):
    sign_in(page)
    tokens = ask(page, "POST", "/auth/token")
    assert ask(page, "POST", "/auth/logout") == 204
    assert ask(page, "GET", "/users/me", Authorization=f"Bearer {tokens['access_token']}")["username"] == "ada"


def test_logout_ends_the_session_of_the_browser(page):
    sign_in(page)
    cookies = page.context.cookies()
    assert ask(page, "POST", "/auth/logout") == 204
    assert ask(page, "GET", "/users/me") == 401
    page.context.add_cookies(cookies)  # whoever copied them
    assert ask(page, "GET", "/users/me") == 401
    assert not Session.objects.alive().exists()


def test_deactivated_user_gets_a_reason(new_page):
    sign_in(new_page())
    user = Identity.objects.get().user
    user.is_active = False
    user.save()
    page = new_page()
    sign_in(page)
    assert_refused(page, "This account cannot be used. Please ask those who run the service.")


@pytest.mark.parametrize(
    "to", ["/docs", "/api/v1/stocks?price__gte=1&sort_by=-price", "/docs?" + "long" * 200], ids=lambda to: to[:30]
)
def test_person_ends_where_they_wanted_to(page, to):
    sign_in(page, to=to)
    assert path_of(page) == to


def test_person_finds_the_provider_on_the_login_page(page):
    page.goto("/api/login?next=/docs")
    page.click("text=Log in through First")
    page.fill("[name=login]", "ada")
    page.click("[value=allow]")
    assert path_of(page) == "/docs"
    assert ask(page, "GET", "/users/me")["username"] == "ada"


def test_very_long_wish_does_not_keep_anybody_from_signing_in(page):
    """The session's cookie holds 4 KB, and browsers drop what is longer."""
    sign_in(page, to=f"/docs?{secrets.token_urlsafe(3000)}")
    assert ask(page, "GET", "/users/me")["username"] == "ada"


@pytest.mark.parametrize(
    "to", ["https://evil.example", "//evil.example", "///evil.example", r"/\evil.example", "javascript:alert(1)"]
)
def test_sign_in_redirects_to_this_service_only(page, to):
    sign_in(page, to=to)
    assert_signed_in(page, "ada")


def callbacks_of(page):
    """By which addresses the provider sends this page back, from now on."""
    urls = []
    page.on("request", lambda request: urls.append(request.url) if "/callback?" in request.url else None)
    return urls


def test_callback_that_was_begun_in_another_browser_is_refused(new_page):
    """By a link to it somebody could have others work in an account that is not theirs."""
    eve, victim = new_page(), new_page()
    callbacks = callbacks_of(eve)
    sign_in(eve)
    begin(victim)
    victim.goto(callbacks[0])
    assert_refused(victim, "This sign-in was begun elsewhere")
    assert Session.objects.count() == 1


def test_callback_works_once(page):
    callbacks = callbacks_of(page)
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


def test_sign_ins_in_two_tabs_do_not_disturb_each_other(page):
    tab = page.context.new_page()
    begin(tab)
    sign_in(page)
    tab.fill("[name=login]", "ada")
    tab.click("[value=allow]")
    assert_signed_in(tab, "ada")
    assert Session.objects.alive().count() == 1
