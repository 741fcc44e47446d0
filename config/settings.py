"""Settings, in the order of Django's documentation; every variable is described in `.env.example`."""

import logging
import os
import re
import secrets
import tempfile
from datetime import timedelta
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured
from django.http.request import validate_host

from config import env, postgresql

BASE_DIR = Path(__file__).resolve().parent.parent
VAR_DIR = BASE_DIR / "var"
VERSION = "1.0.0"

_env_file_lines = env.load_env_file(BASE_DIR / ".env")
_text = env.text


def _flag(name: str, *, default: bool) -> bool:
    value = _text(name, str(default)).strip().lower()
    if value in {"true", "yes", "on", "1"}:
        return True
    if value in {"false", "no", "off", "0"}:
        return False
    raise ImproperlyConfigured(f"{name} must be true or false, not '{value}'.")


def _number(name: str, default: int, *, least: int, most: int) -> int:
    value = _text(name, str(default)).strip()
    if not re.fullmatch("[0-9]{1,9}", value) or not least <= int(value) <= most:
        raise ImproperlyConfigured(f"{name} must be a whole number from {least} to {most}, not '{value}'.")
    return int(value)


def _milliseconds(name: str, default: str) -> int:
    """A number of seconds, fractions allowed, in milliseconds."""
    value = _text(name, default).strip()
    if not re.fullmatch(r"[0-9]{1,5}(\.[0-9]{1,3})?", value) or float(value) > 86400:
        raise ImproperlyConfigured(f"{name} must be a number of seconds from 0 to 86400, not '{value}'.")
    return round(float(value) * 1000)


def _list(name: str, default: str = "") -> list[str]:
    return [item.strip() for item in _text(name, default).split(",") if item.strip()]


def _rate(name: str, default: str) -> str:
    """A DRF throttle rate such as `60/min`."""
    rate = _text(name, default)
    if not re.fullmatch("[1-9][0-9]{0,8}/(s|sec|second|m|min|minute|h|hour|d|day)", rate):
        raise ImproperlyConfigured(f"{name} must look like 60/min, not '{rate}'.")
    return rate


# Core

DEBUG = _flag("DEBUG", default=False)
HTTPS = _flag("HTTPS", default=False)
if DEBUG and HTTPS:
    raise ImproperlyConfigured("DEBUG=true with HTTPS=true would show stack traces to the public: set DEBUG=false.")

DATABASE_URL = _text("DATABASE_URL")


def _own_secret_key() -> str:
    """The key made at the first start, readable by this user alone."""
    path = VAR_DIR / "secret_key"
    VAR_DIR.mkdir(exist_ok=True)
    try:
        # O_EXCL: of several processes that start at once, one makes the key and all read it.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        pass
    else:
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(64))
    return path.read_text().strip()


def _is_weak(key: str) -> bool:
    return len(key) < 50 or len(set(key)) < 5 or key.startswith("django-insecure-")


SECRET_KEY = _text("SECRET_KEY")
if not SECRET_KEY and not DATABASE_URL:
    SECRET_KEY = _own_secret_key()
elif DATABASE_URL and _is_weak(SECRET_KEY):
    raise ImproperlyConfigured(
        f"SECRET_KEY is {'too weak' if SECRET_KEY else 'missing'}, and DATABASE_URL is set: set SECRET_KEY to at least "
        "50 random characters, for instance the output of "
        "`python3 -c 'import secrets; print(secrets.token_urlsafe(64))'`."
    )

# Keys of former times: what they signed stays valid until it expires.
SECRET_KEY_FALLBACKS = _list("SECRET_KEY_FALLBACKS")
if DATABASE_URL and any(_is_weak(key) for key in SECRET_KEY_FALLBACKS):
    raise ImproperlyConfigured("SECRET_KEY_FALLBACKS holds a weak key: what it signs could be forged. Remove it.")

