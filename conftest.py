"""Users, clients and browsers for the tests of every app."""

import gc
import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from importlib import import_module
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import NoReturn

import pytest
from django.conf import settings as django_settings
from django.contrib.auth.models import Permission
from django.core import mail
from django.core.cache import cache
from django.db import connection
from rest_framework.test import APIClient

from records.rest.pagination.counting import recent_estimates
from stocks.models import Stock
from users.access_tokens import access_token
from users.delivery import courier, deliver_due
from users.models import Session, User
from users.models.session import Device

PASSWORD = "correct-horse-7-battery"

_numbers = count(1)


def skip_or_fail(reason: str) -> NoReturn:
    """Skip this test, or fail it where CI or CI_BROWSERS is set."""
    (pytest.fail if _is_ci() else pytest.skip)(reason)


def import_or_skip(name: str) -> ModuleType:
    """Import a module that only requirements-dev.txt installs.

    Without it, skip the test, or the test module that imports at its top. Fail where CI or CI_BROWSERS is set.
    """
    if _is_ci():
        return import_module(name)
    return pytest.importorskip(name, reason=f"{name} is not installed: pip install -r requirements-dev.txt")


def _is_ci() -> bool:
    return any(os.environ.get(name, "").lower() not in {"", "0", "false"} for name in ("CI", "CI_BROWSERS"))


#: django-zeal, which finds queries in loops.
zeal = import_module("zeal") if _is_ci() or find_spec("zeal") else None


def pytest_configure() -> None:
    gc.set_threshold(20_000, 20, 100)
    if zeal is not None:
        import_module("zeal.patch").patch()  # as its Django app does; production does not install it
    # A real hash takes 50 ms by design, and collected static files are for servers.
    django_settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    django_settings.STORAGES = {
        "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
        "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
    }
    django_settings.WHITENOISE_USE_FINDERS = django_settings.WHITENOISE_AUTOREFRESH = True


@pytest.hookimpl(wrapper=True)
def pytest_xdist_auto_num_workers():
    """Start one more worker than there are processors, because tests of servers and browsers wait."""
    return (yield) + 1


def pytest_collect_file(file_path, parent):
    """Load the plugin of schemathesis for its only tests. Its import takes each process half a second."""
    if file_path.name == "test_openapi.py" and find_spec("schemathesis"):
        parent.config.pluginmanager.import_plugin("schemathesis.pytest.plugin")


@pytest.fixture(autouse=True)
def _fresh_cache():
    cache.clear()
    recent_estimates.clear()


#: Modules that take longest, in seconds of a worker's time or of waiting.
SLOW_MODULES = (
    "config/tests/test_server.py",
    "users/tests/test_outbox.py",
    "stocks/tests/test_openapi.py",
    "users/tests/test_oauth_browser.py",
    "users/tests/test_settings.py",
    "stocks/tests/test_authorisation.py",
    "records/tests/test_admin_values.py",
    "stocks/tests/test_browser.py",
    "records/tests/test_bodies.py",
    "records/tests/test_growth.py",
    "records/tests/test_fixtures.py",
    "users/tests/test_oauth.py",
    "stocks/tests/test_clients.py",
    "records/tests/test_cursor.py",
)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """Start the slowest modules first, so that none of them is left on one worker when the others are done."""
    ranks = {module: rank for rank, module in enumerate(SLOW_MODULES)}
    items.sort(key=lambda item: ranks.get(item.nodeid.partition("::")[0], len(ranks)))


def pytest_collection_finish():
    """Exclude the collected tests from garbage collection, which takes 100 ms with them and runs thousands of times."""
    gc.collect()
    gc.freeze()


def _call_in_large_frame(function, *arguments):
    return function(*arguments)


# CPython keeps frames in chunks of 16 KiB. A function that is called in a loop where a chunk is full maps and unmaps
# memory for every call: up to half of the CPU time of some tests. This frame makes CPython allocate 1 MiB at once.
_call_in_large_frame.__code__ = _call_in_large_frame.__code__.replace(co_stacksize=2**16)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item, nextitem):
    runner = item.config.pluginmanager.get_plugin("runner")
    return _call_in_large_frame(runner.pytest_runtest_protocol, item, nextitem)


@pytest.fixture(autouse=True)
def _immediate_mails(monkeypatch):
    """Send mails within the test: the courier's thread could deliver them during the next one."""
    monkeypatch.setattr(courier, "notify", deliver_due)


def mailed_token() -> str:
    """Return the token in the last mail."""
    return re.search(r"^[\w-]+:[\w-]+:[\w-]+$", mail.outbox[-1].body, re.MULTILINE)[0]


def lasting_headers(answer) -> dict[str, str]:
    """Return the headers of a response except for the remaining rate limit, which changes with every request."""
    return {name: value for name, value in answer.headers.items() if name != "RateLimit"}


class Client(APIClient):
    """A JSON client that is logged in as a user, if any.

    Exceptions become responses with status 500, as in production. A query in a loop raises an exception.
    """

    def __init__(self, user: User | None = None) -> None:
        super().__init__(raise_request_exception=False)
        self.user = user
        if user is not None:
            session = Session.objects.start(user, Device(None, ""))
            self.credentials(HTTP_AUTHORIZATION=f"Bearer {access_token(session)}")

    def request(self, **kwargs):
        with zeal.zeal_context() if zeal else nullcontext():
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
    """Return a function that creates staff with these permissions only: `staff_with("view_stock", "change_stock")`."""

    def make(*codenames: str) -> Client:
        user = make_user(is_staff=True)
        link = User.user_permissions.through
        permissions = Permission.objects.filter(codename__in=codenames).order_by().values_list("pk", flat=True)
        link.objects.bulk_create(link(user=user, permission_id=permission) for permission in permissions)
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
    """A member of staff with every permission on users and stocks."""
    return staff_with(*(f"{verb}_{name}" for verb in ("view", "add", "change", "delete") for name in ("user", "stock")))


@pytest.fixture
def superuser(make_user) -> Client:
    return Client(make_user(is_staff=True, is_superuser=True))


@pytest.fixture
def run_concurrently():
    """Return a function that runs operations in threads of their own, and returns their results."""

    def run(operation):
        try:
            return operation()
        finally:
            connection.close()

    def run_all(*operations):
        with ThreadPoolExecutor(len(operations)) as pool:
            return [future.result() for future in [pool.submit(run, operation) for operation in operations]]

    return run_all


def npm_ci(folder: Path) -> Path:
    """Install the npm packages that a folder's package-lock.json lists, and return the folder."""
    if absent := [program for program in ("node", "npm") if shutil.which(program) is None]:
        skip_or_fail(f"{' and '.join(absent)} not installed")
    if not (folder / "node_modules" / ".package-lock.json").exists():  # npm writes this file last
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=3"]
        process = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
        if re.search("ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH", process.stderr):
            pytest.skip(f"The npm registry cannot be reached: {process.stderr}")
        if process.returncode:
            skip_or_fail(f"npm ci in {folder} failed: {process.stderr}")
    return folder


@pytest.fixture(scope="module")
def chromium():
    """Start Chromium for the tests of one module."""
    sync_playwright = import_or_skip("playwright.sync_api").sync_playwright
    executable = shutil.which("chromium") or shutil.which("chromium-browser")
    if executable is None:
        skip_or_fail("Chromium is not installed.")
    # Playwright runs an event loop in this thread, and Django refuses database access in such a thread.
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=executable,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"],
        )
        yield browser
        browser.close()
    del os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"]
