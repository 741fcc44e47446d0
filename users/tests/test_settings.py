import shutil
import stat
from urllib.parse import quote

import pytest
from django.conf import settings

from records.tests.processes import run_python
from users.tests.environments import DEPLOYED, KEY, PASSWORD, POSTGRES, assert_refused, check, setting


def test_service_starts_without_any_settings():
    process = check()
    assert (process.returncode, process.stderr) == (0, "")


def test_every_module_can_be_imported_first():
    """Django runs checks in no fixed order, so any of them can be the first to import a module."""
    command = """
import importlib, os, pathlib
import django
django.setup()
for path in (path for app in ("config", "records", "users", "stocks") for path in pathlib.Path(app).rglob("*.py")):
    name = ".".join(path.with_suffix("").parts)
    if not {"tests", "resource_template"} & set(path.parts):
        if os.fork() == 0:
            try:
                importlib.import_module(name)
            except BaseException as error:
                print(name, error, flush=True)
            os._exit(0)
        os.wait()
"""
    process = run_python("-c", command, DJANGO_SETTINGS_MODULE="config.settings")
    assert (process.returncode, process.stdout) == (0, "")


def test_defaults_are_sqlite_and_a_generated_secret_key(tmp_path):
    shutil.copytree(settings.BASE_DIR / "config", tmp_path / "config")
    command = "from config.settings import *; print(DATABASES['default']['NAME'], SECRET_KEY)"
    first, second = (run_python("-c", command, cwd=tmp_path).stdout for _ in range(2))
    key_file = tmp_path / "var" / "secret_key"
    assert first == second == f"{tmp_path / 'var' / 'db.sqlite3'} {key_file.read_text()}\n"
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    assert len(key_file.read_text()) >= 50


@pytest.mark.parametrize("url", ["postgres://u@h/d", "postgresql://u@h/d", "sqlite:////nonexistent/db.sqlite3"])
def test_database_requires_a_secret_key(url):
    assert_refused(check(DATABASE_URL=url), "SECRET_KEY")


@pytest.mark.parametrize("key", ["short", "x" * 80, "django-insecure-" + "abcdefghij" * 8, "abc" * 30, " " * 80])
def test_database_requires_a_strong_secret_key(key):
    assert_refused(check(DATABASE_URL="postgres://u@h/d", SECRET_KEY=key), "SECRET_KEY")


def test_debug_with_https_is_refused():
    assert_refused(check(DEBUG="true", HTTPS="true"), "DEBUG")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DEBUG", "maybe"),
        ("HTTPS", "2"),
        ("SQL_ECHO", "y es"),
        ("SEED_DEFAULTS", "nein"),
        ("PORT", "http"),
        ("PORT", "0"),
        ("PORT", "65536"),
        ("WEB_WORKERS", "0"),
        ("WEB_THREADS", "1.5"),
        ("WEB_THREADS", "1000"),
        ("TRUSTED_PROXIES", "-1"),
        ("ACCESS_TOKEN_MINUTES", "0"),
        ("ACCESS_TOKEN_MINUTES", "9" * 30),
        ("REFRESH_TOKEN_DAYS", "soon"),
        ("REFRESH_TOKEN_DAYS", "9999999999"),
        ("DB_POOL_SIZE", "0"),
        ("DB_MAX_OVERFLOW", "-1"),
        ("APP_URL", "example.com"),
        ("APP_URL", "ftp://example.com"),
        ("APP_URL", "https://[example.com"),
        ("CACHE_URL", "nonsense"),
        ("CACHE_URL", "nonsense://"),
        ("EMAIL_URL", "nonsense"),
        ("EMAIL_URL", "nonsense://"),
        ("THROTTLE_ANON", "fast"),
        ("THROTTLE_ANON", "60"),
        ("THROTTLE_USER", "0/min"),
        ("THROTTLE_USER", "60/fortnight"),
        ("THROTTLE_USER", "60/month"),
        ("LOG_LEVEL", "LOUD"),
        ("LOG_FORMAT", "xml"),
        ("CORS_ALLOWED_ORIGINS", "foo"),
        ("ALLOWED_HOSTS", "a b"),
    ],
)
def test_invalid_value_is_refused_in_one_line(name, value):
    assert_refused(check(**{name: value}), name)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DB_POOL_PRE_PING", "perhaps"),
        ("DB_POOL_RECYCLE", "-1"),
        ("DB_POOL_TIMEOUT", "long"),
        ("POSTGRES_PASSWORD_FILE", "/nonexistent"),
    ],
)
def test_invalid_postgresql_value_is_refused_in_one_line(name, value):
    assert_refused(check(**POSTGRES, **{name: value}), name)


