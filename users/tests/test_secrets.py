"""Nothing secret is said or stored: canaries are planted, and looked for wherever the service leaves a trace."""

import logging
import re
import secrets
import socket
from functools import cache
from smtplib import SMTPDataError
from types import SimpleNamespace
from urllib.parse import quote

import pytest
import requests
from django import test
from django.apps import apps
from django.conf import settings as django_settings
from django.core import mail
from django.core.management import CommandError, call_command
from django.db import OperationalError, connections
from rest_framework.throttling import SimpleRateThrottle

from conftest import Client, mailed_token
from records.http.logging import JSONFormatter, RequestContextFilter
from records.tests.processes import run_python
from users.models import Session, User
from users.oidc import client as oidc_client

FORMATTERS = logging.Formatter(django_settings.LOGGING["formatters"]["text"]["format"], style="{"), JSONFormatter()
AUTH = "/api/v1/auth"
JSON = "application/json"
PAGE = {"Accept": "text/html"}


def canary() -> str:
    return f"canary-{secrets.token_hex(24)}"


PASSWORD, WRONG, NEW = canary(), canary(), canary()
LOGIN = {"username": "ada", "password": PASSWORD}
GRACE = {"username": "grace", "email": "grace@example.com", "password": NEW}
CHANGE = {"current_password": PASSWORD, "new_password": NEW}
TWICE = {"usable_password": "true", "password1": NEW, "password2": NEW}
OWN_TWICE = {"old_password": PASSWORD, "new_password1": NEW, "new_password2": NEW}


class Heard(logging.Handler):
    """Everything that was logged, printed, answered or mailed."""

    def __init__(self, capfd) -> None:
        super().__init__()
        self.addFilter(RequestContextFilter())
        self.capfd = capfd
        self.said = []

    def emit(self, record):
        self.said += [("log", formatter.format(record)) for formatter in FORMATTERS]

    def answers_of(self, send):
        def request(client, **kwargs):
            answer = send(client, **kwargs)
            told = answer.status_code, answer.headers, answer.cookies.output(), answer.content.decode()
            self.said.append((answer, " ".join(map(str, told))))
            return answer

        return request

    def assert_nowhere(self, *canaries, but=()):
        """Neither they nor any password or its hash was said or stored; `but` may say the canaries themselves."""
        self.said.append(("printed", "".join(self.capfd.readouterr())))
        self.said += [(each, f"{each.message().items()} {each.body} {each.alternatives}") for each in mail.outbox]
        models = apps.get_models(include_auto_created=True)
        rows = [(model, str(row)) for model in models for row in model._base_manager.values()]
        for each in canaries:
            assert_absent(each, [told for told in self.said + rows if told[0] not in but])
        for each in {PASSWORD, WRONG, NEW}.difference(canaries):
            assert_absent(each, self.said + rows)
        for stored in User._base_manager.values_list("password", flat=True):
            assert_absent(stored, self.said)


def assert_absent(canary, told):
    secret = re.escape(re.split("[.:$]", canary)[-1])  # of a token its signature, of a hash what the salt is not
    assert [found for _, text in told for found in re.findall(f".{{,90}}{secret}.{{,30}}", text)] == []


@pytest.fixture
def heard(db, capfd, caplog, monkeypatch):
    heard = Heard(capfd)
    monkeypatch.setattr(test.Client, "request", heard.answers_of(test.Client.request))
    known = logging.root.manager.loggerDict.values()
    for logger in (logging.root, *(each for each in known if not getattr(each, "propagate", True))):
        caplog.set_level(logging.DEBUG, logger.name)
        monkeypatch.setattr(logger, "handlers", [*logger.handlers, heard])
    return heard


@pytest.fixture
def ada(make_user):
    return make_user(username="ada", email="ada@example.com", password=PASSWORD, is_staff=True, is_superuser=True)


@pytest.fixture
def browser():
    return test.Client(raise_request_exception=False)


