"""Text columns: stored in Unicode normal form C (NFC), without control characters.

Lookups normalize their values too. `records.db.case` defines the case-insensitive ones.
"""

import re
import unicodedata
from typing import Any

from django.core.exceptions import ValidationError
from django.core.validators import RegexValidator
from django.db import models
from django.utils.deconstruct import deconstructible

from records.db.character_classes import CAPITALS as CAPITALS
from records.db.character_classes import JSON_SCHEMA_CAPITALS, JSON_SCHEMA_CONTROLS, JSON_SCHEMA_INVISIBLE

#: Combining marks in a row. No language needs more (UAX #15, stream-safe text), and normalizing them takes quadratic
#: time.
MAX_MARKS = 30

ZERO_WIDTH_JOINERS = "\u200c\u200d"
#: Letters and marks without a visible glyph.
BLANK_LETTERS = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0")
#: Unicode categories that the validators refuse.
NOT_IN_LINE = frozenset({"Cc", "Cf", "Co", "Cs", "Zl", "Zp"})
NOT_IN_LINES = frozenset({"Cc", "Cs"})


def normalize_text(value: Any) -> Any:
    """Return text in NFC. Return other values, and text with too many combining marks, unchanged."""
    if not isinstance(value, str) or value.isascii() or _has_too_many_marks(value):
        return value
    return unicodedata.normalize("NFC", value)


def _has_too_many_marks(text: str) -> bool:
    marks = 0
    for character in text:
        marks = marks + 1 if unicodedata.combining(character) else 0
        if marks > MAX_MARKS:
            return True
    return False


def printable(text: str) -> str:
    """Replace every character that `validate_line` refuses by a space, for example in a header of a request."""
    return "".join(
        character if character.isprintable() and unicodedata.category(character) not in NOT_IN_LINE else " "
        for character in text
    )


# Validators


def validate_line(value: str) -> None:
    """Validate one line of visible text: no control, direction, invisible or private-use characters.

    Joiners (U+200C, U+200D) are allowed where scripts and emoji need them. Characters unknown to this version of Python
    are allowed: they may be letters of a later version of Unicode.
    """
    if value and value.splitlines() != [value]:
        raise ValidationError("Use one line of text.", code="line_break")
    _validate_marks(value)
    for position, character in enumerate(value):
        if character in ZERO_WIDTH_JOINERS and _is_joining(value, position):
            continue
        _validate_character(character, NOT_IN_LINE)


def validate_lines(value: str) -> None:
    """Validate text of any number of lines: no control characters except line breaks and tabs."""
    _validate_marks(value)
    for character in value:
        if character not in "\n\r\t":
            _validate_character(character, NOT_IN_LINES)


def _validate_marks(text: str) -> None:
    if not text.isascii() and _has_too_many_marks(text):
        raise ValidationError(f"Use at most {MAX_MARKS} combining marks in a row.", code="marks")


def _validate_character(character: str, refused: frozenset[str]) -> None:
    if character.isascii() and character.isprintable():
        return
    is_invisible = refused is NOT_IN_LINE and character in BLANK_LETTERS
    is_noncharacter = ord(character) & 0xFFFE == 0xFFFE
    if is_invisible or is_noncharacter or unicodedata.category(character) in refused:
        name = unicodedata.name(character, "")
        raise ValidationError(
            f"Remove the character U+{ord(character):04X}{f' ({name})' if name else ''}.", code="character"
        )


def _is_joining(text: str, position: int) -> bool:
    """Return True if the joiner at `position` changes the shape of its neighbours (see UAX #31, 2.3)."""
    nearby = text[max(0, position - 2 * MAX_MARKS) : position]
    before = nearby.rstrip("\ufe0f\U0001f3fb\U0001f3fc\U0001f3fd\U0001f3fe\U0001f3ff")
    after = text[position + 1 : position + 2]
    if not before or not after:
        return False
    if unicodedata.combining(text[position - 1]) == 9:  # a virama, as in Indic scripts
        return True
    return _joins_arabic(before, after) or (text[position] == "\u200d" and _joins_emoji(before, after))


def _joins_arabic(before: str, after: str) -> bool:
    base = next((character for character in reversed(before) if unicodedata.category(character) != "Mn"), "")
    return bool(base) and unicodedata.bidirectional(base) == unicodedata.bidirectional(after) == "AL"


def _joins_emoji(before: str, after: str) -> bool:
    return unicodedata.category(before[-1]) == "So" and unicodedata.category(after) == "So"


class DocumentedValidator(RegexValidator):
    """Base of validators whose `regex` documents in OpenAPI only a part of their rule."""


class OneLineValidator(DocumentedValidator):
    regex = f"^[^{JSON_SCHEMA_INVISIBLE}]*$"

    def __call__(self, value: Any) -> None:
        validate_line(str(value))


class LinesValidator(DocumentedValidator):
    regex = f"^[^{JSON_SCHEMA_CONTROLS}]*$"

    def __call__(self, value: Any) -> None:
        validate_lines(str(value))


@deconstructible
class StartsWithCapital(OneLineValidator):
    """Validate that a text starts with an upper or title case letter (Lu, Lt) of any script.

    Letters of scripts without case, such as 中 and ع, are not capitals. `regex` includes the rule of OneLineValidator,
    which every LineField has.
    """

    regex = f"^[{JSON_SCHEMA_CAPITALS}][^{JSON_SCHEMA_INVISIBLE}]*$"
    code = "capital"
    capital = re.compile(f"[{CAPITALS}]")

    def __call__(self, value: Any) -> None:
        if not self.capital.match(str(value)):
            raise ValidationError(self.message, code=self.code)


# Fields


class NormalizedMixin:
    """Normalize a text column to NFC on writes and lookups. Migrations contain Django's own field."""

    django_path: str

    def to_python(self, value: Any) -> Any:
        return normalize_text(super().to_python(value))  # type: ignore[misc]

    def get_prep_value(self, value: Any) -> Any:
        return normalize_text(super().get_prep_value(value))  # type: ignore[misc]

    def deconstruct(self) -> tuple[str, str, Any, Any]:
        name, _, args, kwargs = super().deconstruct()  # type: ignore[misc]
        return name, self.django_path, args, kwargs


class LineField(NormalizedMixin, models.CharField):  # type: ignore[type-arg]
    """One line of visible text."""

    django_path = "django.db.models.CharField"
    default_validators = [OneLineValidator()]


class LinesField(NormalizedMixin, models.TextField):  # type: ignore[type-arg]
    """Text of several lines."""

    django_path = "django.db.models.TextField"
    default_validators = [LinesValidator()]