@pytest.mark.parametrize("origin", ["nonsense", "https://example.com/path"])
def test_invalid_cors_origin_is_refused(origin):
    process = check(CORS_ALLOWED_ORIGINS=origin)
    assert process.returncode != 0
    assert "CORS_ALLOWED_ORIGINS" in process.stderr
    assert "Traceback" not in process.stderr


@pytest.mark.parametrize(
    "url",
    [
        "nonsense",
        f"mysql://u:{PASSWORD}@h/d",
        f"postgresql+asyncpg://u:{PASSWORD}@h/d",
        f"postgres://u:{PASSWORD}@h:port/d",
        f"postgres://u:{PASSWORD}@h:99999/d",
        f"postgres://u:{PASSWORD}@h",
    ],
)
def test_invalid_database_url_is_refused_without_revealing_the_password(url):
    assert_refused(check(DATABASE_URL=url, SECRET_KEY=KEY), "DATABASE_URL")


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg2"])
def test_every_spelling_of_postgresql_is_accepted(scheme):
    url = f"{scheme}://u:p%40ss@db.example.com:5433/stocks?sslmode=require"
    names = "[DATABASES['default'][name] for name in ('ENGINE', 'USER', 'PASSWORD', 'HOST', 'PORT', 'NAME')]"
    expected = ["django.db.backends.postgresql", "u", "p@ss", "db.example.com", 5433, "stocks"]
    assert setting(names, DATABASE_URL=url, SECRET_KEY=KEY) == str(expected)
    assert check(DATABASE_URL=url, SECRET_KEY=KEY).returncode == 0


@pytest.mark.parametrize("password", [PASSWORD, "$dollar", "with blank", "quote'\"#%40", "back\\nslash"])
def test_password_is_used_when_the_url_has_none(password):
    assert setting("DATABASES['default']['PASSWORD']", **POSTGRES, POSTGRES_PASSWORD=password) == password


def test_password_file_is_used_when_the_url_has_no_password(tmp_path):
    file = tmp_path / "password"
    file.write_text(f"{PASSWORD}\n")
    assert setting("DATABASES['default']['PASSWORD']", **POSTGRES, POSTGRES_PASSWORD_FILE=str(file)) == PASSWORD


def test_password_of_the_url_takes_precedence():
    environment = {"DATABASE_URL": "postgres://u:first@h/d", "SECRET_KEY": KEY, "POSTGRES_PASSWORD": "second"}
    assert setting("DATABASES['default']['PASSWORD']", **environment) == "first"


def test_secret_key_is_used_verbatim():
    key = "$" + KEY
    assert setting("SECRET_KEY", DATABASE_URL=POSTGRES["DATABASE_URL"], SECRET_KEY=key) == key


@pytest.mark.parametrize("command", ["migrate", "showmigrations"])
def test_password_is_never_printed(command):
    process = run_python("manage.py", *command.split(), **POSTGRES, POSTGRES_PASSWORD=PASSWORD)
    assert process.returncode != 0
    assert PASSWORD not in process.stdout + process.stderr
    assert KEY not in process.stdout + process.stderr


def test_deployment_check_is_clean():
    process = run_python("manage.py", "check", "--deploy", "--fail-level", "WARNING", **DEPLOYED)
    assert (process.returncode, process.stderr) == (0, "")


@pytest.mark.parametrize(("https", "expected"), [("true", True), ("false", False)])
def test_https_secures_the_cookies(https, expected):
    names = "[SESSION_COOKIE_SECURE, CSRF_COOKIE_SECURE, SECURE_SSL_REDIRECT, SECURE_HSTS_SECONDS > 0]"
    assert setting(names, **DEPLOYED | {"HTTPS": https}) == str([expected] * 4)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("DEBUG", "False"),
        ("HTTPS", "False"),
        ("ALLOWED_HOSTS", "['localhost', '127.0.0.1', '[::1]']"),
        ("CORS_ALLOWED_ORIGINS", "[]"),
        ("ACCESS_TOKEN_LIFETIME.total_seconds()", "900.0"),
        ("REFRESH_TOKEN_LIFETIME.days", "14"),
        ("REST_FRAMEWORK['DEFAULT_THROTTLE_RATES']", "{'anon': '60/min', 'user': '600/min'}"),
        ("SEED_DEFAULTS", "True"),
        ("DB_CONNECTIONS_MAX", "50"),
        ("PORT", "8000"),
    ],
)
def test_default(expression, expected):
    assert setting(expression) == expected