@pytest.fixture
def administrator(browser, ada):
    browser.force_login(ada)
    return browser


def raising(error):
    def fail(*args, **kwargs):
        raise error

    return fail


def token_of(client) -> str:
    return client._credentials["HTTP_AUTHORIZATION"].removeprefix("Bearer ")


SAY = {
    "log": lambda text: logging.getLogger("library").debug(text),
    "log of Django": lambda text: logging.getLogger("django.security").debug("%s", text),
    "exception": lambda text: logging.getLogger("users").error("crash", exc_info=ValueError(text)),
    "print": print,
    "mail": lambda text: mail.send_mail("subject", text, None, ["ada@example.com"]),
    "answer": lambda text: Client().get("/ping", headers={"X-Request-ID": text}),
    "row": lambda text: User.objects.create_user("grace", bio=text),
    "hash": lambda text: print(User.objects.create_user("grace", password=text).password),
}


@pytest.mark.parametrize("way", SAY)
def test_whatever_is_said_or_stored_is_heard(heard, way):
    SAY[way](text := canary())
    with pytest.raises(AssertionError, match=r"\] == \[\]"):
        heard.assert_nowhere(text)


# Passwords


@pytest.mark.parametrize(
    ("status", "path", "body"),
    [
        (201, f"{AUTH}/register", GRACE),
        (400, f"{AUTH}/register", GRACE | {"email": "?"}),
        (400, f"{AUTH}/register", GRACE | {"passwort": WRONG}),
        (201, "/api/v1/users", GRACE),
        (400, "/api/v1/users", GRACE | {"passwort": WRONG}),
        (200, f"{AUTH}/login", LOGIN),
        (401, f"{AUTH}/login", LOGIN | {"password": WRONG}),
        (401, f"{AUTH}/login", {"username": WRONG, "password": WRONG}),
        (204, f"{AUTH}/change-password", CHANGE),
        (400, f"{AUTH}/change-password", CHANGE | {"current_password": WRONG}),
        (400, f"{AUTH}/change-password", CHANGE | {"new_password": NEW * 3}),
        (400, f"{AUTH}/reset-password", {"token": WRONG, "new_password": NEW}),
    ],
)
def test_password_in_a_body_is_nowhere(heard, ada, status, path, body):
    assert Client(ada).post(path, body).status_code == status
    heard.assert_nowhere()


@pytest.mark.parametrize(
    ("status", "path", "form"),
    [
        (302, "/api/login", LOGIN),
        (200, "/api/login", LOGIN | {"password": WRONG}),
        (302, "/admin/login/", LOGIN),
        (200, "/admin/login/", LOGIN | {"password": WRONG}),
        (302, "/admin/users/user/add/", TWICE | {"username": "grace"}),
        (200, "/admin/users/user/add/", TWICE | {"username": "grace", "password2": WRONG}),
        (302, "/admin/users/user/{}/password/", TWICE),
        (200, "/admin/users/user/{}/password/", TWICE | {"password2": WRONG}),
        (302, "/admin/password_change/", OWN_TWICE),
        (200, "/admin/password_change/", OWN_TWICE | {"old_password": WRONG}),
        (400, f"{AUTH}/login", LOGIN | {"username": ""}),
        (400, "/api/v1/users", GRACE | {"email": "?"}),
    ],
)
def test_password_in_a_form_is_nowhere(heard, administrator, make_user, status, path, form):
    assert administrator.post(path.format(make_user().pk), form, headers=PAGE).status_code == status
    heard.assert_nowhere()


@pytest.mark.parametrize("path", [f"{AUTH}/login", "/admin/login/"])
def test_password_after_too_many_failures_is_nowhere(heard, browser, ada, path):
    answers = [browser.post(path, LOGIN | {"password": each}) for each in [WRONG] * 10 + [PASSWORD]]
    assert answers[-1].status_code == 429
    heard.assert_nowhere()


