"""Recognition of breached and common passwords."""

import re
import sys
import unicodedata
from array import array
from bisect import bisect_left
from functools import cache
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlsplit

from django.conf import settings

from users.passwords.limits import MAX_LENGTH

#: Sorted 64-bit hashes of breached passwords in lower case, written by `.ci/breached_passwords.py`.
LIST = Path(__file__).parent.with_name("breached-passwords.bin")
#: Letters that digits and signs replace; some replace two letters.
LEET = [
    str.maketrans(signs, letters)
    for signs, letters in (
        ("@4380!1$57+", "aaeboiisstt"),
        ("@4360|1$572", "aaegollsstz"),
        ("@$!03", "asioe"),
    )
]
#: Characters at the ends that are ignored, as many as a date has; more make a password harder to guess.
MAX_IGNORED = 8
MIN_DISTINCT = 4
KEYBOARD = ("`1234567890-=", "qwertyuiop[]\\", "asdfghjkl;'", "zxcvbnm,./")
ALPHABET = "abcdefghijklmnopqrstuvwxyz"


def is_common(password: str) -> bool:
    """Return True if the password is in the list of breached passwords or close to one of them. Takes 0.1 ms."""
    if len(password) > MAX_LENGTH:
        return False  # the length validator refuses it, and the work below grows with the length
    text = _folded(password)
    squeezed = "".join(filter(str.isalnum, text))
    core = _without_ends(_without_ends(text, left=True))
    walks = [text, *(form for form in (squeezed, core) if len(form) >= 0.75 * len(text))]
    if len(set(text)) < MIN_DISTINCT or any(map(_is_walk, walks)):
        return True
    return any(_is_known(form) for form in _forms(text, squeezed))


def _folded(password: str) -> str:
    """Return the password in lower case, without accents, surrounding blanks and invisible characters."""
    decomposed = unicodedata.normalize("NFKD", password).casefold()
    visible = (character for character in decomposed if unicodedata.category(character) not in {"Mn", "Cf", "Cc", "Cs"})
    return "".join(visible).strip()


def _forms(text: str, squeezed: str) -> set[str]:
    """Return the words that the password may be a variation of."""
    # Squeezed text needs a longer match: the rest of random characters may be a short word by chance.
    forms = _readings(text, min_length=4) | (_readings(squeezed, min_length=6) if squeezed != text else set())
    return forms | {form[::-1] for form in forms if len(form) >= 6}


def _readings(form: str, *, min_length: int) -> set[str]:
    unit = form[: (form + form).find(form, 1)] if form else ""  # "abcabc" repeats "abc"
    cores = _cores(form) | _cores(unit)
    readings = cores | {core.translate(table) for core in cores for table in LEET}
    return {reading for reading in readings if len(reading) >= min_length}


def _cores(whole: str) -> set[str]:
    """Return the text without digits and signs at its ends, unless these are too many to ignore."""
    starts = {whole, whole.lstrip("0123456789"), _without_ends(whole, left=True)}
    cores = starts | {_without_ends(start, keep_digits=keep) for start in starts for keep in (True, False)}
    most_ignored = min(MAX_IGNORED, 0.6 * len(whole))
    return {core for core in cores if len(whole) - len(core) <= most_ignored}


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
    """Map each key to itself, the keys that touch it, and the characters before and after it in sequence."""
    near: dict[str, set[str]] = {key: {key} for row in KEYBOARD for key in row}
    # The offset of each row, in key widths from the left edge of the 1.
    starts = (-1, 0.5, 1, 1.5)
    places = {
        key: (row, start + column)
        for row, (start, keys) in enumerate(zip(starts, KEYBOARD, strict=True))
        for column, key in enumerate(keys)
    }
    for key, place in places.items():
        near[key] |= {other for other, other_place in places.items() if _touch(place, other_place)}
    for first, second in [*pairwise(ALPHABET), *pairwise("01234567890")]:
        near[first].add(second)
        near[second].add(first)
    return {key: "".join(keys) for key, keys in near.items()}


def _touch(place: tuple[int, float], other: tuple[int, float]) -> bool:
    """Return True if two keys, each given by its row and column, are neighbours."""
    reach = 1 if place[0] == other[0] else 0.5
    return abs(place[0] - other[0]) <= 1 and abs(place[1] - other[1]) <= reach


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
