"""What makes a good password (NIST SP 800-63B, section 5.1.1.2), and how one is stored and compared."""

import re
import sys
import unicodedata
from array import array
from bisect import bisect_left
from collections.abc import Callable
from functools import cache
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.contrib.auth import hashers, password_validation
from django.core.exceptions import ValidationError

#: Sorted 64-bit hashes of breached passwords in lower case, written by `.ci/breached_passwords.py`.
LIST = Path(__file__).with_name("breached-passwords.bin")

# Storing and comparing


def normalized(password: str) -> str:
    """Return the password in NFKC: the same characters however a keyboard or system composes them."""
    return unicodedata.normalize("NFKC", password)


def check(password: str | None, stored: str, store_again: Callable[[str], None] | None = None) -> bool:
    """Return True if the password fits the stored hash. One hash, right or wrong; two if NFKC changes the password.

    Passwords that were stored before normalization fit as they were typed, and are then stored normalized.
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


# Validators


class MinimumLengthValidator(password_validation.MinimumLengthValidator):
    """Counts code points after normalization."""

    def validate(self, password: str, user: Any = None) -> None:
        super().validate(normalized(password), user)


class MaximumLengthValidator:
    """What a password hash takes of time and memory grows with it; and no login form should refuse what was set."""

    longest = 128

    def validate(self, password: str, user: Any = None) -> None:
        if max(len(password), len(normalized(password))) > self.longest:
            raise ValidationError(f"This password is too long. It must contain at most {self.longest} characters.")

    def get_help_text(self) -> str:
        return f"Your password must contain at most {self.longest} characters."


class SimilarityValidator(password_validation.UserAttributeSimilarityValidator):
    def validate(self, password: str, user: Any = None) -> None:
        super().validate(normalized(password), user)


class NumericValidator(password_validation.NumericPasswordValidator):
    def validate(self, password: str, user: Any = None) -> None:
        super().validate(normalized(password), user)


#: Letters, symbols and marks of Unicode that show nothing.
INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)


class ContentValidator:
    """Refuses passwords of blanks and invisible characters, and what cannot be typed into a form."""

    fewest = 6

    def validate(self, password: str, user: Any = None) -> None:
        categories = [unicodedata.category(character) for character in password]
        if {"Cc", "Cs"} & set(categories):
            raise ValidationError("This password contains control characters, which no form sends unchanged.")
        visible = [
            character
            for character, category in zip(password, categories, strict=True)
            if category[0] not in "ZC" and not INVISIBLE.match(character)
        ]
        if len(visible) < self.fewest:
            raise ValidationError(f"This password must contain at least {self.fewest} characters that can be seen.")

    def get_help_text(self) -> str:
        return f"Your password must contain at least {self.fewest} characters that can be seen."


class BreachedPasswordValidator:
    """Refuses passwords known from breaches, and what people make of them.

    That is: other capitals, digits and signs at the ends or between, leet spelling, accents, backwards, repeated; the
    name of the service; and keyboard walks, sequences and few characters.
    """

    message = "This password is too common: it is known from data breaches, or easily guessed from one that is."

    def validate(self, password: str, user: Any = None) -> None:
        if is_common(password):
            raise ValidationError(self.message, code="password_too_common")

    def get_help_text(self) -> str:
        return "Your password can’t be one that is known from data breaches, or a variation of one."


#: What digits and signs stand for; some for two letters.
LEET = [
    str.maketrans(signs, letters)
    for signs, letters in (
        ("@4380!1$57+", "aaeboiisstt"),
        ("@4360|1$572", "aaegollsstz"),
        ("@$!03", "asioe"),
    )
]
#: Characters that may be added at the ends: more than the digits of a date are worth something.
MOST_ADDED = 8
FEWEST_DIFFERENT = 4
KEYBOARD = ("`1234567890-=", "qwertyuiop[]\\", "asdfghjkl;'", "zxcvbnm,./")
ALPHABET = "abcdefghijklmnopqrstuvwxyz"


def is_common(password: str) -> bool:
    """Return True if the password is in the list of breached ones or close to one that is. Takes some 0.1 ms."""
    if len(password) > MaximumLengthValidator.longest:
        return False  # refused anyway, and the work grows with it
    text = _folded(password)
    squeezed = "".join(filter(str.isalnum, text))
    core = _without_ends(_without_ends(text, left=True))
    walks = [text, *(form for form in (squeezed, core) if len(form) >= 0.75 * len(text))]
    if len(set(text)) < FEWEST_DIFFERENT or any(map(_is_walk, walks)):
        return True
    return any(_is_known(form) for form in _forms(text, squeezed))


def _folded(password: str) -> str:
    """In lower case, without accents, blanks at the ends and invisible characters."""
    marks_apart = unicodedata.normalize("NFKD", password).casefold()
    shown = (character for character in marks_apart if unicodedata.category(character) not in {"Mn", "Cf", "Cc", "Cs"})
    return "".join(shown).strip()


def _forms(text: str, squeezed: str) -> set[str]:
    """What the password may have been made from."""
    forms = set()
    for form in {text, squeezed}:
        unit = form[: (form + form).find(form, 1)] if form else ""  # "abcabc" repeats "abc"
        for whole in {form, unit}:
            for start in {whole, whole.lstrip("0123456789"), _without_ends(whole, left=True)}:
                for core in {start, _without_ends(start, keep_digits=True), _without_ends(start)}:
                    if len(whole) - len(core) <= min(MOST_ADDED, 0.6 * len(whole)):
                        readings = [core, *(core.translate(table) for table in LEET)]
                        # Short ones only where they stand: what remains of random characters may be a word by chance.
                        shortest = 4 if form == text else 6
                        forms |= {reading for reading in readings if len(reading) >= shortest}
    return forms | {form[::-1] for form in forms if len(form) >= 6}


def _without_ends(text: str, *, left: bool = False, keep_digits: bool = False) -> str:
    if left:
        return re.sub(r"^[\W\d_]+", "", text)
    return re.sub(r"[\W_]+$" if keep_digits else r"[\W\d_]+$", "", text)


def _is_known(text: str) -> bool:
    if _is_listed(text):
        return True
    for name in _names_of_service():
        if name in text:
            rest = text.replace(name, "")
            if len(rest) <= 3 or _is_listed(rest):
                return True
    return False


@cache
def _names_of_service() -> frozenset[str]:
    host = urlsplit(settings.APP_URL).hostname or ""
    words = re.findall(r"[^\W\d_]{4,}", f"{settings.APP_NAME} {host} stocks stock portfolio")
    return frozenset(word.casefold() for word in words)


def _is_walk(text: str) -> bool:
    """Return True if the text is a few runs of neighbours on a keyboard or in the alphabet."""
    runs = 1 + sum(second not in _neighbours().get(first, first) for first, second in pairwise(text))
    return len(text) >= 6 and runs <= max(2, len(text) // 4)


@cache
def _neighbours() -> dict[str, str]:
    """Each key with itself and those that touch it, and the letters and digits before and after it."""
    near: dict[str, set[str]] = {key: {key} for row in KEYBOARD for key in row}
    # Where each row begins, in keys from the left edge of the 1.
    starts = (-1, 0.5, 1, 1.5)
    places = {
        key: (row, start + column)
        for row, (start, keys) in enumerate(zip(starts, KEYBOARD, strict=True))
        for column, key in enumerate(keys)
    }
    for key, (row, column) in places.items():
        for other, (other_row, other_column) in places.items():
            reach = 1 if row == other_row else 0.5
            if abs(row - other_row) <= 1 and abs(column - other_column) <= reach:
                near[key].add(other)
    for first, second in [*pairwise(ALPHABET), *pairwise("01234567890")]:
        near[first].add(second)
        near[second].add(first)
    return {key: "".join(keys) for key, keys in near.items()}


# The list


def hash_of(password: str) -> int:
    return int.from_bytes(blake2b(password.encode("utf-8", "replace"), digest_size=8).digest(), "little")


@cache
def _hashes() -> "array[int]":
    hashes = array("Q", LIST.read_bytes())
    if sys.byteorder == "big":
        hashes.byteswap()
    return hashes


def _is_listed(text: str) -> bool:
    hashes, wanted = _hashes(), hash_of(text)
    place = bisect_left(hashes, wanted)
    return place < len(hashes) and hashes[place] == wanted