def test_password_of_createsuperuser_is_nowhere(heard, monkeypatch):
    monkeypatch.setenv("DJANGO_SUPERUSER_PASSWORD", NEW)
    call_command("createsuperuser", interactive=False, username="grace", email="grace@example.com")
    with pytest.raises(CommandError, match="taken") as error:
        call_command("createsuperuser", interactive=False, username="grace", email="grace@example.com")
    print(error.value)
    heard.assert_nowhere()


def test_password_typed_at_createsuperuser_is_nowhere(heard, monkeypatch):
    typed = iter([NEW, WRONG, NEW, NEW])
    monkeypatch.setattr("getpass.getpass", lambda *args: next(typed))
    terminal = SimpleNamespace(isatty=lambda: True)
    call_command("createsuperuser", username="grace", email="grace@example.com", stdin=terminal)
    assert User.objects.get(username="grace").check_password(NEW)
    heard.assert_nowhere()


@pytest.mark.parametrize("path", ["/api/v1/stocks", "/api/v1/nothing", "/account/reset-password", "/nowhere"])
def test_password_in_a_query_is_nowhere(heard, owner, path):
    owner.get(f"{path}?password={WRONG}")
    heard.assert_nowhere()


@pytest.mark.parametrize("path", ["/api/v1/stocks", "/api/v1/nothing", "/docs", "/admin/", "/admin/login/", "/nowhere"])
def test_password_in_the_address_of_a_page_is_on_that_page_at_most(heard, administrator, anonymous, path):
    pages = [each.get(f"{path}?password={WRONG}", headers=PAGE) for each in (administrator, anonymous)]
    heard.assert_nowhere(WRONG, but=pages)


@pytest.mark.parametrize("path", ["/api/v1/users", "/admin/users/user/", "/admin/users/user/{}/change/"])
@pytest.mark.parametrize("rights", [["view_user"], ["view_user", "change_user"]])
def test_admin_pages_show_no_password_hash(heard, browser, staff_with, make_user, path, rights):
    browser.force_login(staff_with(*rights).user)
    assert browser.get(path.format(make_user(password=PASSWORD).pk), headers=PAGE).status_code == 200
    heard.assert_nowhere()


# Tokens and cookies


def test_tokens_are_in_the_answer_alone_that_hands_them_out(heard, anonymous, ada):
    login = anonymous.post(f"{AUTH}/login", LOGIN)
    old = {"refresh_token": login.json()["refresh_token"]}
    new, refused = (anonymous.post(f"{AUTH}/refresh", old) for _ in range(2))
    assert refused.status_code == 401
    heard.assert_nowhere(old["refresh_token"], but=[login])
    heard.assert_nowhere(new.json()["refresh_token"], but=[new])
    heard.assert_nowhere(login.json()["access_token"], new.json()["access_token"], but=[login, new])


def test_tokens_for_a_browser_are_in_the_answer_alone_that_hands_them_out(heard, administrator):
    answer = administrator.post(f"{AUTH}/token", content_type=JSON)
    heard.assert_nowhere(*(answer.json()[name] for name in ("access_token", "refresh_token")), but=[answer])


@pytest.mark.parametrize(
    ("status", "method", "path", "size", "kind"),
    [
        (200, "GET", "/api/v1/stocks", 0, JSON),
        (400, "GET", "/api/v1/stocks?nonsense=1", 0, JSON),
        (400, "POST", "/api/v1/stocks", 9, JSON),
        (403, "POST", "/api/v1/users", 9, JSON),
        (404, "GET", "/api/v1/stocks/999999", 0, JSON),
        (405, "DELETE", "/api/v1/users/me", 0, JSON),
        (413, "POST", "/api/v1/stocks", 2**21, JSON),
        (415, "POST", "/api/v1/stocks", 9, "text/plain"),
    ],
)
@pytest.mark.parametrize("accept", [JSON, "text/html"])
def test_access_token_that_is_used_is_nowhere(heard, owner, status, method, path, size, kind, accept):
    assert owner.generic(method, path, "x" * size, kind, headers={"Accept": accept}).status_code == status
    heard.assert_nowhere(token_of(owner))


