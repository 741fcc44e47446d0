"""Hosts, origins, URLs and mail addresses in the environment.

Each function returns the value in its canonical form, or raises ImproperlyConfigured. Messages quote host names, but
never a URL, which may hold a password.
"""

import ipaddress
import os
import re
from email.utils import getaddresses
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

import environ
from django.core.exceptions import ImproperlyConfigured

from config.env_file import has_no_glyph


def allowed_host(name: str, host: str) -> str:
    """Return an entry of ALLOWED_HOSTS; refuse entries that no Host header can equal, such as one with a port."""
    domain = host.removeprefix(".").lower()
    is_address = _is_ip_address(domain.strip("[]")) and _host(domain) == domain
    if host != "*" and not is_address and not _is_domain(domain):
        raise ImproperlyConfigured(
            f"{name}: {host!r} would match no request. Write host names separated by commas, without scheme, port or "
            "underscore; .example.com means all its subdomains, [::1] is an IPv6 address."
        )
    return host


def origin(name: str, value: str) -> str:
    """Return an origin as browsers write it: in lower case, without the default port."""
    try:
        parts = _split(value.rstrip("/"))
        host, port = _host_of(parts), _port(parts)
        if parts.scheme not in {"http", "https"} or not host or "@" in parts.netloc or any(parts[2:]):
            raise ValueError
    except ValueError:
        quoted = "" if "@" in value else f", not '{value}'"  # an @ may follow a password
        raise ImproperlyConfigured(f"{name} must be an origin such as https://stocks.example.com{quoted}.") from None
    is_default = port in {None, 80 if parts.scheme == "http" else 443}
    return f"{parts.scheme}://{host}" + ("" if is_default else f":{port}")


def discovery_url(name: str, url: str) -> str:
    """Return the URL of a provider's metadata: by HTTPS, or from this machine."""
    try:
        parts = _split(url)
        _port(parts)
        host = _host_of(parts)
        is_safe = parts.scheme == "https" or (parts.scheme == "http" and is_local_host(host))
        if not host or not is_safe or "@" in parts.netloc or parts.fragment:
            raise ValueError
    except ValueError:
        raise ImproperlyConfigured(f"{name} must start with https:// and a host.") from None
    return url


def mail_server(name: str, url: str) -> dict[str, Any]:
    """Return Django's settings for a mail server."""
    ports = {"smtp": 25, "smtp+tls": 587, "smtp+ssl": 465}
    try:
        parts = _split(url)
        port = _port(parts)
    except ValueError:
        raise ImproperlyConfigured(f"{name} is not a URL that can be used.") from None
    if parts.scheme in ports:
        _check_smtp(name, parts)
        return _mail_config(url) | {"EMAIL_PORT": port or ports[parts.scheme]}
    path = parts.path.strip("/")
    has_others = any((parts.netloc, *parts[3:]))
    if parts.scheme == "filemail" and path and not has_others:
        return _mail_config(url) | {"EMAIL_FILE_PATH": unquote(parts.path)}
    if parts.scheme in {"consolemail", "memorymail", "dummymail"} and not path and not has_others:
        return _mail_config(url)
    raise ImproperlyConfigured(
        f"{name} must begin with smtp://, smtp+tls:// or smtp+ssl:// and name a host, or be consolemail:// or "
        "filemail:///absolute/path."
    )


def _check_smtp(name: str, parts: SplitResult) -> None:
    if not _host_of(parts) or any((parts.path.strip("/"), *parts[3:])):
        raise ImproperlyConfigured(
            f"{name} must look like smtp+tls://user:password@mail.example.com:587, with % in front of the codes of "
            "special characters in user and password."
        )
    if bool(parts.username) != bool(parts.password):
        raise ImproperlyConfigured(f"{name} must have both a user and a password, or neither.")


def _mail_config(url: str) -> dict[str, Any]:
    config: dict[str, Any] = environ.Env.email_url_config(url)
    return config


def mailbox(name: str, value: str) -> str:
    """Return a mail address, with or without a name: `Stocks <stocks@example.com>`."""
    match = re.fullmatch(r"""(.*<)?([!-;=?A-~]+@[^\s@<>()[\],;:"\\]+)(>?)""", value)
    if not match or bool(match[1]) != bool(match[3]) or [address for _, address in getaddresses([value])] != [match[2]]:
        raise ImproperlyConfigured(f"{name} must be a mail address such as Stocks <stocks@example.com>.")
    return value


