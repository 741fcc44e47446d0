"""Secrets do not leak: tests plant canaries and search logs, output, responses, mails and the database for them."""

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


PASSWORD, WRONG_PASSWORD, NEW_PASSWORD = canary(), canary(), canary()
LOGIN = {"username": "ada", "password": PASSWORD}
GRACE = {"username": "grace", "email": "grace@example.com", "password": NEW_PASSWORD}
CHANGE = {"current_password": PASSWORD, "new_password": NEW_PASSWORD}
NEW_PASSWORD_FORM = {"usable_password": "true", "password1": NEW_PASSWORD, "password2": NEW_PASSWORD}
OWN_PASSWORD_FORM = {"old_password": PASSWORD, "new_password1": NEW_PASSWORD, "new_password2": NEW_PASSWORD}


class LeakDetector(logging.Handler):
    """Collects all log records, output, responses and mails of a test."""

    def __init__(self, capfd) -> None:
        super().__init__()
        self.addFilter(RequestContextFilter())
        self.capfd = capfd
        self.outputs = []

    def emit(self, record):
        self.outputs += [("log", formatter.format(record)) for formatter in FORMATTERS]

    def recording(self, send):
        def request(client, **kwargs):
            answer = send(client, **kwargs)
            parts = answer.status_code, answer.headers, answer.cookies.output(), answer.content.decode()
            self.outputs.append((answer, " ".join(map(str, parts))))
            return answer

        return request

    def assert_absent(self, *canaries, allowed_in=()):
        """Assert that no canary, password or password hash occurs; the sources in `allowed_in` may contain canaries."""
        self.outputs.append(("printed", "".join(self.capfd.readouterr())))
        self.outputs += [
            (message, f"{message.message().items()} {message.body} {message.alternatives}") for message in mail.outbox
        ]
        models = apps.get_models(include_auto_created=True)
        rows = [(model, str(row)) for model in models for row in model._base_manager.values()]
        for secret in canaries:
            assert_not_in_outputs(secret, [output for output in self.outputs + rows if output[0] not in allowed_in])
        for password in {PASSWORD, WRONG_PASSWORD, NEW_PASSWORD}.difference(canaries):
            assert_not_in_outputs(password, self.outputs + rows)
        for password_hash in User._base_manager.values_list("password", flat=True):
            assert_not_in_outputs(password_hash, self.outputs)


def assert_not_in_outputs(secret, outputs):
    pattern = re.escape(re.split("[.:$]", secret)[-1])  # the signature of a token, or a hash without its salt
    assert [match for _, text in outputs for match in re.findall(f".{{,90}}{pattern}.{{,30}}", text)] == []


@pytest.fixture
def leak_detector(db, capfd, caplog, monkeypatch):
    detector = LeakDetector(capfd)
    monkeypatch.setattr(test.Client, "request", detector.recording(test.Client.request))
    loggers = logging.root.manager.loggerDict.values()
    for logger in (logging.root, *(logger for logger in loggers if not getattr(logger, "propagate", True))):
        caplog.set_level(logging.DEBUG, logger.name)
        monkeypatch.setattr(logger, "handlers", [*logger.handlers, detector])
    return detector


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


LEAKS = {
    "log": lambda text: logging.getLogger("library").debug(text),
    "log of Django": lambda text: logging.getLogger("django.security").debug("%s", text),
    "exception": lambda text: logging.getLogger("users").error("crash", exc_info=ValueError(text)),
    "print": print,
    "mail": lambda text: mail.send_mail("subject", text, None, ["ada@example.com"]),
    "answer": lambda text: Client().get("/ping", headers={"X-Request-ID": text}),
    "row": lambda text: User.objects.create_user("grace", bio=text),
    "hash": lambda text: print(User.objects.create_user("grace", password=text).password),
}


@pytest.mark.parametrize("leak", LEAKS)
def test_leak_detector_finds_every_leak(leak_detector, leak):
    LEAKS[leak](text := canary())
    with pytest.raises(AssertionError, match=r"\] == \[\]"):
        leak_detector.assert_absent(text)


# Passwords


