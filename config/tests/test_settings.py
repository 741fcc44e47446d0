import os
import runpy
import secrets
from unittest.mock import patch

import pytest
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

KEY = secrets.token_urlsafe(64)
REMOTE_DATABASE = {"DATABASE_URL": "postgres://somebody@db.example.com/stocks", "SECRET_KEY": KEY}
PROVIDER = {
    "OAUTH_ID_CLIENT_ID": "stocks",
    "OAUTH_ID_CLIENT_SECRET": "secret",
    "OAUTH_ID_DISCOVERY_URL": "https://id.example.com/.well-known/openid-configuration",
}


def load(**environment):
    """Return the settings of this environment."""
    with patch.dict(os.environ, environment, clear=True), patch("config.env_file.load_env_file", lambda path: {}):
        return runpy.run_path(str(settings.BASE_DIR / "config" / "settings.py"))


def assert_refused(name, environment):
    with pytest.raises(ImproperlyConfigured, match=rf"\b{name}\b") as error:
        load(**environment)
    assert len(str(error.value).splitlines()) == 1
    assert "secret" not in str(error.value)


def test_threads_that_need_more_connections_than_allowed_are_refused():
    size = {"WEB_WORKERS": "2", "WEB_THREADS": "3", "DB_POOL_SIZE": "8", "DB_MAX_OVERFLOW": "0"}
    assert load(**size)["SIGN_IN_THREADS"] == 0
    assert_refused("WEB_THREADS", size | {"WEB_THREADS": "4"})
    assert_refused("WEB_THREADS", size | PROVIDER)
    assert load(**size | PROVIDER | {"DB_POOL_SIZE": "16"})["SIGN_IN_THREADS"] == 4


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(
            ("ALLOWED_HOSTS", value)
            for value in (
                "stocks.example.com:8000", "https://stocks.example.com", "stocks.example.com/", "*.example.com",
                "stocks.*.com", "example.*", "my_host", "::1", "[::1]:8000", "[::1", "[0:0:0:0:0:0:0:1]", "localhost.",
                "a..b", ".", "bücher.example", "a b", "a;b", '"a.example"', "['a.example']", "user@a.example", "127.1",
                "300.1.1.1", "127.0.0.1/8", ",", "a.example,b.example:80", "a" * 64, "a\nb",
            )
        ),
        *(
            (name, value)
            for name in ("APP_URL", "CORS_ALLOWED_ORIGINS")
            for value in (
                "localhost", "localhost:8000", "//localhost", "http://", "http://localhost:0", "http://localhost:99999",
                "http://localhost:http", "http://localhost/path", "http://localhost?a=b", "http://localhost#a",
                "http://a@localhost", "http://[::1", "http://::1", "http://*", "https://*.example.com", "ftp://localhost",
                "http://local\thost", "http://127.1", "http://a..b", "null", "*",
            )
        ),
        ("APP_URL", "https://stocks.example.com"),
        ("APP_URL", "http://my_host"),
        *(
            ("EMAIL_URL", value)
            for value in (
                "smtp://", "smtp://:25", "smtp://user:secret@", "smtp://mail.example.com:0", "smtp://mail.example.com:99999",
                "smtp://mail.example.com:smtp", "smtps://mail.example.com:465", "smtp+starttls://mail.example.com",
                "http://mail.example.com", "mail.example.com:25", "smtp://user@mail.example.com",
                "smtp://:secret@mail.example.com", "smtp://mail.example.com/path", "smtp://mail.example.com?timeout=3",
                "smtp://user:1#2@mail.example.com", "smtp://user:a/b@mail.example.com", "smtp://mail example.com",
                "smtp://mail.example.com\n", "smtp://[::1", "filemail://", "filemail:///", "filemail://mails",
                "consolemail://mail.example.com", "ses://", "xoauth2://",
            )
        ),
        *(
            ("CACHE_URL", value)
            for value in (
                "redis://", "redis:///0", "redis://localhost:99999", "redis://localhost:0", "redis://localhost/cache",
                "redis://localhost:redis/0", "redis://localhost/0?nonsense=1", "redis://a:secret#1@localhost",
                "filecache:///tmp/cache", "dummycache://", "dbcache://cache", "memcache://127.0.0.1:11211",
                "pymemcache://127.0.0.1:11211", "valkey://localhost", "localhost:6379", "redis://local host", "redis://a\n",
            )
        ),
        *(
            ("DEFAULT_FROM_EMAIL", value)
            for value in (
                "stocks", "stocks@", "@example.com", "a@example.com, b@example.com", "Stocks <stocks>", "Stocks",
                "stocks@example.com\nBcc: a@example.com", "stocks@exa mple.com", "stöcks@example.com",
            )
        ),
        ("APP_NAME", "Sto\ncks"),
        ("APP_NAME", "Stocks\x07"),
        ("APP_NAME", "Stocks\u2028"),
        ("PING_MESSAGE", "po\x1b[31mng"),
        ("THROTTLE_ANON", "-1/min"),
        ("THROTTLE_ANON", "60/ min"),
        ("THROTTLE_USER", "1e3/min"),
        ("THROTTLE_USER", "60/min,600/h"),
        ("LOG_LEVEL", "10"),
        ("LOG_FORMAT", "JSON"),
        ("PORT", "08000000000"),
        ("OAUTH__CLIENT_ID", "stocks"),
        ("OAUTH_id_CLIENT_ID", "stocks"),
        ("OAUTH_A__B_CLIENT_ID", "stocks"),
        (f"OAUTH_{'X' * 51}_CLIENT_ID", "stocks"),
    ],
)  # fmt: skip
def test_invalid_value_is_refused_at_startup(name, value):
    assert_refused(name, {name: value})