ALLOWED_HOSTS = [
    env.allowed_host("ALLOWED_HOSTS", host) for host in _list("ALLOWED_HOSTS", "localhost,127.0.0.1,[::1]")
]
if not ALLOWED_HOSTS:
    raise ImproperlyConfigured("ALLOWED_HOSTS names no host: every request would be refused.")
APP_NAME = env.line("APP_NAME", "Stocks")
PORT = _number("PORT", 8000, least=1, most=65535)
APP_URL = env.origin("APP_URL", _text("APP_URL", f"http://127.0.0.1:{PORT}"))
_app_host = re.sub(r"^https?://|:[0-9]+$", "", APP_URL)
if not env.is_local_host(_app_host):  # the default is no mistake: `serve` warns of it
    if not validate_host(_app_host, ALLOWED_HOSTS):
        raise ImproperlyConfigured(
            f"APP_URL leads to '{_app_host}', which ALLOWED_HOSTS does not contain: add it there."
        )
    if HTTPS and APP_URL.startswith("http://"):
        raise ImproperlyConfigured("APP_URL must begin with https:// where HTTPS=true.")
PING_MESSAGE = env.line("PING_MESSAGE", "pong")
TRUSTED_PROXIES = _number("TRUSTED_PROXIES", 0, least=0, most=100)
WEB_WORKERS = _number("WEB_WORKERS", 1, least=1, most=1000)
WEB_THREADS = _number("WEB_THREADS", 8, least=1, most=1000)

INSTALLED_APPS = [
    "users.apps.ManagementConfig",  # django.contrib.admin
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.postgres",
    "django.contrib.staticfiles",
    "corsheaders",
    "csp",
    "django_filters",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "rest_framework",
    "config",
    "records",
    "users",
    "stocks",
]

MIDDLEWARE = [
    "records.http.request_context.RequestContextMiddleware",
    "records.http.refusals.RefusalMiddleware",
    "corsheaders.middleware.CorsMiddleware",
    "records.rest.rate_limits.RateLimitMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "csp.middleware.CSPMiddleware",
    "records.http.bodies.UnreadBodyMiddleware",
    "records.http.limits.RequestLimitMiddleware",
    "records.http.static_files.StaticFilesMiddleware",
    "records.http.compression.CompressionMiddleware",
    "records.rest.routers.OptionalSlashMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "records.http.probes.HostCheckMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "users.authentication.browser.BrowserSessionMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "records.http.problems.ProblemMiddleware",
]

ROOT_URLCONF = "config.urls"
WSGI_APPLICATION = "config.wsgi.application"

# What one request may carry: also the limit of the API (contract, section 1).
DATA_UPLOAD_MAX_MEMORY_SIZE = 1024 * 1024

# Cache

CACHES = {"default": env.cache_server("CACHE_URL", _text("CACHE_URL", "locmemcache://"))}
if "redis" in CACHES["default"]["BACKEND"]:
    # Throttles do without a Redis that hangs: they do not wait long to notice.
    timeouts = {"socket_connect_timeout": 0.5, "socket_timeout": 0.5}
    CACHES["default"]["OPTIONS"] = timeouts | CACHES["default"].get("OPTIONS", {})
CACHES["throttles"] = CACHES["default"]
if WEB_WORKERS > 1 and "locmem" in CACHES["default"]["BACKEND"]:
    # That memory is each worker's own.
    CACHES["throttles"] = {
        "BACKEND": "records.rest.throttles.SharedCounters",
        "LOCATION": str(VAR_DIR / "throttles.sqlite3"),
    }

# Databases


STATEMENT_TIMEOUT = _milliseconds("STATEMENT_TIMEOUT", "10")
LOCK_TIMEOUT = _milliseconds("LOCK_TIMEOUT", "3")