def test_empty_value_means_the_default():
    assert setting("[DEBUG, PORT, LOG_LEVEL]", DEBUG="", PORT="", LOG_LEVEL="") == "[False, 8000, 'INFO']"


def test_workers_are_as_many_as_processors_where_redis_counts_for_all():
    redis = "redis://127.0.0.1:6379/0"
    assert setting("WEB_WORKERS") == "1"
    most = "DB_CONNECTIONS_MAX // (WEB_THREADS + 1)"
    assert setting(f"WEB_WORKERS == min(os.cpu_count(), {most})", CACHE_URL=redis) == "True"
    assert setting("WEB_WORKERS", CACHE_URL=redis, DB_POOL_SIZE="9", DB_MAX_OVERFLOW="0") == "1"
    assert setting("WEB_WORKERS", WEB_WORKERS="3") == "3"


def test_counters_are_in_memory_unless_redis_is_named():
    cache = "CACHES['default']['BACKEND']"
    assert "locmem" in setting(cache, WEB_WORKERS="2")
    assert "redis" in setting(cache, WEB_WORKERS="2", CACHE_URL="redis://127.0.0.1:6379/0")


@pytest.mark.parametrize("key", ["short", "a" * 60, "django-insecure-" + "x7" * 30])
def test_weak_former_key_is_refused(key):
    assert_refused(check(**POSTGRES, SECRET_KEY_FALLBACKS=f"{KEY},{key}"), "SECRET_KEY_FALLBACKS")


def test_former_keys_are_a_list():
    assert setting("SECRET_KEY_FALLBACKS", SECRET_KEY_FALLBACKS=f"{KEY}, {KEY[::-1]}") == str([KEY, KEY[::-1]])


@pytest.mark.parametrize("days", ["-1", "x", "1.5", "4000"])
def test_invalid_deletion_grace_is_refused(days):
    assert_refused(check(ACCOUNT_DELETION_GRACE_DAYS=days), "ACCOUNT_DELETION_GRACE_DAYS")


def test_weak_superuser_password_is_refused(tmp_path):
    url = f"sqlite:///{quote(str(tmp_path / 'db.sqlite3'))}"
    process = run_python(
        "manage.py", "serve", DATABASE_URL=url, SECRET_KEY=KEY, DJANGO_SUPERUSER_PASSWORD="admin", PORT="8199"
    )
    assert process.returncode != 0
    assert "DJANGO_SUPERUSER_PASSWORD" in process.stderr.strip().splitlines()[-1]
    assert "Traceback" not in process.stderr


# What libpq accepts in a URL

CONNECTION = "[DATABASES['default'][name] for name in ('HOST', 'PORT', 'USER', 'PASSWORD', 'NAME')]"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgres://%2Fvar%2Frun%2Fpostgresql/db", ["/var/run/postgresql", "", "", "", "db"]),
        ("postgres:///db?host=/var/run/postgresql", ["/var/run/postgresql", "", "", "", "db"]),
        ("postgres://u@/db?host=%2Ftmp&port=6543", ["/tmp", 6543, "u", "", "db"]),
        ("postgres://%40u:p%40%3A%2Fss@h/d%20b", ["h", "", "@u", "p@:/ss", "d b"]),
        ("postgres://u:p#a?b@h/d", ["h", "", "u", "p#a?b", "d"]),
        ("postgres://u:%25%E2%82%AC@h/d", ["h", "", "u", "%€", "d"]),
        ("postgres://u@[::1]:5433/d", ["::1", 5433, "u", "", "d"]),
        ("postgres://h1:5432,h2:5433/d", ["h1,h2", "5432,5433", "", "", "d"]),
        ("postgres://h1,h2:5433/d?target_session_attrs=read-write", ["h1,h2", ",5433", "", "", "d"]),
        ("postgresql:///d?user=u&password=p", ["", "", "u", "p", "d"]),
        ("postgresql+psycopg2:///?dbname=d", ["", "", "", "", "d"]),
        ("postgres:///?service=stocks", ["", "", "", "", ""]),
    ],
)
def test_database_url_is_parsed_like_libpq(url, expected):
    assert setting(CONNECTION, DATABASE_URL=url, SECRET_KEY=KEY) == str(expected)


