"""Reading the environment and `.env`."""

import ipaddress
import os
import re
import stat
import unicodedata
from collections.abc import MutableMapping
from email.utils import getaddresses
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

import environ
from django.core.exceptions import ImproperlyConfigured

#: Names of the settings that were read, to suggest one for a misspelt name.
_read: set[str] = set()


def text(name: str, default: str = "") -> str:
    """Return the variable as it is, or `default` where it is unset or empty."""
    # django-environ would take a value such as $ecret for the name of another variable.
    _read.add(name)
    return os.environ.get(name) or default


def line(name: str, default: str = "") -> str:
    """Return the variable as it is; refuse control characters, which no header, title or URL may have."""
    value = text(name, default)
    if any(has_no_glyph(character) for character in value):
        raise ImproperlyConfigured(f"{name} has a line break or another control character in it: remove it.")
    return value


# Values. Messages quote names of hosts, and never a URL, which may hold a password.


def allowed_host(name: str, host: str) -> str:
    """Return an entry of ALLOWED_HOSTS; refuse one that no Host header is equal to, such as one with a port."""
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
        if parts.scheme not in {"http", "https"} or not host or "@" in parts.netloc:
            raise ValueError
        if parts.path or parts.query or parts.fragment:
            raise ValueError
    except ValueError:
        shown = "" if "@" in value else f", not '{value}'"  # before an @ there may be a password
        raise ImproperlyConfigured(f"{name} must be an origin such as https://stocks.example.com{shown}.") from None
    is_default = port in {None, 80 if parts.scheme == "http" else 443}
    return f"{parts.scheme}://{host}" + ("" if is_default else f":{port}")


def discovery_url(name: str, url: str) -> str:
    """Return the address of a provider's metadata, which nobody but the provider or this machine can answer."""
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
    """Return Django's settings of a mail server."""
    ports = {"smtp": 25, "smtp+tls": 587, "smtp+ssl": 465}
    try:
        parts = _split(url)
        port = _port(parts)
    except ValueError:
        raise ImproperlyConfigured(f"{name} is not a URL that can be used.") from None
    rest = parts.path.strip("/") or parts.query or parts.fragment
    if parts.scheme in ports:
        if not _host_of(parts) or rest:
            raise ImproperlyConfigured(
                f"{name} must look like smtp+tls://user:password@mail.example.com:587, with % in front of the codes of "
                "special characters in user and password."
            )
        if bool(parts.username) != bool(parts.password):
            raise ImproperlyConfigured(f"{name} must have both a user and a password, or neither.")
        return environ.Env.email_url_config(url) | {"EMAIL_PORT": port or ports[parts.scheme]}
    if parts.scheme == "filemail" and not parts.netloc and rest == parts.path.strip("/") != "":
        return environ.Env.email_url_config(url) | {"EMAIL_FILE_PATH": unquote(parts.path)}
    if parts.scheme not in {"consolemail", "memorymail", "dummymail"} or parts.netloc or rest:
        raise ImproperlyConfigured(
            f"{name} must begin with smtp://, smtp+tls:// or smtp+ssl:// and name a host, or be consolemail:// or "
            "filemail:///absolute/path."
        )
    return environ.Env.email_url_config(url)


def mailbox(name: str, value: str) -> str:
    """Return one mail address, with or without a person's name: `Stocks <stocks@example.com>`."""
    match = re.fullmatch(r"""(.*<)?([!-;=?A-~]+@[^\s@<>()[\],;:"\\]+)(>?)""", value)
    if not match or bool(match[1]) != bool(match[3]) or [each for _, each in getaddresses([value])] != [match[2]]:
        raise ImproperlyConfigured(f"{name} must be a mail address such as Stocks <stocks@example.com>.")
    return value


def cache_server(name: str, url: str) -> dict[str, Any]:
    """Return Django's settings of a cache; only those that count without losing any are accepted."""
    try:
        scheme = _split(url).scheme
        config = environ.Env.cache_url_config(url) if scheme in {"locmemcache", "redis", "rediss"} else None
        if config and scheme != "locmemcache":
            _check_redis(config)
    except Exception:
        # The parsers raise many kinds of errors, some with the URL in them, and with it its password.
        raise ImproperlyConfigured(f"{name} must look like redis://:password@host:6379/0.") from None
    if config is None:
        raise ImproperlyConfigured(f"{name} must be redis:// or rediss:// and a host, or locmemcache://.")
    return config


def _check_redis(config: dict[str, Any]) -> None:
    """Raise an error where the Redis client would, or would silently use another server or database."""
    from redis import ConnectionPool  # takes long to import, and most do without

    locations = config["LOCATION"] if isinstance(config["LOCATION"], list) else [config["LOCATION"]]
    for location in locations:
        parts = urlsplit(location)
        is_number = not parts.path.strip("/0123456789")  # of a database; of a socket it is a path
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
    """Return the parts of a URL; urlsplit itself would drop control characters."""
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
    """Return a host as browsers write it, IPv6 addresses in brackets; empty if it cannot be one."""
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
    # Browsers read a last label of digits as an address.
    return (
        len(host) <= 253 and all(re.fullmatch("[a-z0-9-]{1,63}", each) for each in labels) and not labels[-1].isdigit()
    )


# .env

