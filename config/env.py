"""Strict reading of environment variables."""

import builtins
import os
import re
from typing import Any

import environ
from django.core.exceptions import ImproperlyConfigured

from config.env_file import has_no_glyph

UNSET: Any = environ.Env.NOTSET


class Env(environ.Env):  # type: ignore[misc]
    """Environment variables, by the methods of django-environ. An invalid value raises ImproperlyConfigured.

    Unlike django-environ, an empty variable counts as unset, a value such as `$ecret` is not replaced by another
    variable, and booleans and integers are not guessed.
    """

    def __init__(self) -> None:
        super().__init__()
        #: The names of all variables that were read.
        self.names: set[builtins.str] = set()

    def get_value(self, var: Any, cast: Any = None, default: Any = UNSET, parse_default: builtins.bool = False) -> Any:
        self.names.add(var)
        value = os.environ.get(var) or default
        if value is UNSET:
            raise ImproperlyConfigured(f"{var} is not set.")
        return value

    def str(self, var: builtins.str, default: Any = UNSET, multiline: builtins.bool = False) -> builtins.str:
        value: builtins.str = self.get_value(var, default=default)
        return value

    def bool(self, var: builtins.str, default: Any = UNSET) -> builtins.bool:
        value = builtins.str(self.get_value(var, default=default)).strip().lower()
        if value in {"true", "yes", "on", "1"}:
            return True
        if value in {"false", "no", "off", "0"}:
            return False
        raise ImproperlyConfigured(f"{var} must be true or false, not '{value}'.")

    def int(
        self, var: builtins.str, default: Any = UNSET, *, minimum: builtins.int = 0, maximum: builtins.int = 10**9
    ) -> builtins.int:
        value = builtins.str(self.get_value(var, default=default)).strip()
        if not re.fullmatch("[0-9]{1,9}", value) or not minimum <= builtins.int(value) <= maximum:
            raise ImproperlyConfigured(f"{var} must be a whole number from {minimum} to {maximum}, not '{value}'.")
        return builtins.int(value)

    def list(self, var: builtins.str, cast: Any = None, default: Any = UNSET) -> builtins.list[builtins.str]:
        """Return the items of a comma-separated value, without empty ones."""
        value = self.get_value(var, default=default)
        items = value.split(",") if isinstance(value, builtins.str) else value
        return [item.strip() for item in items if item.strip()]

    def line(self, var: builtins.str, default: builtins.str = "") -> builtins.str:
        """Return a value without control characters, which are invalid in headers, titles and URLs."""
        value = self.str(var, default=default)
        if any(has_no_glyph(character) for character in value):
            raise ImproperlyConfigured(f"{var} has a line break or another control character in it: remove it.")
        return value

    def milliseconds(self, var: builtins.str, default: builtins.str) -> builtins.int:
        """Return a number of seconds, which may have a fraction, in milliseconds."""
        value = self.str(var, default=default).strip()
        if not re.fullmatch(r"[0-9]{1,5}(\.[0-9]{1,3})?", value) or builtins.float(value) > 86400:
            raise ImproperlyConfigured(f"{var} must be a number of seconds from 0 to 86400, not '{value}'.")
        return round(builtins.float(value) * 1000)

    def rate(self, var: builtins.str, default: builtins.str) -> builtins.str:
        """Return a rate of DRF's throttles, such as `60/min`."""
        rate = self.str(var, default=default)
        if not re.fullmatch("[1-9][0-9]{0,8}/(s|sec|second|m|min|minute|h|hour|d|day)", rate):
            raise ImproperlyConfigured(f"{var} must look like 60/min, not '{rate}'.")
        return rate

    def choice(self, var: builtins.str, choices: builtins.list[builtins.str], default: builtins.str) -> builtins.str:
        value = self.str(var, default=default)
        if value not in choices:
            *others, last = choices
            raise ImproperlyConfigured(f"{var} must be {', '.join(others)} or {last}, not '{value}'.")
        return value


env = Env()
