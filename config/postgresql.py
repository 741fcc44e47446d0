"""PostgreSQL in DATABASES: what a URL says, and for how long a connection waits."""

import logging
import os
import re
from typing import Any

import psycopg2
from psycopg2.extensions import connection, make_dsn, parse_dsn

logger = logging.getLogger(__name__)

#: Parameters of libpq that are whole numbers.
NUMBERS = {
    "connect_timeout", "keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout",
}  # fmt: skip
LIMITS = re.compile(r"^-c statement_timeout=(\d+) -c lock_timeout=(\d+) ?")
#: What PgBouncer and Amazon's RDS Proxy answer to the startup parameter `options`.
REFUSED = re.compile("unsupported startup parameter|support command-line options")

_without_limits: set[str] = set()


def read_url(url: str) -> dict[str, Any]:
    """Return the entry of DATABASES for a connection URI, read by libpq itself.

    Raises ValueError with a reason that does not quote the URL, which may hold a password.
    https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING-URIS
    """
    try:
        given: dict[str, Any] = parse_dsn(url)
    except psycopg2.Error as error:
        unknown = re.search(r'invalid URI query parameter: "(\w{1,40})"', str(error))
        reason = f"PostgreSQL knows no parameter '{unknown[1]}'" if unknown else "PostgreSQL cannot read it"
        raise ValueError(reason) from None
    ports = given.pop("port", "")
    if not all(not port or (port.isdecimal() and 1 <= int(port) <= 65535) for port in ports.split(",")):
        raise ValueError("a port is a number from 1 to 65535")
    for name in NUMBERS & given.keys():
        if not re.fullmatch("[0-9]{1,9}", given[name]):
            raise ValueError(f"{name} is a whole number")
        given[name] = int(given[name])
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": given.pop("dbname", ""),
        "USER": given.pop("user", ""),
        "PASSWORD": given.pop("password", ""),
        "HOST": given.pop("host", ""),
        "PORT": int(ports) if ports.isdecimal() else ports,
        "OPTIONS": given,
    }


def limited(database: dict[str, Any], *, statement: int, lock: int) -> dict[str, Any]:
    """Return `database` with limits, in milliseconds, on how long a statement runs and how long it waits for a lock.

    0 stands for no limit. What the URL sets in its `options` comes behind, and wins.
    """
    options = database["OPTIONS"]
    # Where `options` is given, libpq does not look at PGOPTIONS.
    given = LIMITS.sub("", options.get("options") or os.environ.get("PGOPTIONS", ""))
    limits = f"-c statement_timeout={statement} -c lock_timeout={lock} {given}".strip()
    # As a startup parameter the limits cost no statement, and no pooler can lend them to somebody else.
    return database | {"OPTIONS": options | {"options": limits, "connection_factory": connect}}


def connect(dsn: str, **kwargs: Any) -> connection:
    """Open a connection: without the limits where a pooler refuses the parameter in which they are sent."""
    if dsn not in _without_limits:
        try:
            return connection(dsn, **kwargs)
        except psycopg2.OperationalError as error:
            if not REFUSED.search(str(error)):
                raise
        _without_limits.add(dsn)
        logger.warning(how_to_limit_role(dsn))
    parameters = parse_dsn(dsn)
    parameters["options"] = LIMITS.sub("", parameters["options"]) or None
    return connection(make_dsn(**parameters), **kwargs)


def how_to_limit_role(dsn: str) -> str:
    """Return the warning for a pooler that does not pass the limits on."""
    parameters = parse_dsn(dsn)
    limits = LIMITS.match(parameters.get("options", ""))
    statement, lock = limits.groups() if limits else ("0", "0")
    role = f'"{parameters["user"]}"' if "user" in parameters else "…"
    return (
        "The connection pooler does not take the parameter `options`: STATEMENT_TIMEOUT and LOCK_TIMEOUT do not apply. "
        f"Set them for the role instead: ALTER ROLE {role} SET statement_timeout = {statement}; "
        f"ALTER ROLE {role} SET lock_timeout = {lock};"
    )
