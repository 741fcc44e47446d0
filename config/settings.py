"""Settings, in the order of Django's documentation; every variable is described in `.env.example`."""

import logging
import os
import re
from datetime import timedelta
from pathlib import Path

import django
from django.core.exceptions import ImproperlyConfigured
from django.http.request import validate_host

from config import __version__, addresses, databases, mail, oauth, secret_key
from config.env import env
from config.env_file import load_env_file, refuse_misspelt_names

BASE_DIR = Path(__file__).resolve().parent.parent
VAR_DIR = BASE_DIR / "var"
VERSION = __version__

_env_file_lines = load_env_file(BASE_DIR / ".env")

# Core

DEBUG = env.bool("DEBUG", default=False)
HTTPS = env.bool("HTTPS", default=False)
if DEBUG and HTTPS:
    raise ImproperlyConfigured("DEBUG=true with HTTPS=true would show stack traces to the public: set DEBUG=false.")

DATABASE_URL = env.str("DATABASE_URL", default="")

SECRET_KEY = env.str("SECRET_KEY", default="")
if not SECRET_KEY and not DATABASE_URL:
    SECRET_KEY = secret_key.get_or_create(VAR_DIR / "secret_key")
elif DATABASE_URL and secret_key.is_weak(SECRET_KEY):
    raise ImproperlyConfigured(
        f"SECRET_KEY is {'too weak' if SECRET_KEY else 'missing'}, and DATABASE_URL is set: set SECRET_KEY to at least "
        "50 random characters, for instance the output of "
        "`python3 -c 'import secrets; print(secrets.token_urlsafe(64))'`."
    )

# Former keys: values that they signed stay valid until they expire.
SECRET_KEY_FALLBACKS = env.list("SECRET_KEY_FALLBACKS", default=[])
if DATABASE_URL and any(secret_key.is_weak(key) for key in SECRET_KEY_FALLBACKS):
    raise ImproperlyConfigured("SECRET_KEY_FALLBACKS holds a weak key: what it signs could be forged. Remove it.")

ALLOWED_HOSTS = [
    addresses.allowed_host("ALLOWED_HOSTS", host)
    for host in env.list("ALLOWED_HOSTS", default=["localhost", "127.0.0.1", "[::1]"])
]
if not ALLOWED_HOSTS:
    raise ImproperlyConfigured("ALLOWED_HOSTS names no host: every request would be refused.")
APP_NAME = env.line("APP_NAME", default="Stocks")
PORT = env.int("PORT", default=8000, minimum=1, maximum=65535)
APP_URL = addresses.origin("APP_URL", env.str("APP_URL", default=f"http://127.0.0.1:{PORT}"))
_app_host = re.sub(r"^https?://|:[0-9]+$", "", APP_URL)
if not addresses.is_local_host(_app_host):  # `serve` warns if a local address is not served
    if not validate_host(_app_host, ALLOWED_HOSTS):
        raise ImproperlyConfigured(
            f"APP_URL leads to '{_app_host}', which ALLOWED_HOSTS does not contain: add it there."
        )
    if HTTPS and APP_URL.startswith("http://"):
        raise ImproperlyConfigured("APP_URL must begin with https:// where HTTPS=true.")
PING_MESSAGE = env.line("PING_MESSAGE", default="pong")
TRUSTED_PROXIES = env.int("TRUSTED_PROXIES", default=0, minimum=0, maximum=100)
WEB_THREADS = env.int("WEB_THREADS", default=8, minimum=1, maximum=1000)
OAUTH_PROVIDERS = oauth.providers()
# More threads of each worker, which wait for providers.
SIGN_IN_THREADS = 4 if OAUTH_PROVIDERS else 0

