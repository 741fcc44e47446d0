import os
import shutil

import pytest
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from config.env_file import load_env_file
from records.tests.processes import run_python

SECRET = "hunter2-in-the-file"
IGNORED = shutil.ignore_patterns("__pycache__", "node_modules", ".*_cache", "tests", "fixtures")


@pytest.fixture
def environment():
    return {}


@pytest.fixture
def env_file(tmp_path):
    return tmp_path / ".env"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """Copy the project, so that it can start with another `.env`."""
    copy = tmp_path_factory.mktemp("checkout")
    for name in ("config", "records", "users", "stocks"):
        shutil.copytree(settings.BASE_DIR / name, copy / name, ignore=IGNORED)
    shutil.copy2(settings.BASE_DIR / "manage.py", copy)
    return copy


def check(checkout, content):
    """Run `manage.py check` with this `.env` and no other environment."""
    file = checkout / ".env"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return run_python("manage.py", "check", cwd=checkout)


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("NAME=value", "value"),
        ("NAME=", ""),
        ("NAME=''", ""),
        ('NAME=""', ""),
        ("export NAME=value", "value"),
        ("  NAME = value  ", "value"),
        ("NAME=value # comment", "value"),
        ("NAME='value' # comment", "value"),
        ('NAME="value" # comment', "value"),
        ("NAME=a#b", "a#b"),
        ("NAME='a # b'", "a # b"),
        ("NAME=a b", "a b"),
        ("NAME=Bob's", "Bob's"),
        ("NAME=a=b", "a=b"),
        ("NAME=a\\b", "a\\b"),
        ("NAME='$a${b}$$'", "$a${b}$$"),
        ("NAME='a\"b'", 'a"b'),
        ('NAME="a\'b"', "a'b"),
        (r'NAME="a\"b\\c\$d"', r'a"b\c$d'),
        ("NAME=ü", "ü"),
    ],
)
@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_line_is_parsed_like_docker_compose(environment, env_file, line, value, end):
    env_file.write_bytes(f"# comment\n\n{line}{end}".encode())
    load_env_file(env_file, environment)
    assert environment == {"NAME": value}


@pytest.mark.parametrize(
    "line",
    [
        "NAME",
        "NAME: value",
        "set NAME=value",
        "=value",
        "1NAME=value",
        "NA ME=value",
        "NÄME=value",
        "NAME='value",
        "NAME=value'",
        'NAME="value',
        'NAME=value"',
        "NAME='value'x",
        "NAME='a'b'",
        "NAME='a\\'",
        'NAME="a\\nb"',
        'NAME="a$b"',
        "NAME=a$b",
        "NAME=${b}",
        "NAME=a\\",
        "NAME=“value”",
        "NAME= # comment",
        "NAME=value\t# comment",
        "NAME=a\rOTHER=b",
        "NAME=a\0",
        "NAME=a\x1b[31m",
        "NAME=\ufeffa",
        "NAME=a\u2028b",
        "OTHER=1\nOTHER=1",
    ],
)
def test_ambiguous_line_is_refused(environment, env_file, line):
    env_file.write_text(f"FIRST=1\n{line}\n", newline="\n")
    with pytest.raises(ImproperlyConfigured, match=r"^\.env, line [23]: "):
        load_env_file(env_file, environment)
    assert environment == {}


def test_environment_takes_precedence(environment, env_file):
    environment["NAME"] = "of the environment"
    env_file.write_text("NAME=of the file\n")
    load_env_file(env_file, environment)
    assert environment == {"NAME": "of the environment"}


def test_missing_and_masked_files_have_no_variables(environment, env_file):
    load_env_file(env_file, environment)
    env_file.symlink_to("/dev/null")
    load_env_file(env_file, environment)
    assert environment == {}


def _directory(path):
    path.mkdir()


def _dangling_link(path):
    path.symlink_to(path.parent / "gone")


def _pipe(path):
    os.mkfifo(path)


def _loop(path):
    path.symlink_to(path)