@pytest.mark.parametrize(
    "url",
    [
        "https://id.example.com:99999/",
        "https://user@id.example.com/",
        "https://id.example.com/#x",
        "https://id..example/",
    ],
)
def test_invalid_discovery_url_is_refused(url):
    assert_refused("OAUTH_ID_DISCOVERY_URL", PROVIDER | {"OAUTH_ID_DISCOVERY_URL": url})


def test_http_app_url_is_refused_with_https():
    hosts = {"HTTPS": "true", "ALLOWED_HOSTS": "stocks.example.com"}
    assert_refused("APP_URL", hosts | {"APP_URL": "http://stocks.example.com"})
    assert load(**hosts, APP_URL="https://stocks.example.com")["HTTPS"]


HOST_AND_PORT = "[_mail['EMAIL_HOST'], _mail['EMAIL_PORT']]"


@pytest.mark.parametrize(
    ("name", "value", "expression", "expected"),
    [
        ("ALLOWED_HOSTS", "*", "ALLOWED_HOSTS", ["*"]),
        (
            "ALLOWED_HOSTS", "Stocks.Example.com, .example.org,[2001:db8::7],10.0.0.1,xn--bcher-kva.example",
            "ALLOWED_HOSTS",
            ["Stocks.Example.com", ".example.org", "[2001:db8::7]", "10.0.0.1", "xn--bcher-kva.example"],
        ),
        ("APP_URL", "HTTP://LocalHost:80/", "APP_URL", "http://localhost"),
        ("APP_URL", "http://[::1]:8080", "APP_URL", "http://[::1]:8080"),
        (
            "CORS_ALLOWED_ORIGINS", "https://App.example.com:443/,http://[2001:DB8::0:7]:8080", "CORS_ALLOWED_ORIGINS",
            ["https://app.example.com", "http://[2001:db8::7]:8080"],
        ),
        ("EMAIL_URL", "smtp://mail.example.com", HOST_AND_PORT, ["mail.example.com", 25]),
        ("EMAIL_URL", "smtp+tls://mail.example.com", "[_mail['EMAIL_PORT'], _mail['EMAIL_USE_TLS']]", [587, True]),
        ("EMAIL_URL", "smtp+ssl://mail.example.com", "[_mail['EMAIL_PORT'], _mail['EMAIL_USE_SSL']]", [465, True]),
        (
            "EMAIL_URL", "smtp+tls://me@example.com:p%40s%2Fs@[::1]:2525",
            f"[_mail['EMAIL_HOST_USER'], _mail['EMAIL_HOST_PASSWORD'], *{HOST_AND_PORT}]",
            ["me@example.com", "p@s/s", "::1", 2525],
        ),
        ("EMAIL_URL", "filemail:///var/mails%20here", "_mail['EMAIL_FILE_PATH']", "/var/mails here"),
        ("DEFAULT_FROM_EMAIL", "Stocks <stocks@mail>", "DEFAULT_FROM_EMAIL", "Stocks <stocks@mail>"),
        ("CACHE_URL", "redis://:p%40ss@cache/1", "CACHES['default']['LOCATION']", "redis://:p%40ss@cache/1"),
        ("CACHE_URL", "rediss://cache:6380/0?socket_timeout=1", "CACHES['default']['OPTIONS']['socket_timeout']", 1),
        ("CACHE_URL", "redis:///run/redis.sock", "CACHES['default']['LOCATION']", "unix:///run/redis.sock"),
        ("CACHE_URL", "redis://a:6379,b:6379/0", "len(CACHES['default']['LOCATION'])", 2),
    ],
)  # fmt: skip
def test_valid_value_is_parsed(name, value, expression, expected):
    assert eval(expression, load(**{name: value})) == expected


