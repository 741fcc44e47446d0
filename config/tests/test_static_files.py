import json
import shutil

import pytest
from django.conf import settings

from records.tests.processes import run_python

IGNORED = shutil.ignore_patterns("__pycache__", "node_modules", ".*_cache", "tests")
PAGES = ["/", "/docs", "/redoc", "/admin/login/", "/api/v1", "/api/v1/stocks", "/api/login", "/account/forgot-password"]
#: Prints the status of every page, and of everything that it loads.
LOAD_SCRIPT = """
import json, re, sys, warnings
warnings.simplefilter("error", UserWarning)
from urllib.parse import urljoin
import django; django.setup()
from django.test import Client
client, statuses = Client(headers={"accept": "text/html"}), {}
for path in json.loads(sys.argv[1]):
    page = client.get(path)
    statuses[path] = page.status_code
    for link in re.findall(r'<(?:script|link|img)[^>]+(?:src|href)=["\\']([^"\\'#]+)', page.content.decode()):
        answer = client.get(link)
        statuses[link] = answer.status_code
        if link.endswith(".css"):
            for url in re.findall(r'url\\(["\\']?([^"\\')#?:]+)["\\'#?)]', b"".join(answer).decode()):
                statuses[urljoin(link, url)] = client.get(urljoin(link, url)).status_code
print(json.dumps(statuses))
"""


@pytest.fixture(scope="module")
def migrated(tmp_path_factory):
    """A copy of the project as git has it, migrated."""
    copy = tmp_path_factory.mktemp("checkout")
    for name in ("config", "records", "users", "stocks"):
        shutil.copytree(settings.BASE_DIR / name, copy / name, ignore=IGNORED)
    shutil.copy2(settings.BASE_DIR / "manage.py", copy)
    run(copy, "manage.py", "migrate", "--verbosity", "0")
    return copy


@pytest.fixture
def checkout(migrated, tmp_path):
    return shutil.copytree(migrated, tmp_path / "checkout")


def run(checkout, *arguments, **environment):
    environment |= {"ALLOWED_HOSTS": "testserver", "LOG_LEVEL": "ERROR", "DJANGO_SETTINGS_MODULE": "config.settings"}
    process = run_python(*arguments, cwd=checkout, **environment)
    assert (process.returncode, process.stderr) == (0, "")
    return process.stdout


def load_pages(checkout, **environment):
    return json.loads(run(checkout, "-c", LOAD_SCRIPT, json.dumps(PAGES), **environment))


def assert_all_served(statuses):
    assert {
        path: status for path, status in statuses.items() if status != (401 if path == "/api/v1/stocks" else 200)
    } == {}
    assert [path for path in statuses if path.endswith(".js")]
    assert [path for path in statuses if path.endswith(".css")]


@pytest.mark.parametrize("debug", ["false", "true"])
def test_pages_of_a_new_checkout_load_their_assets(checkout, debug):
    statuses = load_pages(checkout, DEBUG=debug)
    assert_all_served(statuses)
    assert not (checkout / "var" / "static").exists()


def test_collected_files_have_hashed_names(checkout):
    run(checkout, "manage.py", "collectstatic", "--no-input", "--verbosity", "0")
    statuses = load_pages(checkout)
    assert_all_served(statuses)
    manifest = json.loads((checkout / "var" / "static" / "staticfiles.json").read_text())["paths"]
    names = {path.removeprefix("/static/") for path in statuses if path.startswith("/static/")}
    assert names
    assert names <= set(manifest.values())
    # A file that is added after an upgrade is served before it is collected.
    (checkout / "users" / "static" / "users" / "account.js").rename(checkout / "users" / "static" / "users" / "new.js")
    page = checkout / "users" / "templates" / "users" / "account.html"
    page.write_text(page.read_text().replace("users/account.js", "users/new.js"))
    statuses = load_pages(checkout)
    assert_all_served(statuses)
    assert "/static/users/new.js" in statuses