@pytest.mark.parametrize("scheme", ["Bearer", "Basic"])
def test_access_token_that_is_refused_is_nowhere(heard, owner, scheme):
    Session.objects.all().end()
    token = token_of(owner)
    owner.credentials(HTTP_AUTHORIZATION=f"{scheme} {token}")
    assert owner.get("/api/v1/stocks").status_code == 401
    heard.assert_nowhere(token)


def test_access_token_of_a_throttled_request_is_nowhere(heard, owner, monkeypatch):
    monkeypatch.setattr(SimpleRateThrottle, "THROTTLE_RATES", {"anon": "1/min", "user": "1/min"})
    assert [owner.get("/api/v1/stocks").status_code for _ in range(2)] == [200, 429]
    heard.assert_nowhere(token_of(owner))


@pytest.mark.parametrize(
    ("status", "name", "error"),
    [
        (500, "users.models.user.User.set_password", RuntimeError("on purpose")),
        (503, None, OperationalError("on purpose")),
    ],
)
def test_crash_exposes_no_secret_of_its_request(heard, superuser, administrator, monkeypatch, status, name, error):
    with monkeypatch.context() as patch:
        patch.setattr(*([name] if name else [connections["default"], "cursor"]), raising(error))
        for each in (superuser, administrator):
            assert each.post("/api/v1/users", GRACE, headers=PAGE).status_code == status
    assert "on purpose" in str(heard.said)
    heard.assert_nowhere(token_of(superuser), administrator.cookies["sessionid"].value)


@pytest.mark.parametrize("path", ["/api/login", "/admin/login/"])
def test_cookie_of_a_browser_is_in_the_answer_alone_that_sets_it(heard, browser, ada, path):
    answer = browser.post(path, LOGIN)
    for page in ("/", "/admin/", "/admin/users/session/", "/api/v1/users/me", "/api/v1/nothing", "/nowhere"):
        browser.get(page, headers=PAGE)
    heard.assert_nowhere(browser.cookies["sessionid"].value, but=[answer])