@pytest.mark.parametrize(
    ("status", "path", "body"),
    [
        (201, f"{AUTH}/register", GRACE),
        (400, f"{AUTH}/register", GRACE | {"email": "?"}),
        (400, f"{AUTH}/register", GRACE | {"passwort": WRONG_PASSWORD}),
        (201, "/api/v1/users", GRACE),
        (400, "/api/v1/users", GRACE | {"passwort": WRONG_PASSWORD}),
        (200, f"{AUTH}/login", LOGIN),
        (401, f"{AUTH}/login", LOGIN | {"password": WRONG_PASSWORD}),
        (401, f"{AUTH}/login", {"username": WRONG_PASSWORD, "password": WRONG_PASSWORD}),
        (204, f"{AUTH}/change-password", CHANGE),
        (400, f"{AUTH}/change-password", CHANGE | {"current_password": WRONG_PASSWORD}),
        (400, f"{AUTH}/change-password", CHANGE | {"new_password": NEW_PASSWORD * 3}),
        (400, f"{AUTH}/reset-password", {"token": WRONG_PASSWORD, "new_password": NEW_PASSWORD}),
    ],
)
def test_password_in_a_body_does_not_leak(leak_detector, ada, status, path, body):
    assert Client(ada).post(path, body).status_code == status
    leak_detector.assert_absent()


@pytest.mark.parametrize(
    ("status", "path", "form"),
    [
        (302, "/api/login", LOGIN),
        (200, "/api/login", LOGIN | {"password": WRONG_PASSWORD}),
        (302, "/admin/login/", LOGIN),
        (200, "/admin/login/", LOGIN | {"password": WRONG_PASSWORD}),
        (302, "/admin/users/user/add/", NEW_PASSWORD_FORM | {"username": "grace"}),
        (200, "/admin/users/user/add/", NEW_PASSWORD_FORM | {"username": "grace", "password2": WRONG_PASSWORD}),
        (302, "/admin/users/user/{}/password/", NEW_PASSWORD_FORM),
        (200, "/admin/users/user/{}/password/", NEW_PASSWORD_FORM | {"password2": WRONG_PASSWORD}),
        (302, "/admin/password_change/", OWN_PASSWORD_FORM),
        (200, "/admin/password_change/", OWN_PASSWORD_FORM | {"old_password": WRONG_PASSWORD}),
        (400, f"{AUTH}/login", LOGIN | {"username": ""}),
        (400, "/api/v1/users", GRACE | {"email": "?"}),
    ],
)
def test_password_in_a_form_does_not_leak(leak_detector, administrator, make_user, status, path, form):
    assert administrator.post(path.format(make_user().pk), form, headers=PAGE).status_code == status
    leak_detector.assert_absent()


@pytest.mark.parametrize("path", [f"{AUTH}/login", "/admin/login/"])
def test_password_of_a_locked_login_does_not_leak(leak_detector, browser, ada, path):
    answers = [browser.post(path, LOGIN | {"password": password}) for password in [WRONG_PASSWORD] * 10 + [PASSWORD]]
    assert answers[-1].status_code == 429
    leak_detector.assert_absent()


def test_password_of_createsuperuser_does_not_leak(leak_detector, monkeypatch):
    monkeypatch.setenv("DJANGO_SUPERUSER_PASSWORD", NEW_PASSWORD)
    call_command("createsuperuser", interactive=False, username="grace", email="grace@example.com")
    with pytest.raises(CommandError, match="taken") as error:
        call_command("createsuperuser", interactive=False, username="grace", email="grace@example.com")
    print(error.value)
    leak_detector.assert_absent()


def test_password_typed_at_createsuperuser_does_not_leak(leak_detector, monkeypatch):
    typed = iter([NEW_PASSWORD, WRONG_PASSWORD, NEW_PASSWORD, NEW_PASSWORD])
    monkeypatch.setattr("getpass.getpass", lambda *args: next(typed))
    terminal = SimpleNamespace(isatty=lambda: True)
    call_command("createsuperuser", username="grace", email="grace@example.com", stdin=terminal)
    assert User.objects.get(username="grace").check_password(NEW_PASSWORD)
    leak_detector.assert_absent()


@pytest.mark.parametrize("path", ["/api/v1/stocks", "/api/v1/nothing", "/account/reset-password", "/nowhere"])
def test_password_in_a_query_does_not_leak(leak_detector, owner, path):
    owner.get(f"{path}?password={WRONG_PASSWORD}")
    leak_detector.assert_absent()