def _database() -> dict:
    if not DATABASE_URL:
        VAR_DIR.mkdir(exist_ok=True)
    if not DATABASE_URL or DATABASE_URL.startswith("sqlite:"):
        # Not through a URL, where + and % in the path of this checkout would mean something else.
        path = env.sqlite_path("DATABASE_URL", DATABASE_URL) if DATABASE_URL else "var/db.sqlite3"
        name = path if path == ":memory:" else str(BASE_DIR / path)
        return _sqlite({"ENGINE": "django.db.backends.sqlite3", "NAME": name})
    return _postgresql("DATABASE_URL", DATABASE_URL)


def _sqlite(database: dict) -> dict:
    return database | {
        "OPTIONS": {
            # Writers queue up from their first statement on, instead of failing when they upgrade a read lock.
            "transaction_mode": "IMMEDIATE",
            "timeout": (LOCK_TIMEOUT or 86400_000) / 1000 if _text("LOCK_TIMEOUT") else 20,
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA cache_size=-32000;",
        },
        # In a file, with the locks that a server meets: a database in memory has others.
        "TEST": {"NAME": str(Path(tempfile.gettempdir()) / f"stocks-test-{os.getpid()}.sqlite3")},
    }


def _postgres_password() -> str:
    if not (path := _text("POSTGRES_PASSWORD_FILE")):
        return _text("POSTGRES_PASSWORD")
    try:
        return Path(path).read_text().rstrip("\n")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"  # not its name: some put the password there
        raise ImproperlyConfigured(f"POSTGRES_PASSWORD_FILE cannot be read: {reason}.") from None


def _postgresql(name: str, url: str) -> dict:
    # SQLAlchemy's spelling of the scheme is common in deployments that come from elsewhere.
    url = url.replace("postgresql+psycopg2://", "postgresql://", 1)
    if not url.startswith(("postgres://", "postgresql://")):
        others = " or sqlite://" if name == "DATABASE_URL" else ""
        raise ImproperlyConfigured(f"{name} must start with postgres://, postgresql://{others}.")
    try:
        database = postgresql.read_url(url)
    except ValueError as error:
        raise ImproperlyConfigured(f"{name} is not a URL that can be used: {error}.") from None
    if not database["NAME"] and "service" not in database["OPTIONS"]:
        raise ImproperlyConfigured(f"{name} names no database: postgres://user@host:5432/name.")
    database |= {
        "PASSWORD": database["PASSWORD"] or _postgres_password(),
        "CONN_MAX_AGE": _number("DB_POOL_RECYCLE", 3600, least=0, most=10**8),
        "CONN_HEALTH_CHECKS": _flag("DB_POOL_PRE_PING", default=True),
        # A server-side cursor outlives the transaction that a pooler such as PgBouncer lends a connection for.
        "DISABLE_SERVER_SIDE_CURSORS": True,
        "OPTIONS": {
            "connect_timeout": max(2, _number("DB_POOL_TIMEOUT", 30, least=0, most=3600)),
            # A database host that vanished without a word is noticed in about a minute, and sooner by who waits for it.
            "keepalives_idle": 30,
            "keepalives_interval": 10,
            "keepalives_count": 3,
            "tcp_user_timeout": 20_000,
        }
        | database["OPTIONS"],
    }
    return postgresql.limited(database, statement=STATEMENT_TIMEOUT, lock=LOCK_TIMEOUT)


DATABASES = {"default": _database()}
if DATABASES["default"]["ENGINE"].endswith("postgresql") and not env.is_local_database(DATABASES["default"]):
    if DEBUG:
        raise ImproperlyConfigured(
            "DEBUG=true would show stack traces and settings, and the database is on another host: set DEBUG=false."
        )
    if "*" in ALLOWED_HOSTS:
        raise ImproperlyConfigured(
            "ALLOWED_HOSTS=* would let anyone choose the host that links lead to, and the database is on another host: "
            "name the hosts."
        )


