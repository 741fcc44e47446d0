"""The databases of the settings, from the environment."""

import os
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from django.core.exceptions import ImproperlyConfigured

from config import addresses, postgresql
from config.env import env


class Limits(NamedTuple):
    """How long a statement may run and wait for a lock, in milliseconds; 0 means no limit."""

    statement: int
    lock: int


def database(url: str, base_dir: Path, var_dir: Path, limits: Limits) -> dict[str, Any]:
    """Return the database of DATABASE_URL: by default SQLite in `var_dir`."""
    if not url:
        var_dir.mkdir(exist_ok=True)
    if not url or url.startswith("sqlite:"):
        # The default is not a URL, in which + and % in the path of the checkout would have another meaning.
        path = addresses.sqlite_path("DATABASE_URL", url) if url else "var/db.sqlite3"
        return _sqlite(path if path == ":memory:" else str(base_dir / path), limits)
    return _postgresql("DATABASE_URL", url, limits)


def _sqlite(name: str, limits: Limits) -> dict[str, Any]:
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": name,
        "OPTIONS": {
            # Writers wait from their first statement on, instead of failing when they upgrade a read lock.
            "transaction_mode": "IMMEDIATE",
            "timeout": (limits.lock or 86400_000) / 1000 if env.str("LOCK_TIMEOUT", default="") else 20,
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA cache_size=-32000;",
        },
        # In a file, because a database in memory has other locks than that of a server.
        "TEST": {"NAME": str(Path(tempfile.gettempdir()) / f"stocks-test-{os.getpid()}.sqlite3")},
    }


def _postgresql(name: str, url: str, limits: Limits) -> dict[str, Any]:
    # The scheme of SQLAlchemy is common in existing deployments.
    url = url.replace("postgresql+psycopg2://", "postgresql://", 1)
    if not url.startswith(("postgres://", "postgresql://")):
        others = " or sqlite://" if name == "DATABASE_URL" else ""
        raise ImproperlyConfigured(f"{name} must start with postgres://, postgresql://{others}.")
    try:
        entry = postgresql.read_url(url)
    except ValueError as error:
        raise ImproperlyConfigured(f"{name} is not a URL that can be used: {error}.") from None
    if not entry["NAME"] and "service" not in entry["OPTIONS"]:
        raise ImproperlyConfigured(f"{name} names no database: postgres://user@host:5432/name.")
    entry |= {
        "PASSWORD": entry["PASSWORD"] or _postgres_password(),
        "CONN_MAX_AGE": env.int("DB_POOL_RECYCLE", default=3600, minimum=0, maximum=10**8),
        "CONN_HEALTH_CHECKS": env.bool("DB_POOL_PRE_PING", default=True),
        # A server-side cursor needs the same connection after its transaction, which a pooler does not guarantee.
        "DISABLE_SERVER_SIDE_CURSORS": True,
        "OPTIONS": {
            "connect_timeout": max(2, env.int("DB_POOL_TIMEOUT", default=30, minimum=0, maximum=3600)),
            # Detect a database host that has vanished within about a minute.
            "keepalives_idle": 30,
            "keepalives_interval": 10,
            "keepalives_count": 3,
            "tcp_user_timeout": 20_000,
        }
        | entry["OPTIONS"],
    }
    return postgresql.limited(entry, statement=limits.statement, lock=limits.lock)


def _postgres_password() -> str:
    path = env.str("POSTGRES_PASSWORD_FILE", default="")
    if not path:
        return env.str("POSTGRES_PASSWORD", default="")
    try:
        return Path(path).read_text().rstrip("\n")
    except (OSError, ValueError) as error:
        # The path is not quoted, because it may be the password itself by mistake.
        reason = getattr(error, "strerror", None) or "it is no text"
        raise ImproperlyConfigured(f"POSTGRES_PASSWORD_FILE cannot be read: {reason}.") from None


def refuse_unsafe(entry: dict[str, Any], *, debug: bool, allowed_hosts: list[str]) -> None:
    """Refuse settings for development together with a PostgreSQL on another host."""
    if not entry["ENGINE"].endswith("postgresql") or addresses.is_local_database(entry):
        return
    if debug:
        raise ImproperlyConfigured(
            "DEBUG=true would show stack traces and settings, and the database is on another host: set DEBUG=false."
        )
    if "*" in allowed_hosts:
        raise ImproperlyConfigured(
            "ALLOWED_HOSTS=* would let anyone choose the host that links lead to, and the database is on another host: "
            "name the hosts."
        )


def migration_database(entry: dict[str, Any]) -> dict[str, Any]:
    """Return what `migrate` changes in the entry: the connection of MIGRATION_DATABASE_URL, and no limits."""
    url = env.str("MIGRATION_DATABASE_URL", default="")
    if entry["ENGINE"].endswith("sqlite3"):
        if url:
            raise ImproperlyConfigured("MIGRATION_DATABASE_URL is set, and DATABASE_URL names no PostgreSQL: set both.")
        return {}
    unlimited = without_limits(_postgresql("MIGRATION_DATABASE_URL", url, Limits(0, 0)) if url else entry)
    return unlimited if url else {"OPTIONS": unlimited["OPTIONS"]}


def without_limits(entry: dict[str, Any]) -> dict[str, Any]:
    """Return the entry without limits to statements and lock waits, for commands that answer no requests."""
    return entry if entry["ENGINE"].endswith("sqlite3") else postgresql.limited(entry, statement=0, lock=0)
