"""Entries of DATABASES for PostgreSQL: reading URLs, and limits to statements and locks."""

import logging
import os
import re
from typing import Any

import psycopg2
from psycopg2.extensions import connection, make_dsn, parse_dsn

logger = logging.getLogger(__name__)

#: Parameters of libpq with an integer value.
NUMBERS = {
    "connect_timeout", "keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout",
}  # fmt: skip
LIMITS = re.compile(r"^-c statement_timeout=(\d+) -c lock_timeout=(\d+) ?")
#: Error messages of PgBouncer and Amazon's RDS Proxy about the startup parameter `options`.
REFUSED = re.compile("unsupported startup parameter|support command-line options")

_without_limits: set[str] = set()


def read_url(url: str) -> dict[str, Any]:
    """Return the entry of DATABASES for a connection URI, read by libpq itself.

    Raise ValueError with a reason that does not quote the URL, which may hold a password.
    https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING-URIS
    """
    try:
        parameters: dict[str, Any] = parse_dsn(url)
    except psycopg2.Error as error:
        unknown = re.search(r'invalid URI query parameter: "(\w{1,40})"', str(error))
        reason = f"PostgreSQL knows no parameter '{unknown[1]}'" if unknown else "PostgreSQL cannot read it"
        raise ValueError(reason) from None
    ports = parameters.pop("port", "")
    if not all(not port or (port.isdecimal() and 1 <= int(port) <= 65535) for port in ports.split(",")):
        raise ValueError("a port is a number from 1 to 65535")
    for name in NUMBERS & parameters.keys():
        if not re.fullmatch("[0-9]{1,9}", parameters[name]):
            raise ValueError(f"{name} is a whole number")
        parameters[name] = int(parameters[name])
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": parameters.pop("dbname", ""),
        "USER": parameters.pop("user", ""),
        "PASSWORD": parameters.pop("password", ""),
        "HOST": parameters.pop("host", ""),
        "PORT": int(ports) if ports.isdecimal() else ports,
        "OPTIONS": parameters,
    }


def limited(database: dict[str, Any], *, statement: int, lock: int) -> dict[str, Any]:
    """Return the entry with limits, in milliseconds, to the duration of a statement and of a wait for a lock.

    0 means no limit. The `options` of the URL follow, and take precedence.
    """
    options = database["OPTIONS"]
    # libpq ignores PGOPTIONS if `options` is set.
    others = LIMITS.sub("", options.get("options") or os.environ.get("PGOPTIONS", ""))
    limits = f"-c statement_timeout={statement} -c lock_timeout={lock} {others}".strip()
    # As startup parameters the limits take no statement, and a pooler cannot pass them to another client.
    return database | {"OPTIONS": options | {"options": limits, "connection_factory": connect}}


def connect(dsn: str, **kwargs: Any) -> connection:
    """Open a connection, without the limits if a pooler refuses the parameter `options`."""
    if dsn not in _without_limits:
        try:
            return connection(dsn, **kwargs)
        except psycopg2.OperationalError as error:
            if not REFUSED.search(str(error)):
                raise
        _without_limits.add(dsn)
        logger.warning(role_limits_warning(dsn))
    parameters = parse_dsn(dsn)
    parameters["options"] = LIMITS.sub("", parameters["options"]) or None
    return connection(make_dsn(**parameters), **kwargs)


def role_limits_warning(dsn: str) -> str:
    """Return a warning, with the statements that set the limits for the role instead."""
    parameters = parse_dsn(dsn)
    limits = LIMITS.match(parameters.get("options", ""))
    statement, lock = limits.groups() if limits else ("0", "0")
    role = f'"{parameters["user"]}"' if "user" in parameters else "…"
    return (
        "The connection pooler does not take the parameter `options`: STATEMENT_TIMEOUT and LOCK_TIMEOUT do not apply. "
        f"Set them for the role instead: ALTER ROLE {role} SET statement_timeout = {statement}; "
        f"ALTER ROLE {role} SET lock_timeout = {lock};"
    )