def _migration_database() -> dict:
    """What `migrate` uses instead: the connection of MIGRATION_DATABASE_URL, and no limits."""
    url = _text("MIGRATION_DATABASE_URL")
    if DATABASES["default"]["ENGINE"].endswith("sqlite3"):
        if url:
            raise ImproperlyConfigured("MIGRATION_DATABASE_URL is set, and DATABASE_URL names no PostgreSQL: set both.")
        return {}
    database = _postgresql("MIGRATION_DATABASE_URL", url) if url else DATABASES["default"]
    database = postgresql.limited(database, statement=0, lock=0)
    return database if url else {"OPTIONS": database["OPTIONS"]}


MIGRATION_DATABASE = _migration_database()


def lift_limits() -> None:
    """Let statements run, and wait for locks, as long as they need: for commands that answer no requests."""
    if not DATABASES["default"]["ENGINE"].endswith("sqlite3"):
        DATABASES["default"] = postgresql.limited(DATABASES["default"], statement=0, lock=0)


DB_CONNECTIONS_MAX = _number("DB_POOL_SIZE", 20, least=1, most=10**6) + _number(
    "DB_MAX_OVERFLOW", 30, least=0, most=10**6
)
# Each worker has one thread more, which delivers mails.
if WEB_WORKERS * (WEB_THREADS + 1) > DB_CONNECTIONS_MAX:
    raise ImproperlyConfigured(
        f"WEB_WORKERS x (WEB_THREADS + 1) is {WEB_WORKERS * (WEB_THREADS + 1)}, each thread keeps one connection, and "
        f"DB_POOL_SIZE + DB_MAX_OVERFLOW allows {DB_CONNECTIONS_MAX}: raise the one or lower the other."
    )
SQL_ECHO = _flag("SQL_ECHO", default=False)
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
SEED_DEFAULTS = _flag("SEED_DEFAULTS", default=True)
SERIALIZATION_MODULES = {name: f"records.serialization.{name}" for name in ("json", "jsonl", "xml", "yaml")}

# Email

EMAIL_CONFIG = env.mail_server("EMAIL_URL", _text("EMAIL_URL", "consolemail://"))
EMAIL_BACKEND = EMAIL_CONFIG["EMAIL_BACKEND"]
if EMAIL_BACKEND == "django.core.mail.backends.smtp.EmailBackend":
    EMAIL_BACKEND = "users.smtp.EmailBackend"  # the same with a deadline
EMAIL_HOST = EMAIL_CONFIG.get("EMAIL_HOST") or ""
EMAIL_PORT = EMAIL_CONFIG.get("EMAIL_PORT") or 25
EMAIL_HOST_USER = EMAIL_CONFIG.get("EMAIL_HOST_USER") or ""
EMAIL_HOST_PASSWORD = EMAIL_CONFIG.get("EMAIL_HOST_PASSWORD") or ""
EMAIL_USE_TLS = EMAIL_CONFIG.get("EMAIL_USE_TLS", False)
EMAIL_USE_SSL = EMAIL_CONFIG.get("EMAIL_USE_SSL", False)
EMAIL_FILE_PATH = EMAIL_CONFIG.get("EMAIL_FILE_PATH") or None
EMAIL_TIMEOUT = 10
DEFAULT_FROM_EMAIL = env.mailbox("DEFAULT_FROM_EMAIL", env.line("DEFAULT_FROM_EMAIL", "stocks@localhost"))

# Internationalization

LANGUAGE_CODE = "en-us"
TIME_ZONE = "UTC"
USE_I18N = False
USE_TZ = True

# Logging

LOG_LEVEL = _text("LOG_LEVEL", "INFO").upper()
if LOG_LEVEL not in logging.getLevelNamesMapping():
    raise ImproperlyConfigured(f"LOG_LEVEL must be DEBUG, INFO, WARNING, ERROR or CRITICAL, not '{LOG_LEVEL}'.")
