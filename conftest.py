import os
import re
import shutil
import subprocess
from itertools import count
from pathlib import Path
from typing import NoReturn

import pytest
from django.conf import settings as django_settings
from django.contrib.auth.models import Permission
from django.core import mail
from django.core.cache import cache
from playwright.sync_api import sync_playwright
from rest_framework.test import APIClient
from zeal import zeal_context
from zeal.patch import patch

from stocks.models import Stock
from users.access_tokens import access_token
from users.delivery import courier, deliver_due
from users.models import Session, User
from users.models.session import Device

PASSWORD = "correct-horse-7-battery"

_numbers = count(1)


def pytest_configure() -> None:
    patch()  # what zeal's app does for a whole project, for the tests alone
    # A real hash costs 50 ms by design, and collected static files are for servers.
    django_settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    django_settings.STORAGES = {
        "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
        "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
    }
    django_settings.WHITENOISE_USE_FINDERS = django_settings.WHITENOISE_AUTOREFRESH = True


@pytest.fixture(autouse=True)
def _fresh_cache():
    cache.clear()


@pytest.fixture(autouse=True)
def _mails_at_once(monkeypatch):
    """A mail that is sent behind its test would arrive in another one."""
    monkeypatch.setattr(courier, "notify", deliver_due)


def mailed_token() -> str:
    """The token in the last mail."""
    return re.search(r"^[\w-]+:[\w-]+:[\w-]+$", mail.outbox[-1].body, re.MULTILINE)[0]


def lasting_headers(answer) -> dict[str, str]:
    """The headers of an answer without the countdown of the caller's quota."""
    return {name: value for name, value in answer.headers.items() if name != "RateLimit"}


class Client(APIClient):
    """Speaks JSON, and answers 500 as a server would instead of raising: also to a query in a loop."""

    def __init__(self, user: User | None = None) -> None:
        super().__init__(raise_request_exception=False)
        self.user = user
        if user is not None:
            session = Session.objects.start(user, Device(None, ""))
            self.credentials(HTTP_AUTHORIZATION=f"Bearer {access_token(session)}")

    def request(self, **kwargs):
        with zeal_context():
            return super().request(**kwargs)


@pytest.fixture
def make_user(db):
    def make(**fields) -> User:
        number = next(_numbers)
        fields = {"username": f"person{number}", "email": f"person{number}@example.com"} | fields
        return User.objects.create_user(**fields)

    return make


@pytest.fixture
def make_stock(db):
    def make(owner: User, **fields) -> Stock:
        return Stock.objects.create(**{"owner": owner, "name": "AAPL", "price": "175.5", "quantity": 10} | fields)

    return make


@pytest.fixture
def staff_with(make_user):
    """A member of staff with just these model permissions: `staff_with("view_stock", "change_stock")`."""

    def make(*codenames: str) -> Client:
        user = make_user(is_staff=True)
        user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
        return Client(user)

    return make


@pytest.fixture
def anonymous(db) -> Client:
    return Client()


@pytest.fixture
def owner(make_user) -> Client:
    return Client(make_user())


@pytest.fixture
def stranger(make_user) -> Client:
    return Client(make_user())


@pytest.fixture
def staff(staff_with) -> Client:
    """Staff with every permission on users and stocks."""
    return staff_with(*(f"{verb}_{name}" for verb in ("view", "add", "change", "delete") for name in ("user", "stock")))


@pytest.fixture
def superuser(make_user) -> Client:
    return Client(make_user(is_staff=True, is_superuser=True))


def missing(what: str) -> NoReturn:
    """Without it a test is skipped, but where CI_BROWSERS is set it must run."""
    (pytest.fail if os.environ.get("CI_BROWSERS") else pytest.skip)(what)


def npm_ci(folder: Path) -> Path:
    """Install what a folder's lock of npm names, unless that is done."""
    if absent := [program for program in ("node", "npm") if shutil.which(program) is None]:
        missing(f"{' and '.join(absent)} not installed")
    if not (folder / "node_modules" / ".package-lock.json").exists():  # which npm writes last
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=3"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
        if re.search("ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH", done.stderr):
            pytest.skip(f"npm's registry cannot be reached: {done.stderr}")
        if done.returncode:
            missing(f"npm ci in {folder} failed: {done.stderr}")
    return folder


@pytest.fixture(scope="module")
def chromium():
    executable = shutil.which("chromium") or shutil.which("chromium-browser")
    if executable is None:
        missing("Chromium is not installed.")
    # Playwright runs an event loop in this thread, which Django would take for asynchronous code.
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=executable,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"],
        )
        yield browser
        browser.close()
    del os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"]