@pytest.mark.parametrize("path", ["/api/v1/stocks", "/api/v1/nothing", "/docs", "/admin/", "/admin/login/", "/nowhere"])
def test_password_in_a_page_url_appears_only_on_that_page(leak_detector, administrator, anonymous, path):
    pages = [client.get(f"{path}?password={WRONG_PASSWORD}", headers=PAGE) for client in (administrator, anonymous)]
    leak_detector.assert_absent(WRONG_PASSWORD, allowed_in=pages)


@pytest.mark.parametrize("path", ["/api/v1/users", "/admin/users/user/", "/admin/users/user/{}/change/"])
@pytest.mark.parametrize("rights", [["view_user"], ["view_user", "change_user"]])
def test_admin_pages_show_no_password_hash(leak_detector, browser, staff_with, make_user, path, rights):
    browser.force_login(staff_with(*rights).user)
    assert browser.get(path.format(make_user(password=PASSWORD).pk), headers=PAGE).status_code == 200
    leak_detector.assert_absent()


# Tokens and cookies


def test_tokens_appear_only_in_the_issuing_response(leak_detector, anonymous, ada):
    login = anonymous.post(f"{AUTH}/login", LOGIN)
    old = {"refresh_token": login.json()["refresh_token"]}
    new, refused = (anonymous.post(f"{AUTH}/refresh", old) for _ in range(2))
    assert refused.status_code == 401
    leak_detector.assert_absent(old["refresh_token"], allowed_in=[login])
    leak_detector.assert_absent(new.json()["refresh_token"], allowed_in=[new])
    leak_detector.assert_absent(login.json()["access_token"], new.json()["access_token"], allowed_in=[login, new])


def test_exchanged_tokens_appear_only_in_the_issuing_response(leak_detector, administrator):
    answer = administrator.post(f"{AUTH}/token", content_type=JSON)
    leak_detector.assert_absent(
        *(answer.json()[name] for name in ("access_token", "refresh_token")), allowed_in=[answer]
    )


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
def test_used_access_token_does_not_leak(leak_detector, owner, status, method, path, size, kind, accept):
    assert owner.generic(method, path, "x" * size, kind, headers={"Accept": accept}).status_code == status
    leak_detector.assert_absent(token_of(owner))


@pytest.mark.parametrize("scheme", ["Bearer", "Basic"])
def test_refused_access_token_does_not_leak(leak_detector, owner, scheme):
    Session.objects.all().end()
    token = token_of(owner)
    owner.credentials(HTTP_AUTHORIZATION=f"{scheme} {token}")
    assert owner.get("/api/v1/stocks").status_code == 401
    leak_detector.assert_absent(token)


def test_access_token_of_a_throttled_request_does_not_leak(leak_detector, owner, monkeypatch):
    monkeypatch.setattr(SimpleRateThrottle, "THROTTLE_RATES", {"anon": "1/min", "user": "1/min"})
    assert [owner.get("/api/v1/stocks").status_code for _ in range(2)] == [200, 429]
    leak_detector.assert_absent(token_of(owner))


@pytest.mark.parametrize(
    ("status", "name", "error"),
    [
        (500, "users.models.user.User.set_password", RuntimeError("on purpose")),
        (503, None, OperationalError("on purpose")),
    ],
)
def test_crash_exposes_no_secret_of_its_request(
    leak_detector, superuser, administrator, monkeypatch, status, name, error
):
    with monkeypatch.context() as patch:
        patch.setattr(*([name] if name else [connections["default"], "cursor"]), raising(error))
        for client in (superuser, administrator):
            assert client.post("/api/v1/users", GRACE, headers=PAGE).status_code == status
    assert "on purpose" in str(leak_detector.outputs)
    leak_detector.assert_absent(token_of(superuser), administrator.cookies["sessionid"].value)


@pytest.mark.parametrize("path", ["/api/login", "/admin/login/"])
def test_session_cookie_appears_only_in_the_response_that_sets_it(leak_detector, browser, ada, path):
    answer = browser.post(path, LOGIN)
    for page in ("/", "/admin/", "/admin/users/session/", "/api/v1/users/me", "/api/v1/nothing", "/nowhere"):
        browser.get(page, headers=PAGE)
    leak_detector.assert_absent(browser.cookies["sessionid"].value, allowed_in=[answer])