def cache_server(name: str, url: str) -> dict[str, Any]:
    """Return Django's settings for a cache; only caches with atomic increments are accepted."""
    try:
        scheme = _split(url).scheme
        config: dict[str, Any] | None = (
            environ.Env.cache_url_config(url) if scheme in {"locmemcache", "redis", "rediss"} else None
        )
        if config and scheme != "locmemcache":
            _check_redis(config)
    except Exception:
        # The parsers raise many types of errors, some with the URL and its password in their text.
        raise ImproperlyConfigured(f"{name} must look like redis://:password@host:6379/0.") from None
    if config is None:
        raise ImproperlyConfigured(f"{name} must be redis:// or rediss:// and a host, or locmemcache://.")
    return config


def _check_redis(config: dict[str, Any]) -> None:
    """Raise an error if the Redis client would raise one, or would silently use another server or database."""
    from redis import ConnectionPool  # a slow import that most settings do not need

    locations = config["LOCATION"] if isinstance(config["LOCATION"], list) else [config["LOCATION"]]
    for location in locations:
        parts = urlsplit(location)
        is_number = not parts.path.strip("/0123456789")  # the number of a database; for a socket it is a path
        if parts.fragment or is_number == (parts.scheme == "unix") or bool(_port(parts) and not parts.hostname):
            raise ValueError
        ConnectionPool.from_url(location, **config.get("OPTIONS", {})).make_connection()


def sqlite_path(name: str, url: str) -> str:
    """Return the path in `sqlite:///relative` or `sqlite:////absolute`, or `:memory:`."""
    prefix, path = url[: len("sqlite:///")], unquote(url[len("sqlite:///") :], errors="surrogateescape")
    if url in {"sqlite://", "sqlite:///", "sqlite://:memory:", "sqlite:///:memory:"}:
        return ":memory:"
    if prefix != "sqlite:///" or set("?#") & set(url) or "\0" in path or path.startswith("file:") or path.endswith("/"):
        raise ImproperlyConfigured(
            f"{name} must be sqlite:////absolute/path or sqlite:///path/in/the/project, with %3F for ?, %23 for # and "
            "%25 for %."
        )
    return path


def is_local_database(database: dict[str, Any]) -> bool:
    """Return True if PostgreSQL is reached through a socket or the loopback interface."""
    options = database.get("OPTIONS", {})
    hosts = [options.get("hostaddr"), options.get("host"), database.get("HOST")]
    if not any(hosts):
        # libpq's own variables: https://www.postgresql.org/docs/current/libpq-envars.html
        hosts = [os.environ.get("PGHOSTADDR"), os.environ.get("PGHOST")]
    if options.get("service") or os.environ.get("PGSERVICE"):
        return False
    return all(is_local_host(host) for value in hosts if value for host in str(value).split(","))


def is_local_host(host: str) -> bool:
    host = unquote(host).strip("[]").lower()
    if not host or host.startswith(("/", "@")) or host == "localhost":
        return True
    return _is_ip_address(host) and ipaddress.ip_address(host).is_loopback


def _split(url: str) -> SplitResult:
    """Return the parts of a URL; raise ValueError for control characters, which urlsplit drops."""
    if any(character.isspace() or has_no_glyph(character) for character in url):
        raise ValueError
    return urlsplit(url)


def _port(parts: SplitResult) -> int | None:
    if parts.port == 0:
        raise ValueError
    return parts.port


def _host_of(parts: SplitResult) -> str:
    host = parts.hostname or ""
    return _host(f"[{host}]" if ":" in host else host)


def _host(host: str) -> str:
    """Return a host as browsers write it, with IPv6 addresses in brackets; "" if it is invalid."""
    host = host.lower()
    if host.startswith("[") and host.endswith("]"):
        try:
            return f"[{ipaddress.IPv6Address(host[1:-1])}]"
        except ValueError:
            return ""
    return host if (_is_ip_address(host) and ":" not in host) or _is_domain(host.replace("_", "-")) else ""


def _is_ip_address(host: str) -> bool:
    try:
        return bool(ipaddress.ip_address(host))
    except ValueError:
        return False


def _is_domain(host: str) -> bool:
    labels = host.split(".")
    # Browsers treat a host whose last label is a number as an address.
    return (
        len(host) <= 253
        and all(re.fullmatch("[a-z0-9-]{1,63}", label) for label in labels)
        and not labels[-1].isdigit()
    )