LOG_FORMAT = _text("LOG_FORMAT", "text")
if LOG_FORMAT not in {"text", "json"}:
    raise ImproperlyConfigured(f"LOG_FORMAT must be text or json, not '{LOG_FORMAT}'.")

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "filters": {
        "request": {"()": "records.http.logging.RequestContextFilter"},
        "crash": {"()": "django.utils.log.CallbackFilter", "callback": lambda record: bool(record.exc_info)},
    },
    "formatters": {
        "text": {"format": "{asctime} {levelname} {name} [{request_id}] {message}", "style": "{"},
        "json": {"()": "records.http.logging.JSONFormatter"},
    },
    "handlers": {
        "console": {"class": "logging.StreamHandler", "formatter": LOG_FORMAT, "filters": ["request"]},
    },
    "root": {"handlers": ["console"], "level": LOG_LEVEL},
    "loggers": {
        "django": {"handlers": ["console"], "level": LOG_LEVEL, "propagate": False},
        # Every request has its line from records.requests; here a crash adds its stack trace.
        "django.request": {"filters": ["crash"]},
        "django.server": {"handlers": ["console"], "level": "WARNING", "propagate": False},
        # Their debug lines hold the secrets of a sign-in, and all that a page is made of.
        "authlib": {"level": "INFO"},
        "django.template": {"level": "INFO"},
        "django.db.backends": {"level": "DEBUG" if SQL_ECHO else "INFO"},
    },
}

# Security

CSRF_FAILURE_VIEW = "records.http.problems.csrf_failure"
CSRF_TRUSTED_ORIGINS = [APP_URL]
CSRF_COOKIE_HTTPONLY = False  # the browsable API's script sends the token as a header
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = HTTPS
# Browsers accept __Host- cookies from this host alone, over HTTPS: a subdomain cannot plant one (RFC 6265bis, 4.1.3.2).
_COOKIE_PREFIX = "__Host-" if HTTPS else ""
SESSION_COOKIE_NAME = f"{_COOKIE_PREFIX}sessionid"
CSRF_COOKIE_NAME = f"{_COOKIE_PREFIX}csrftoken"
MESSAGE_STORAGE = "records.http.messages.MessageStorage"
SECURE_SSL_REDIRECT = HTTPS
SECURE_HSTS_SECONDS = int(timedelta(days=365).total_seconds()) if HTTPS else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = HTTPS
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if TRUSTED_PROXIES else None
SECURE_REDIRECT_EXEMPT = [r"^health/(live|ready)/?$", r"^ping/?$"]  # load balancers ask over plain HTTP
X_FRAME_OPTIONS = "DENY"
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": ["'self'"],
        "script-src": ["'self'"],
        # Styles inside of pages: Swagger UI and ReDoc make them at run time, Django REST framework in its templates.
        "style-src": ["'self'", "'unsafe-inline'"],
        "img-src": ["'self'", "data:"],
        "font-src": ["'self'", "data:"],
        "worker-src": ["'self'", "blob:"],
        "object-src": ["'none'"],
        "base-uri": ["'none'"],
        "form-action": ["'self'"],
        "frame-ancestors": ["'none'"],
    },
}

CORS_ALLOWED_ORIGINS = [env.origin("CORS_ALLOWED_ORIGINS", origin) for origin in _list("CORS_ALLOWED_ORIGINS")]
# What client libraries and tracing (W3C, Zipkin, Jaeger, Datadog, Sentry, AWS, Google Cloud) add to a request.
CORS_ALLOW_HEADERS = [
    "accept", "accept-language", "authorization", "b3", "baggage", "cache-control", "content-type", "dnt",
    "idempotency-key", "if-match", "if-modified-since", "if-none-match", "if-unmodified-since", "pragma", "prefer",
    "range", "sentry-trace", "traceparent", "tracestate", "uber-trace-id", "user-agent", "x-amzn-trace-id",
    "x-b3-flags", "x-b3-parentspanid", "x-b3-sampled", "x-b3-spanid", "x-b3-traceid", "x-cloud-trace-context",
    "x-correlation-id", "x-csrftoken", "x-datadog-origin", "x-datadog-parent-id", "x-datadog-sampling-priority",
    "x-datadog-tags", "x-datadog-trace-id", "x-ot-span-context", "x-request-id", "x-requested-with", "x-trace-id",
    "x-xsrf-token",
]  # fmt: skip
CORS_EXPOSE_HEADERS = [
    "Allow", "Content-Disposition", "Content-Range", "ETag", "Idempotent-Replayed", "Link", "Location", "RateLimit",
    "RateLimit-Policy", "Retry-After", "Server-Timing", "WWW-Authenticate", "X-Dry-Run", "X-Request-ID",
]  # fmt: skip
CORS_PREFLIGHT_MAX_AGE = 7200  # seconds: the most that Chromium keeps