@pytest.mark.parametrize("create", [_directory, _dangling_link, _pipe, _loop])
def test_non_regular_file_is_refused(environment, env_file, create):
    create(env_file)
    with pytest.raises(ImproperlyConfigured, match=r"^\.env cannot be read: "):
        load_env_file(env_file, environment)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_file_without_permission_is_refused(environment, env_file):
    env_file.write_text("NAME=value")
    env_file.chmod(0)
    with pytest.raises(ImproperlyConfigured, match=r"^\.env cannot be read: Permission denied"):
        load_env_file(env_file, environment)


def test_file_that_fails_to_open_is_refused(environment, env_file, monkeypatch):
    env_file.write_text("NAME=value")
    monkeypatch.setattr(type(env_file), "read_bytes", lambda path: os.open("/proc/self/nothing", os.O_RDONLY))
    with pytest.raises(ImproperlyConfigured, match=r"^\.env cannot be read: "):
        load_env_file(env_file, environment)


URL = f"DATABASE_URL=postgres://somebody:{SECRET}@127.0.0.1:1/somewhere\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_byte_order_mark_is_ignored(checkout, encoding):
    process = check(checkout, URL.encode(encoding))
    assert process.returncode != 0
    assert process.stderr == (
        "Error: SECRET_KEY is missing, and DATABASE_URL is set: set SECRET_KEY to at least 50 random characters, for "
        "instance the output of `python3 -c 'import secrets; print(secrets.token_urlsafe(64))'`.\n"
    )


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (URL.encode("utf-16"), 1),
        (URL.encode("utf-16-le"), 1),
        (URL.encode("utf-32"), 1),
        ("# ß\n".encode("latin-1") + URL.encode(), 1),
        (URL.encode() + b"APP_NAME=\xff\n", 2),
        (URL.replace("=", ": ", 1), 1),
        (f"DEBUG=false\n{URL.strip()}'\n", 2),
        (f"{URL}SECRET_KEY={SECRET}$x\n", 2),
        (f"{URL}{URL}", 2),
        (f"\n\nDATABASE_URL '{SECRET}'\n", 3),
        (URL.replace("DATABASE_URL", "DATABSE_URL"), 1),
        (URL.replace("DATABASE_URL", "DATABASE_URI"), 1),
        (URL.replace("DATABASE_URL", "database_url"), 1),
        ("DEBUG=false\nALLOWED_HOST=example.com\n", 2),
        ("SERCET_KEY=x\n", 1),
    ],
)
def test_invalid_file_stops_the_start(checkout, content, line):
    process = check(checkout, content)
    assert process.returncode != 0
    assert process.stderr.startswith(f"Error: .env, line {line}: ")
    assert len(process.stderr.splitlines()) == 1
    assert SECRET not in process.stdout + process.stderr


def test_misspelled_name_gets_a_suggestion(checkout):
    assert check(checkout, "THROTLE_ANON=5/min").stderr == (
        "Error: .env, line 1: there is no setting THROTLE_ANON. Did you mean THROTTLE_ANON?\n"
    )


def test_variables_of_other_programs_are_ignored(checkout):
    names = ("POSTGRES_USER", "POSTGRES_DB", "POSTGRES_PORT", "COMPOSE_PROJECT_NAME", "API_URL", "HTTP", "http_proxy")
    process = check(checkout, "".join(f"{name}=x\n" for name in names))
    assert (process.returncode, process.stderr) == (0, "")


def test_example_is_valid(environment):
    assert load_env_file(settings.BASE_DIR / ".env.example", environment) == {}


def test_uncommented_example_is_valid(environment, env_file):
    example = (settings.BASE_DIR / ".env.example").read_text()
    lines = [line[1:] for line in example.splitlines() if line.startswith("#") and line[1:2].isupper() and "=" in line]
    env_file.write_text("\n".join(line for line in lines if line.partition("=")[0].replace("_", "").isalpha()))
    assert len(load_env_file(env_file, environment)) > 30
