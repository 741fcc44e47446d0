"""The file `.env`, read as docker compose reads it."""

import os
import re
import stat
import unicodedata
from collections.abc import Collection, MutableMapping
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured

_NAME = re.compile(r"(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_]*)[ \t]*")
_SINGLE_QUOTED = re.compile(r"'([^']*)'[ \t]*(?: #.*)?")
_DOUBLE_QUOTED = re.compile(r'"((?:[^"\\$]|\\["\\$])*)"[ \t]*(?: #.*)?')


def load_env_file(path: Path, environment: MutableMapping[str, str] = os.environ) -> dict[str, int]:
    """Add the variables of this file to the environment, which has precedence; return the line of each name.

    Lines that docker compose would read differently are refused. Messages name the file and the line, never a value. A
    file that does not exist has no variables.

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
        # /dev/null is a common way to mask the file.
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
    """Return name and value; raise ValueError with a reason that does not quote the line."""
    before, equals, after = line.lstrip(" \t").partition("=")
    match = _NAME.fullmatch(before)
    if not equals or not match:
        raise ValueError("expected NAME=value, with a name of letters, digits and underscores")
    return match[1], _value(match[1], after.strip(" \t"))


def _value(name: str, value: str) -> str:
    if value.startswith("'"):
        match = _SINGLE_QUOTED.fullmatch(value)
        if match and not match[1].endswith("\\"):  # docker compose does not end the value at \'
            return match[1]
        raise ValueError(f"the value of {name} does not end with the single quote it begins with")
    if value.startswith('"'):
        if match := _DOUBLE_QUOTED.fullmatch(value):
            return re.sub(r'\\(["\\$])', r"\1", match[1])
        raise ValueError(
            f"the value of {name} does not end with the double quote it begins with, or has a $ or \\ in it: "
            "put it in single quotes"
        )
    return _unquoted_value(name, value)


def _unquoted_value(name: str, value: str) -> str:
    if value.startswith("#") or value[:1].isspace() or "\t" in value:
        raise ValueError(f"the value of {name} and a comment cannot be distinguished: put the value in quotes")
    value = value.partition(" #")[0].rstrip()
    if value[-1:] in {"'", '"', "\\"} or value[:1] in {"“", "”", "„", "‘", "’", "«"}:
        raise ValueError(f"the value of {name} has quotes that do not match: put it in single quotes")
    if "$" in value:
        raise ValueError(f"the value of {name} has a $, which docker compose replaces: put it in single quotes")
    return value


def has_no_glyph(character: str) -> bool:
    """Return True for control characters, line separators and lone surrogates."""
    return unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"} or character == "\ufeff"


def refuse_misspelt_names(file: str, lines: dict[str, int], known: Collection[str]) -> None:
    """Refuse names in `.env` that are one typing error away from a setting, because they would be ignored.

    `known` are the names of all settings. Other names may belong to docker compose or to other programs.
    """
    for name, number in lines.items():
        if name in known:
            continue
        if similar := next((setting for setting in sorted(known) if _is_typing_error(name, setting)), None):
            raise ImproperlyConfigured(f"{file}, line {number}: there is no setting {name}. Did you mean {similar}?")


def _is_typing_error(name: str, known: str) -> bool:
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
