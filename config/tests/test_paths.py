import os
import runpy
import shutil
import sqlite3
from pathlib import Path
from unittest.mock import patch
from urllib.parse import quote

import pytest
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from conftest import import_or_skip
from records.tests.processes import run_python

KEY = "only-for-tests-4e1f0c9a7b5d83260fb17c4d9ae2553f8061bd7c"
IGNORED = shutil.ignore_patterns("__pycache__", "node_modules", ".*_cache", "tests")
NAMES = [
    "c++",
    "50%",
    "a b",
    "#1",
    "what?",
    "ü",
    "a;b",
    "a&b",
    "it's",
    'say "x"',
    "%20",
    "a%2Fb",
    "[1]",
    "$HOME",
    "a\\b",
    "a@b",
]
ALL_SPECIAL_CHARACTERS = "c++ 50% #1 what? ü;&'\"%20[$HOME]"


def database(base=settings.BASE_DIR, **environment):
    """Return the name of the database of the project in `base`."""
    with patch.dict(os.environ, environment, clear=True), patch("config.env_file.load_env_file", lambda path: {}):
        return runpy.run_path(str(base / "config" / "settings.py"))["DATABASES"]["default"]["NAME"]


@pytest.mark.parametrize("name", NAMES)
def test_default_database_is_in_the_checkout_for_any_folder_name(tmp_path, name):
    base = tmp_path / name
    (base / "config").mkdir(parents=True)
    shutil.copy2(settings.BASE_DIR / "config" / "settings.py", base / "config")
    path = database(base)
    assert path == str(base / "var" / "db.sqlite3")
    sqlite3.connect(path).close()
    assert Path(path).is_file()


@pytest.mark.parametrize("name", NAMES)
def test_quoted_path_in_a_url_is_decoded(tmp_path, name):
    path = str(tmp_path / name / "db.sqlite3")
    assert database(DATABASE_URL=f"sqlite:///{quote(path)}", SECRET_KEY=KEY) == path


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:////srv/c++/db.sqlite3", "/srv/c++/db.sqlite3"),
        ("sqlite:////srv/50%/db.sqlite3", "/srv/50%/db.sqlite3"),
        ("sqlite:////srv/a b;c&d/db.sqlite3", "/srv/a b;c&d/db.sqlite3"),
        ("sqlite:////srv/%2B%23%3F/db.sqlite3", "/srv/+#?/db.sqlite3"),
        ("sqlite:///db.sqlite3", str(settings.BASE_DIR / "db.sqlite3")),
        ("sqlite://:memory:", ":memory:"),
        ("sqlite:///:memory:", ":memory:"),
        ("sqlite://", ":memory:"),
    ],
)
def test_sqlite_url_is_parsed(url, path):
    assert database(DATABASE_URL=url, SECRET_KEY=KEY) == path


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:////srv/#1/db.sqlite3", "sqlite:////srv/what?/db.sqlite3", "sqlite:////srv/db.sqlite3?timeout=5",
        "sqlite://srv/db.sqlite3", "sqlite:/srv/db.sqlite3", "sqlite:db.sqlite3", "sqlite:////srv/%00", "sqlite:////srv/",
        "sqlite:///file:db.sqlite3",
    ],
)  # fmt: skip
def test_ambiguous_sqlite_url_is_refused(url):
    with pytest.raises(ImproperlyConfigured, match="DATABASE_URL"):
        database(DATABASE_URL=url, SECRET_KEY=KEY)


def test_checkout_works_in_a_folder_with_special_characters(tmp_path):
    import_or_skip("inflect")  # of requirements-dev.txt, like startresource
    base = tmp_path / ALL_SPECIAL_CHARACTERS
    for name in ("config", "records", "users", "stocks"):
        shutil.copytree(settings.BASE_DIR / name, base / name, ignore=IGNORED)
    for name in ("manage.py", "pyproject.toml"):
        shutil.copy2(settings.BASE_DIR / name, base)
    (base / ".env").write_text("APP_NAME=Elsewhere\n")
    temporary = base / "tmp"
    temporary.mkdir()
    environment = {"TMPDIR": str(temporary)}

    def manage(*arguments):
        process = run_python("manage.py", *arguments, cwd=base, **environment)
        assert process.returncode == 0, process.stderr
        return process.stdout

    manage("migrate", "--verbosity", "0")
    manage("collectstatic", "--no-input", "--verbosity", "0")
    assert "Created Task" in manage("startresource", "Task", "title:str")
    manage("migrate", "--verbosity", "0")
    command = """
from django.test import Client
answer = Client().get("/admin/login/")
print(Client().get("/").json()["message"], answer.status_code)
for path in __import__("re").findall(r'(?:src|href)="(/static/[^"]+)', answer.content.decode()):
    print(Client().get(path).status_code)
"""
    environment["ALLOWED_HOSTS"] = "testserver"
    output = manage("shell", "--no-imports", "--verbosity", "0", "-c", command).split("\n")
    assert output[0] == "Elsewhere is running 200"
    assert set(output[1:-1]) == {"200"}
    assert (base / "var" / "db.sqlite3").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == [ALL_SPECIAL_CHARACTERS]