_NAME = re.compile(r"(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_]*)[ \t]*")
_SINGLE_QUOTED = re.compile(r"'([^']*)'[ \t]*(?: #.*)?")
_DOUBLE_QUOTED = re.compile(r'"((?:[^"\\$]|\\["\\$])*)"[ \t]*(?: #.*)?')


def load_env_file(path: Path, environment: MutableMapping[str, str] = os.environ) -> dict[str, int]:
    """Add the variables of this file to the environment, which has precedence; return the line of each name.

    Accepts what docker compose reads with the same result and refuses the rest, so that one file means one thing.
    Messages name the file and line, never a value. A file that does not exist has no variables.

    https://docs.docker.com/compose/how-tos/environment-variables/variable-interpolation/#env-file-syntax
    """
    values: dict[str, str] = {}
    lines: dict[str, int] = {}
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            name, value = _assignment(line)
            if name in lines:
                raise ValueError(f"{name} is set in line {lines[name]} already: remove one of the two")
        except ValueError as error:
            raise ImproperlyConfigured(f"{path.name}, line {number}: {error}.") from None
        values[name], lines[name] = value, number
    for name, value in values.items():
        environment.setdefault(name, value)
    return lines


def _lines(path: Path) -> list[str]:
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ImproperlyConfigured(f"{path.name} cannot be read: {error.strerror}.") from None
    try:
        if stat.S_ISLNK(mode):
            mode = path.stat().st_mode
        # Some mask the file with /dev/null.
        if not stat.S_ISREG(mode) and not path.samefile(os.devnull):
            raise ImproperlyConfigured(f"{path.name} cannot be read: it is not a file. Remove it or write one.")
        content = path.read_bytes()
    except OSError as error:
        raise ImproperlyConfigured(f"{path.name} cannot be read: {error.strerror}.") from None
    # Windows editors begin UTF-8 with a byte order mark and end lines with CR LF.
    lines = content.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    return [_decoded(line, path.name, number) for number, line in enumerate(lines, start=1)]


def _decoded(line: bytes, file: str, number: int) -> str:
    try:
        text = line.removesuffix(b"\r").decode()
    except UnicodeDecodeError:
        raise ImproperlyConfigured(f"{file}, line {number}: the file is not UTF-8. Save it in UTF-8.") from None
    if any(has_no_glyph(character) and character != "\t" for character in text):
        raise ImproperlyConfigured(
            f"{file}, line {number}: the line has control characters. Save the file in UTF-8, without them."
        )
    return text


def _assignment(line: str) -> tuple[str, str]:
    """Return name and value; a ValueError says what is wrong, without quoting the line."""
    before, equals, after = line.lstrip(" \t").partition("=")
    match = _NAME.fullmatch(before)
    if not equals or not match:
        raise ValueError("expected NAME=value, with a name of letters, digits and underscores")
    return match[1], _value(match[1], after.strip(" \t"))


def _value(name: str, value: str) -> str:
    if value.startswith("'"):
        match = _SINGLE_QUOTED.fullmatch(value)
        if match and not match[1].endswith("\\"):  # to docker compose \' is no end
            return match[1]
        raise ValueError(f"the value of {name} does not end with the single quote it begins with")
    if value.startswith('"'):
        if match := _DOUBLE_QUOTED.fullmatch(value):
            return re.sub(r'\\(["\\$])', r"\1", match[1])
        raise ValueError(
            f"the value of {name} does not end with the double quote it begins with, or has a $ or \\ in it: "
            "put it in single quotes"
        )
    if value.startswith("#") or value[:1].isspace() or "\t" in value:
        raise ValueError(f"the value of {name} and a comment cannot be told apart: put the value in quotes")
    value = value.partition(" #")[0].rstrip()
    if value[-1:] in {"'", '"', "\\"} or value[:1] in {"“", "”", "„", "‘", "’", "«"}:
        raise ValueError(f"the value of {name} has quotes that do not match: put it in single quotes")
    if "$" in value:
        raise ValueError(f"the value of {name} has a $, which docker compose replaces: put it in single quotes")
    return value


def has_no_glyph(character: str) -> bool:
    """Return True for control characters, line separators and lone surrogates."""
    return unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"} or character == "\ufeff"


def refuse_misspelt_names(file: str, lines: dict[str, int]) -> None:
    """Refuse names in `.env` that no setting has and that are one slip away from one: they would be ignored.

    Other names may belong to docker compose or to other programs. Call this when all settings are read.
    """
    for name, number in lines.items():
        if name not in _read and (known := next((known for known in sorted(_read) if _is_slip(name, known)), None)):
            raise ImproperlyConfigured(f"{file}, line {number}: there is no setting {name}. Did you mean {known}?")


def _is_slip(name: str, known: str) -> bool:
    """Return True if the names differ by case, or by one letter missing, added, swapped or wrong."""
    name = name.upper()
    if name == known or len(known) < 6:  # HTTP is not HTTPS
        return name == known
    start = next((index for index, letter in enumerate(known) if name[index : index + 1] != letter), len(known))
    rest, expected = name[start:], known[start:]
    if rest[1:] == expected or rest == expected[1:]:
        return True
    if rest[1::-1] == expected[:2] and rest[2:] == expected[2:]:
        return True
    return len(known) > 7 and rest[1:] == expected[1:]  # API_URL is not APP_URL
