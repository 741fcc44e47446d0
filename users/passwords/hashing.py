"""Normalization and comparison of passwords."""

import unicodedata
from collections.abc import Callable

from django.contrib.auth import hashers


def normalized(password: str) -> str:
    """Return the password in NFKC, which does not depend on how a keyboard or system composes characters."""
    return unicodedata.normalize("NFKC", password)


def check(password: str | None, stored: str, store_again: Callable[[str], None] | None = None) -> bool:
    """Return True if the password matches the stored hash.

    Computes one hash, or two if NFKC changes the password. A hash stored before normalization was introduced matches
    the password as typed; `store_again` then receives the normalized password.
    """
    if password is None:
        return False
    new = normalized(password)
    if hashers.check_password(new, stored, store_again):
        return True
    if new == password or not hashers.check_password(password, stored):
        return False
    if store_again:
        store_again(new)
    return True