# Templates

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "config" / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

# Authentication

AUTH_USER_MODEL = "users.User"
AUTHENTICATION_BACKENDS = ["users.authentication.backend.AccountBackend"]
PASSWORD_HASHERS = [
    "django.contrib.auth.hashers.Argon2PasswordHasher",
    "django.contrib.auth.hashers.PBKDF2PasswordHasher",
]
AUTH_PASSWORD_VALIDATORS = [
    {
        "NAME": "users.passwords.validators.SimilarityValidator",
        "OPTIONS": {"user_attributes": ("username", "email", "name")},
    },
    {"NAME": "users.passwords.validators.MinimumLengthValidator"},
    {"NAME": "users.passwords.validators.MaximumLengthValidator"},
    {"NAME": "users.passwords.validators.ContentValidator"},
    {"NAME": "users.passwords.validators.BreachedPasswordValidator"},
    {"NAME": "users.passwords.validators.NumericValidator"},
]
LOGIN_URL = "rest_framework:login"
LOGIN_REDIRECT_URL = "api-root"
LOGOUT_REDIRECT_URL = "api-root"

# Browsers are signed in by rows of users.Session, which the signed cookie names: it is worth nothing without its row.
SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"

ACCESS_TOKEN_LIFETIME = timedelta(minutes=_number("ACCESS_TOKEN_MINUTES", 15, least=1, most=60 * 24 * 365))
REFRESH_TOKEN_LIFETIME = timedelta(days=_number("REFRESH_TOKEN_DAYS", 14, least=1, most=3650))
SESSION_COOKIE_AGE = int(REFRESH_TOKEN_LIFETIME.total_seconds())
ACCOUNT_DELETION_GRACE = timedelta(days=_number("ACCOUNT_DELETION_GRACE_DAYS", 7, least=0, most=3650))


def _oauth_providers() -> dict[str, dict[str, str]]:
    """OpenID Connect providers by name, each of three settings."""
    named = re.compile("OAUTH_([A-Z0-9]+(?:_[A-Z0-9]+)*)_(CLIENT_ID|CLIENT_SECRET|DISCOVERY_URL)")
    for name in os.environ:
        meant = re.fullmatch("OAUTH_(.*)_(CLIENT_ID|CLIENT_SECRET|DISCOVERY_URL)", name, re.IGNORECASE)
        if meant and (not named.fullmatch(name) or len(meant[1]) > 50):
            raise ImproperlyConfigured(f"{name} names no provider: expected capitals, digits and single underscores.")
    given = {match[0]: match[1] for name in os.environ if (match := named.fullmatch(name)) and _text(name)}
    providers = {}
    for provider in sorted(set(given.values())):
        keys = ("CLIENT_ID", "CLIENT_SECRET", "DISCOVERY_URL")
        if missing := [name for key in keys if (name := f"OAUTH_{provider}_{key}") not in given]:
            raise ImproperlyConfigured(f"{' and '.join(missing)} must be set too: a provider needs all three.")
        client_id, client_secret, url = (env.line(f"OAUTH_{provider}_{key}") for key in keys)
        env.discovery_url(f"OAUTH_{provider}_DISCOVERY_URL", url)
        providers[provider.lower().replace("_", "-")] = {
            "client_id": client_id,
            "client_secret": client_secret,
            "server_metadata_url": url,
        }
    return providers