# A database on another host


@pytest.mark.parametrize(("name", "value"), [("DEBUG", "true"), ("ALLOWED_HOSTS", "localhost,*")])
@pytest.mark.parametrize(
    "url",
    [
        "postgres://u@db.example.com/stocks", "postgres://u@10.0.0.5/stocks", "postgres://u@[2001:db8::7]/stocks",
        "postgres://u@localhost.example.com/stocks", "postgres://u@127.0.0.1.example.com/stocks",
        "postgres://u@/stocks?host=db.example.com", "postgres://u@localhost/stocks?hostaddr=10.0.0.5",
        "postgres://u@/stocks?service=production", "postgres://u@127.0.0.1,db.example.com/stocks",
    ],
)  # fmt: skip
def test_development_settings_are_refused_with_a_remote_database(name, value, url):
    assert_refused(name, {name: value, "DATABASE_URL": url, "SECRET_KEY": KEY})


@pytest.mark.parametrize("variable", ["PGHOST", "PGHOSTADDR", "PGSERVICE"])
def test_libpq_variables_count_as_a_remote_database(variable):
    assert_refused(
        "DEBUG", {"DEBUG": "true", "DATABASE_URL": "postgres:///stocks", "SECRET_KEY": KEY, variable: "10.0.0.5"}
    )


@pytest.mark.parametrize(
    "url",
    [
        "postgres://u@localhost/stocks", "postgres://u@127.0.0.1:5432/stocks", "postgres://u@127.8.0.1/stocks",
        "postgres://u@[::1]/stocks", "postgres:///stocks", "postgres:///stocks?host=/var/run/postgresql",
        "postgresql+psycopg2://u@LOCALHOST/stocks", "sqlite:////tmp/nothing.sqlite3",
    ],
)  # fmt: skip
def test_development_settings_are_accepted_with_a_local_database(url):
    assert load(DEBUG="true", ALLOWED_HOSTS="*", DATABASE_URL=url, SECRET_KEY=KEY)["DEBUG"]


def test_default_hosts_are_accepted_with_a_remote_database():
    assert load(**REMOTE_DATABASE)["ALLOWED_HOSTS"] == ["localhost", "127.0.0.1", "[::1]"]