@pytest.mark.parametrize(
    ("query", "name", "expected"),
    [
        ("", "connect_timeout", "30"),
        ("connect_timeout=3", "connect_timeout", "3"),
        ("keepalives_idle=5", "keepalives_idle", "5"),
        ("tcp_user_timeout=1000", "tcp_user_timeout", "1000"),
        ("sslmode=verify-full", "sslmode", "verify-full"),
        ("ssl=true", "sslmode", "require"),
        ("sslrootcert=%2Fetc%2Fca.pem", "sslrootcert", "/etc/ca.pem"),
        ("application_name=my%20app", "application_name", "my app"),
        ("", "options", "-c statement_timeout=10000 -c lock_timeout=3000"),
        ("options=-csearch_path%3Dapp,public", "options", "… -csearch_path=app,public"),
        ("options=-c%20lock_timeout%3D5s", "options", "… -c lock_timeout=5s"),
    ],
)
def test_url_parameters_override_the_defaults(query, name, expected):
    url = f"postgres://u@h/d?{query}"
    expected = expected.replace("…", "-c statement_timeout=10000 -c lock_timeout=3000")
    assert setting(f"DATABASES['default']['OPTIONS']['{name}']", DATABASE_URL=url, SECRET_KEY=KEY) == expected


def test_pgoptions_are_kept():
    options = setting("DATABASES['default']['OPTIONS']['options']", **POSTGRES, PGOPTIONS="-c work_mem=8MB")
    assert options.endswith(" -c work_mem=8MB")


@pytest.mark.parametrize(
    "query", ["nonsense=1", "connect_timeout=soon", "keepalives_idle=-1", "port=0", "host=%00", "application_name=%zz"]
)
def test_invalid_libpq_parameter_is_refused(query):
    url = f"postgres://u:{PASSWORD}@h/d?{query}"
    assert_refused(check(DATABASE_URL=url, SECRET_KEY=KEY), "DATABASE_URL")


@pytest.mark.parametrize(
    "url", ["nonsense", "sqlite:////tmp/x", f"postgres://u:{PASSWORD}@h:port/d", f"mysql://u:{PASSWORD}@h/d"]
)
def test_invalid_migration_url_is_refused(url):
    assert_refused(check(**POSTGRES, MIGRATION_DATABASE_URL=url), "MIGRATION_DATABASE_URL")


def test_migration_url_without_database_url_is_refused():
    assert_refused(check(MIGRATION_DATABASE_URL="postgres://owner@h/d"), "MIGRATION_DATABASE_URL")


def test_migration_database_has_the_password_and_no_timeouts():
    environment = {"MIGRATION_DATABASE_URL": "postgresql+psycopg2://owner@h/d", "POSTGRES_PASSWORD": PASSWORD}
    names = "[MIGRATION_DATABASE[name] for name in ('USER', 'PASSWORD', 'HOST')]"
    assert setting(names, **POSTGRES, **environment) == str(["owner", PASSWORD, "h"])
    options = setting("MIGRATION_DATABASE['OPTIONS']['options']", **POSTGRES, **environment)
    assert options == "-c statement_timeout=0 -c lock_timeout=0"


# Limits


@pytest.mark.parametrize(
    ("statement", "lock", "expected"),
    [("2", "1", "2000 1000"), ("0.5", "0.25", "500 250"), ("0", "0", "0 0"), ("86400", "3", "86400000 3000")],
)
def test_timeouts_are_in_seconds(statement, lock, expected):
    environment = {"STATEMENT_TIMEOUT": statement, "LOCK_TIMEOUT": lock}
    options = setting("DATABASES['default']['OPTIONS']['options']", **POSTGRES, **environment)
    assert options == "-c statement_timeout={} -c lock_timeout={}".format(*expected.split())


@pytest.mark.parametrize(("lock", "expected"), [("", "20"), ("0.5", "0.5"), ("3", "3.0")])
def test_lock_timeout_sets_the_busy_timeout_of_sqlite(lock, expected):
    assert setting("DATABASES['default']['OPTIONS']['timeout']", LOCK_TIMEOUT=lock) == expected


@pytest.mark.parametrize("name", ["STATEMENT_TIMEOUT", "LOCK_TIMEOUT"])
@pytest.mark.parametrize("value", ["-1", "soon", "3s", "1e3", "99999", "0.0001", "nan", "inf"])
@pytest.mark.parametrize("database", [{}, POSTGRES])
def test_invalid_timeout_is_refused(name, value, database):
    assert_refused(check(**database, **{name: value}), name)