OAUTH_PROVIDERS = _oauth_providers()

# Static files

STATIC_URL = "/static/"
STATIC_ROOT = VAR_DIR / "static"
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "records.http.static_files.StaticFilesStorage"},
}
if DEBUG:
    # No collected files needed: served from where they are installed, looked up at each request.
    STORAGES["staticfiles"] = {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}
    WHITENOISE_USE_FINDERS = WHITENOISE_AUTOREFRESH = True

# Django REST framework

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "users.authentication.access_tokens.AccessTokenAuthentication",
        "users.authentication.browser.BrowserSessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_RENDERER_CLASSES": [
        "records.rest.renderers.ORJSONRenderer",
        "records.rest.renderers.RecordBrowsableAPIRenderer",
    ],
    "DEFAULT_CONTENT_NEGOTIATION_CLASS": "records.rest.renderers.StrictContentNegotiation",
    "DEFAULT_PARSER_CLASSES": ["records.rest.parsers.StrictJSONParser"],
    "DEFAULT_THROTTLE_CLASSES": [
        "records.rest.throttles.AnonymousThrottle",
        "records.rest.throttles.UserThrottle",
    ],
    "DEFAULT_THROTTLE_RATES": {
        "anon": _rate("THROTTLE_ANON", "60/min"),
        "user": _rate("THROTTLE_USER", "600/min"),
    },
    "DEFAULT_METADATA_CLASS": "records.rest.metadata.RecordMetadata",
    "VIEW_DESCRIPTION_FUNCTION": "records.rest.metadata.view_description",
    "DEFAULT_SCHEMA_CLASS": "records.rest.schema.RecordSchema",
    "UNAUTHENTICATED_USER": "users.authentication.access_tokens.AnonymousAPIUser",
    "EXCEPTION_HANDLER": "records.rest.errors.problem_from_exception",
    "NUM_PROXIES": TRUSTED_PROXIES,
    "COERCE_DECIMAL_TO_STRING": False,
    "URL_FORMAT_OVERRIDE": "format",
    "DATETIME_FORMAT": None,
    "TEST_REQUEST_DEFAULT_FORMAT": "json",
}

SPECTACULAR_SETTINGS = {
    "TITLE": APP_NAME,
    "DESCRIPTION": (
        "Users and the stocks they hold. Lists page, filter, sort and search alike; errors are problem details "
        "(RFC 9457). To try it out: `POST /api/v1/auth/register`, then `POST /api/v1/auth/login`, then **Authorize** "
        "with the access token."
    ),
    "VERSION": VERSION,
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVE_PERMISSIONS": ["rest_framework.permissions.AllowAny"],
    "SERVE_AUTHENTICATION": [],
    "SCHEMA_PATH_PREFIX": r"/api/v1",
    "COMPONENT_SPLIT_REQUEST": True,
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "SWAGGER_UI_SETTINGS": {"deepLinking": True, "persistAuthorization": True, "validatorUrl": None},
    "REDOC_DIST": "SIDECAR",
    # Other resources are described by their names.
    "TAGS": [
        {"name": "service", "description": "Whether the service is well."},
        {
            "name": "auth",
            "description": "Registration, login, sessions, passwords and the removal of an account.",
        },
        {"name": "users", "description": "Accounts and profiles: everybody sees their own, staff see all."},
        {"name": "stocks", "description": "Stocks that users hold: everybody sees their own, staff see all."},
        {"name": "admin", "description": "The audit log, and undoing what it tells of."},
    ],
    "POSTPROCESSING_HOOKS": ["records.rest.schema.components.add_components"],
}

env.refuse_misspelt_names(".env", _env_file_lines)