@pytest.mark.parametrize(
    ("ask", "use", "fields"),
    [
        ("request-email-verification", "verify-email", {}),
        ("request-account-deletion", "confirm-account-deletion", {}),
        ("request-password-reset", "reset-password", {"new_password": NEW}),
    ],
)
def test_token_of_a_mail_is_in_that_mail_alone(heard, ada, superuser, monkeypatch, ask, use, fields):
    Client(ada).post(f"{AUTH}/{ask}", {"email": ada.email} if fields else {})
    body = {"token": (token := mailed_token()), **fields}
    assert [Client().post(f"{AUTH}/{use}", body).status_code // 100 for _ in range(2)] == [2, 4]
    heard.assert_nowhere(token, but=mail.outbox)


def test_token_that_a_mail_server_quotes_is_in_the_mail_alone(heard, owner, monkeypatch):
    def refuse(message):
        mail.outbox.append(message)
        raise SMTPDataError(554, message.body.encode())

    monkeypatch.setattr("users.mail.EmailMultiAlternatives.send", refuse)
    assert owner.post(f"{AUTH}/request-email-verification").status_code == 202
    heard.assert_nowhere(mailed_token(), but=mail.outbox)


def test_secrets_of_a_sign_in_through_a_provider_are_nowhere(heard, browser, settings, monkeypatch):
    secret, code, discovered = canary(), canary(), requests.Response()
    discovered._content = b'{"issuer": "x", "authorization_endpoint": "/", "token_endpoint": "/", "jwks_uri": "/"}'
    discovered.status_code = 200
    answers = iter([discovered])
    quote = raising(requests.ConnectionError(f"{secret} {code}"))
    monkeypatch.setattr(requests.Session, "request", lambda *args, **kwargs: next(answers, None) or quote())
    monkeypatch.setattr("users.oidc.views.registry", cache(oidc_client.registry.__wrapped__))
    settings.OAUTH_PROVIDERS = {"x": {"client_id": "x", "client_secret": secret, "server_metadata_url": "http://x/"}}
    state = re.search(r"state=(\w+)", browser.get(f"{AUTH}/oauth/x/login")["Location"])[1]
    assert browser.get(f"{AUTH}/oauth/x/callback?code={code}&state={state}").status_code == 400
    assert "ConnectionError" in str(heard.said)
    heard.assert_nowhere(secret, code)


# The environment

PLANTED = {
    "DATABASE_URL": "postgres://somebody:{}@127.0.0.1:1/stocks",
    "SECRET_KEY": "{}",
    "SECRET_KEY_FALLBACKS": "{}",
    "EMAIL_URL": "smtp://user:{}@127.0.0.1:1",
    "CACHE_URL": "redis://:{}@127.0.0.1:1/0",
    "OAUTH_X_CLIENT_ID": "stocks",
    "OAUTH_X_CLIENT_SECRET": "{}",
    "OAUTH_X_DISCOVERY_URL": "http://127.0.0.1:1",
    "DJANGO_SUPERUSER_PASSWORD": "{}",
    "LOG_LEVEL": "DEBUG",
}


def run_and_print(*command, **environment):
    """What it said, and the canaries: one in every `{}` of PLANTED and `environment`."""
    texts = PLANTED | environment
    canaries = {name: canary() for name in texts}
    done = run_python(*command, **{name: text.format(canaries[name]) for name, text in texts.items()})
    print(done.stdout, done.stderr)
    return done.stdout + done.stderr, canaries.values()


@pytest.mark.parametrize(
    ("command", "settings", "said"),
    [
        ("migrate", {}, "Connection refused"),
        ("serve", {}, "Connection refused"),
        ("check", {}, "no issues"),
        ("check", {"DATABASE_URL": "mysql://somebody:{}@127.0.0.1/stocks"}, "DATABASE_URL"),
        ("check", {"SECRET_KEY": "django-insecure-{}"}, "SECRET_KEY"),
        ("check", {"EMAIL_URL": "nonsense://user:{}@127.0.0.1"}, "EMAIL_URL"),
    ],
)
def test_command_prints_no_secret_of_its_environment(heard, command, settings, said):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    output, canaries = run_and_print("manage.py", command, **settings, PORT=port)
    assert said in output
    heard.assert_nowhere(*canaries)


REGISTER = """
import django, sys; django.setup()
from users.delivery import courier, deliver_due; courier.notify = deliver_due
from django.core.management import call_command; from django.test import Client
call_command("migrate", verbosity=0)
person = {"username": "grace", "email": "grace@example.com", "password": sys.argv[1]}
Client().post("/api/v1/auth/register", person, content_type="application/json")
"""


@pytest.mark.parametrize(
    ("cache", "log_format", "said"),
    [("locmemcache://", "text", "could not be sent"), (PLANTED["CACHE_URL"], "json", "Cache unavailable")],
)
def test_registration_without_mail_server_or_cache_exposes_no_secret(heard, tmp_path, cache, log_format, said):
    service = {
        "DATABASE_URL": f"sqlite:///{quote(str(tmp_path))}/db",
        "CACHE_URL": cache,
        "ALLOWED_HOSTS": "testserver",
    }
    options = {"DJANGO_SETTINGS_MODULE": "config.settings", "LOG_FORMAT": log_format}
    output, canaries = run_and_print("-c", REGISTER, NEW, **service, **options)
    assert said in output
    heard.assert_nowhere(*canaries)
    assert [file for file in tmp_path.iterdir() if NEW.encode() in file.read_bytes()] == []