INSTALLED_APPS = [
    "users.apps.ManagementConfig",  # django.contrib.admin
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.postgres",
    "django.contrib.staticfiles",
    "corsheaders",
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
    "records.http.content_policy.ContentPolicyMiddleware",
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

# Whether writes of single rows need the header If-Match.
REQUIRE_IF_MATCH = env.bool("REQUIRE_IF_MATCH", default=False)

# The limit of all request bodies, in bytes.
DATA_UPLOAD_MAX_MEMORY_SIZE = 1024 * 1024

# Cache

CACHES = {"default": addresses.cache_server("CACHE_URL", env.str("CACHE_URL", default="locmemcache://"))}
if "redis" in CACHES["default"]["BACKEND"]:
    # Short timeouts: requests are not throttled while Redis does not respond.
    timeouts = {"socket_connect_timeout": 0.5, "socket_timeout": 0.5}
    CACHES["default"]["OPTIONS"] = timeouts | CACHES["default"].get("OPTIONS", {})

# Databases

STATEMENT_TIMEOUT = env.milliseconds("STATEMENT_TIMEOUT", default="10")
LOCK_TIMEOUT = env.milliseconds("LOCK_TIMEOUT", default="3")
_limits = databases.Limits(STATEMENT_TIMEOUT, LOCK_TIMEOUT)
DATABASES = {"default": databases.database(DATABASE_URL, BASE_DIR, VAR_DIR, _limits)}
databases.refuse_unsafe(DATABASES["default"], debug=DEBUG, allowed_hosts=ALLOWED_HOSTS)
MIGRATION_DATABASE = databases.migration_database(DATABASES["default"])
DB_CONNECTIONS_MAX = env.int("DB_POOL_SIZE", default=20, minimum=1, maximum=10**6) + env.int(
    "DB_MAX_OVERFLOW", default=30, minimum=0, maximum=10**6
)
_other_threads = SIGN_IN_THREADS + 1  # one delivers mails
_most_workers = max(1, DB_CONNECTIONS_MAX // (WEB_THREADS + _other_threads))
# A worker for each processor, where Redis counts requests for all of them; otherwise each would count on its own.
_usual_workers = (os.cpu_count() or 1) if "redis" in CACHES["default"]["BACKEND"] else 1
WEB_WORKERS = env.int("WEB_WORKERS", default=min(_usual_workers, _most_workers), minimum=1, maximum=1000)
_connections = WEB_WORKERS * (WEB_THREADS + _other_threads)
if _connections > DB_CONNECTIONS_MAX:
    raise ImproperlyConfigured(
        f"WEB_WORKERS x (WEB_THREADS + {_other_threads}) is {_connections}, each thread keeps one connection, and "
        f"DB_POOL_SIZE + DB_MAX_OVERFLOW allows {DB_CONNECTIONS_MAX}: raise the one or lower the other."
    )
SQL_ECHO = env.bool("SQL_ECHO", default=False)
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
SEED_DEFAULTS = env.bool("SEED_DEFAULTS", default=True)
SERIALIZATION_MODULES = {name: f"records.serialization.{name}" for name in ("json", "jsonl", "xml", "yaml")}

# Email

_mail = addresses.mail_server("EMAIL_URL", env.str("EMAIL_URL", default="consolemail://"))
if django.VERSION >= (6, 1):
    MAILERS = mail.mailers(_mail)
else:
    EMAIL_BACKEND = mail.backend(_mail)
    EMAIL_HOST = _mail.get("EMAIL_HOST") or ""
    EMAIL_PORT = _mail.get("EMAIL_PORT") or 25
    EMAIL_HOST_USER = _mail.get("EMAIL_HOST_USER") or ""
    EMAIL_HOST_PASSWORD = _mail.get("EMAIL_HOST_PASSWORD") or ""
    EMAIL_USE_TLS = _mail.get("EMAIL_USE_TLS", False)
    EMAIL_USE_SSL = _mail.get("EMAIL_USE_SSL", False)
    EMAIL_FILE_PATH = _mail.get("EMAIL_FILE_PATH") or None
    EMAIL_TIMEOUT = mail.TIMEOUT_SECONDS
DEFAULT_FROM_EMAIL = addresses.mailbox("DEFAULT_FROM_EMAIL", env.line("DEFAULT_FROM_EMAIL", default="stocks@localhost"))

# Internationalization

LANGUAGE_CODE = "en-us"
TIME_ZONE = "UTC"
USE_I18N = False
USE_TZ = True

# Logging

LOG_LEVEL = env.str("LOG_LEVEL", default="INFO").upper()
if LOG_LEVEL not in logging.getLevelNamesMapping():
    raise ImproperlyConfigured(f"LOG_LEVEL must be DEBUG, INFO, WARNING, ERROR or CRITICAL, not '{LOG_LEVEL}'.")
LOG_FORMAT = env.choice("LOG_FORMAT", ["text", "json"], default="text")

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
        # records.requests logs every request; this logger adds the stack trace of a crash.
        "django.request": {"filters": ["crash"]},
        "django.server": {"handlers": ["console"], "level": "WARNING", "propagate": False},
        # Their debug lines contain secrets of sign-ins and the context of templates.
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
SECURE_REDIRECT_EXEMPT = [r"^health/(live|ready)/?$", r"^ping/?$"]  # load balancers use plain HTTP
X_FRAME_OPTIONS = "DENY"
CONTENT_SECURITY_POLICY = {
    "default-src": ["'self'"],
    "script-src": ["'self'"],
    # Swagger UI and ReDoc create inline styles, and DRF's templates contain some.
    "style-src": ["'self'", "'unsafe-inline'"],
    "img-src": ["'self'", "data:"],
    "font-src": ["'self'", "data:"],
    "worker-src": ["'self'", "blob:"],
    "object-src": ["'none'"],
    "base-uri": ["'none'"],
    "form-action": ["'self'"],
    "frame-ancestors": ["'none'"],
}

CORS_ALLOWED_ORIGINS = [
    addresses.origin("CORS_ALLOWED_ORIGINS", origin) for origin in env.list("CORS_ALLOWED_ORIGINS", default=[])
]
# Headers of client libraries and tracing (W3C, Zipkin, Jaeger, Datadog, Sentry, AWS, Google Cloud).
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
CORS_PREFLIGHT_MAX_AGE = 7200  # seconds; Chromium's maximum

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

# Testing

TEST_RUNNER = "config.pytest_runner.PytestRunner"  # `manage.py test` runs pytest

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

# The signed cookie names a row of users.Session, without which it is worthless.
SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"

ACCESS_TOKEN_LIFETIME = timedelta(minutes=env.int("ACCESS_TOKEN_MINUTES", default=15, minimum=1, maximum=60 * 24 * 365))
REFRESH_TOKEN_LIFETIME = timedelta(days=env.int("REFRESH_TOKEN_DAYS", default=14, minimum=1, maximum=3650))
SESSION_COOKIE_AGE = int(REFRESH_TOKEN_LIFETIME.total_seconds())
ACCOUNT_DELETION_GRACE = timedelta(days=env.int("ACCOUNT_DELETION_GRACE_DAYS", default=7, minimum=0, maximum=3650))
# Static files

STATIC_URL = "/static/"
STATIC_ROOT = VAR_DIR / "static"
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "records.http.static_files.StaticFilesStorage"},
}
if DEBUG:
    # Serve files from where they are installed, without collecting them.
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
        "anon": env.rate("THROTTLE_ANON", default="60/min"),
        "user": env.rate("THROTTLE_USER", default="600/min"),
    },
    "DEFAULT_METADATA_CLASS": "records.rest.metadata.RecordMetadata",
    "VIEW_DESCRIPTION_FUNCTION": "records.rest.metadata.view_description",
    "DEFAULT_SCHEMA_CLASS": "records.rest.schema.BulkSchema",
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
    # The tags of other resources are described by their names.
    "TAGS": [
        {"name": "service", "description": "The state of the service."},
        {
            "name": "auth",
            "description": "Registration, login, sessions, passwords and the removal of an account.",
        },
        {"name": "users", "description": "Accounts and profiles. Users see their own, staff see all."},
        {"name": "stocks", "description": "Stocks that users hold. Users see their own, staff see all."},
        {"name": "admin", "description": "The audit log, and undoing changes."},
    ],
    "POSTPROCESSING_HOOKS": ["records.rest.schema.components.add_components"],
}

refuse_misspelt_names(".env", _env_file_lines, env.names)