@pytest.mark.parametrize(
    ("request_path", "use_path", "fields"),
    [
        ("request-email-verification", "verify-email", {}),
        ("request-account-deletion", "confirm-account-deletion", {}),
        ("request-password-reset", "reset-password", {"new_password": NEW_PASSWORD}),
    ],
)
def test_mailed_token_appears_only_in_its_mail(
    leak_detector, ada, superuser, monkeypatch, request_path, use_path, fields
):
    Client(ada).post(f"{AUTH}/{request_path}", {"email": ada.email} if fields else {})
    body = {"token": (token := mailed_token()), **fields}
    assert [Client().post(f"{AUTH}/{use_path}", body).status_code // 100 for _ in range(2)] == [2, 4]
    leak_detector.assert_absent(token, allowed_in=mail.outbox)


def test_token_quoted_by_a_mail_server_appears_only_in_the_mail(leak_detector, owner, monkeypatch):
    def refuse(message):
        mail.outbox.append(message)
        raise SMTPDataError(554, message.body.encode())

    monkeypatch.setattr("users.mail.EmailMultiAlternatives.send", refuse)
    assert owner.post(f"{AUTH}/request-email-verification").status_code == 202
    leak_detector.assert_absent(mailed_token(), allowed_in=mail.outbox)


def test_secrets_of_an_oauth_sign_in_do_not_leak(leak_detector, browser, settings, monkeypatch):
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
    assert "ConnectionError" in str(leak_detector.outputs)
    leak_detector.assert_absent(secret, code)


# The environment

SECRET_ENVIRONMENT = {
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
    """Run a command with a canary in every `{}` of its environment; return its output and the canaries."""
    texts = SECRET_ENVIRONMENT | environment
    canaries = {name: canary() for name in texts}
    process = run_python(*command, **{name: text.format(canaries[name]) for name, text in texts.items()})
    print(process.stdout, process.stderr)
    return process.stdout + process.stderr, canaries.values()


@pytest.mark.parametrize(
    ("command", "settings", "expected"),
    [
        ("migrate", {}, "Connection refused"),
        ("serve", {}, "Connection refused"),
        ("check", {}, "no issues"),
        ("check", {"DATABASE_URL": "mysql://somebody:{}@127.0.0.1/stocks"}, "DATABASE_URL"),
        ("check", {"SECRET_KEY": "django-insecure-{}"}, "SECRET_KEY"),
        ("check", {"EMAIL_URL": "nonsense://user:{}@127.0.0.1"}, "EMAIL_URL"),
    ],
)
def test_command_prints_no_secret_of_its_environment(leak_detector, command, settings, expected):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    output, canaries = run_and_print("manage.py", command, **settings, PORT=port)
    assert expected in output
    leak_detector.assert_absent(*canaries)


REGISTER = """
import django, sys; django.setup()
from users.delivery import courier, deliver_due; courier.notify = deliver_due
from django.core.management import call_command; from django.test import Client
call_command("migrate", verbosity=0)
person = {"username": "grace", "email": "grace@example.com", "password": sys.argv[1]}
Client().post("/api/v1/auth/register", person, content_type="application/json")
"""


@pytest.mark.parametrize(
    ("cache", "log_format", "expected"),
    [("locmemcache://", "text", "could not be sent"), (SECRET_ENVIRONMENT["CACHE_URL"], "json", "Cache unavailable")],
)
def test_registration_without_mail_server_or_cache_exposes_no_secret(
    leak_detector, tmp_path, cache, log_format, expected
):
    service = {
        "DATABASE_URL": f"sqlite:///{quote(str(tmp_path))}/db",
        "CACHE_URL": cache,
        "ALLOWED_HOSTS": "testserver",
    }
    options = {"DJANGO_SETTINGS_MODULE": "config.settings", "LOG_FORMAT": log_format}
    output, canaries = run_and_print("-c", REGISTER, NEW_PASSWORD, **service, **options)
    assert expected in output
    leak_detector.assert_absent(*canaries)
    assert [file for file in tmp_path.iterdir() if NEW_PASSWORD.encode() in file.read_bytes()] == []
