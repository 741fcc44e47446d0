"""Text: how it is stored, what it may contain, and what "whatever the case" means, alike in both databases.

Texts are stored in NFC, and search terms are read in it. Two texts are equal whatever the case if Unicode's simple
upper case mapping, which replaces each character by one, makes them equal: `é` and `É`, `ς` and `Σ`, `ı` and `I` are
the same, `ß`, `ẞ` and `SS` are three. PostgreSQL's `upper` does so in the UTF-8 locales of libc, but the Turkish ones;
`simple_upper` does the same for SQLite.
"""

import re
import unicodedata
from collections.abc import Callable
from functools import cache
from typing import Any

from django.core.exceptions import ValidationError
from django.core.validators import RegexValidator
from django.db import models
from django.db.models.lookups import IContains, IEndsWith, IExact, IStartsWith
from django.utils.deconstruct import deconstructible

# Upper case


@cache
def _simple_upper(character: str) -> str:
    # ᾳ is one of few letters whose single capital is a title case letter: ᾼ.
    return next((upper for upper in (character.upper(), character.title()) if len(upper) == 1), character)


def simple_upper(text: str) -> str:
    """Return the text in upper case, each character replaced by one or none."""
    upper = text.upper()
    return upper if len(upper) == len(text) else "".join(map(_simple_upper, text))


#: Combining marks in a row: no language needs more (UAX #15, stream-safe text), and sorting them takes quadratic time.
MOST_MARKS = 30


def normalised(value: Any) -> Any:
    """Return a text in NFC, and anything else as it is, as well as text that `one_line` and `lines` refuse."""
    if not isinstance(value, str) or value.isascii() or _has_too_many_marks(value):
        return value
    return unicodedata.normalize("NFC", value)


def _has_too_many_marks(text: str) -> bool:
    marks = 0
    for character in text:
        marks = marks + 1 if unicodedata.combining(character) else 0
        if marks > MOST_MARKS:
            return True
    return False


#: Letters beyond ASCII whose upper case is ASCII: SQLite's LIKE, which knows the case of ASCII letters, passes them by.
FOREIGN_FORMS = {"I": "ı", "S": "ſ"}


class AnyCase:
    """Mixin of Django's lookups that ignore case: the same meaning on SQLite as on PostgreSQL, and NFC on both."""

    lhs: Any
    rhs: Any

    def get_prep_lookup(self) -> Any:
        return normalised(super().get_prep_lookup())  # type: ignore[misc]

    def as_sqlite(self, compiler: Any, connection: Any) -> tuple[str, Any]:
        if not self.rhs_is_direct_value():  # type: ignore[attr-defined]
            return self.as_sql(compiler, connection)  # type: ignore[attr-defined]
        column, column_params = self.process_lhs(compiler, connection)  # type: ignore[attr-defined]
        _, [text] = self.process_rhs(compiler, connection)  # type: ignore[attr-defined]
        if text.isascii():
            for letter, foreign in FOREIGN_FORMS.items():
                if letter in text.upper():
                    column = f"REPLACE({column}, '{foreign}', '{letter}')"
        else:
            column, text = f"UPPER({column})", simple_upper(text)
        return f"{column} LIKE %s ESCAPE '\\'", [*column_params, text]


class AnyCaseExact(AnyCase, IExact):
    pass


class AnyCaseContains(AnyCase, IContains):
    pass


class AnyCaseStartsWith(AnyCase, IStartsWith):
    pass


class AnyCaseEndsWith(AnyCase, IEndsWith):
    pass


LOOKUPS = (AnyCaseExact, AnyCaseContains, AnyCaseStartsWith, AnyCaseEndsWith)


# Capital letters


def _expanded(ranges: str) -> list[tuple[int, int]]:
    """Return the ranges of code points: `41-5a` is one, `100-104/2` is three of one code point each."""
    found: list[tuple[int, int]] = []
    for text in ranges.split():
        span, _, step = text.partition("/")
        first, _, last = span.partition("-")
        start, end = int(first, 16), int(last or first, 16)
        found += [(code, code) for code in range(start, end + 1, int(step))] if step else [(start, end)]
    return found


#: The upper and title case letters (Lu, Lt) of Unicode 14. Written out, because the character classes of regular
#: expressions differ between databases, locales and versions.
_CAPITALS = _expanded(
    """
    41-5a c0-d6 d8-de 100-136/2 139-147/2 14a-178/2 179-17d/2 181-182 184-186/2 187-189/2 18a-18b 18e-191 193-194
    196-198 19c-19d 19f-1a0 1a2-1a6/2 1a7-1a9/2 1ac-1ae/2 1af-1b1/2 1b2-1b3 1b5-1b7/2 1b8 1bc 1c4-1c5 1c7-1c8 1ca-1cb
    1cd-1db/2 1de-1ee/2 1f1-1f2 1f4-1f6/2 1f7-1f8 1fa-232/2 23a-23b 23d-23e 241-243/2 244-246 248-24e/2 370-372/2 376
    37f 386-388/2 389-38a 38c-38e/2 38f-391/2 392-3a1 3a3-3ab 3cf 3d2-3d4 3d8-3ee/2 3f4 3f7-3f9/2 3fa 3fd-42f 460-480/2
    48a-4c0/2 4c1-4cd/2 4d0-52e/2 531-556 10a0-10c5 10c7 10cd 13a0-13f5 1c90-1cba 1cbd-1cbf 1e00-1e94/2 1e9e-1efe/2
    1f08-1f0f 1f18-1f1d 1f28-1f2f 1f38-1f3f 1f48-1f4d 1f59-1f5f/2 1f68-1f6f 1f88-1f8f 1f98-1f9f 1fa8-1faf 1fb8-1fbc
    1fc8-1fcc 1fd8-1fdb 1fe8-1fec 1ff8-1ffc 2102 2107 210b-210d 2110-2112 2115 2119-211d 2124-212a/2 212b-212d 2130-2133
    213e-213f 2145 2183 2c00-2c2f 2c60-2c62/2 2c63-2c64 2c67-2c6d/2 2c6e-2c70 2c72 2c75 2c7e-2c80 2c82-2ce2/2
    2ceb-2ced/2 2cf2 a640-a66c/2 a680-a69a/2 a722-a72e/2 a732-a76e/2 a779-a77d/2 a77e-a786/2 a78b-a78d/2 a790-a792/2
    a796-a7aa/2 a7ab-a7ae a7b0-a7b4 a7b6-a7c4/2 a7c5-a7c7 a7c9 a7d0 a7d6-a7d8/2 a7f5 ff21-ff3a 10400-10427 104b0-104d3
    10570-1057a 1057c-1058a 1058c-10592 10594-10595 10c80-10cb2 118a0-118bf 16e40-16e5f 1d400-1d419 1d434-1d44d
    1d468-1d481 1d49c-1d49e/2 1d49f 1d4a2 1d4a5-1d4a6 1d4a9-1d4ac 1d4ae-1d4b5 1d4d0-1d4e9 1d504-1d505 1d507-1d50a
    1d50d-1d514 1d516-1d51c 1d538-1d539 1d53b-1d53e 1d540-1d544 1d546 1d54a-1d550 1d56c-1d585 1d5a0-1d5b9 1d5d4-1d5ed
    1d608-1d621 1d63c-1d655 1d670-1d689 1d6a8-1d6c0 1d6e2-1d6fa 1d71c-1d734 1d756-1d76e 1d790-1d7a8 1d7ca 1e900-1e921
    """
)


def _class(ranges: list[tuple[int, int]], escape: Callable[[int], str]) -> str:
    return "".join(escape(start) if start == end else f"{escape(start)}-{escape(end)}" for start, end in ranges)


def _escaped(code: int) -> str:
    # Both Python and PostgreSQL read these, within brackets too.
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


#: The inside of a bracket expression, for Python and PostgreSQL.
CAPITALS = _class(_CAPITALS, _escaped)


def documented(ranges: str | list[tuple[int, int]]) -> str:
    """Return the same for regular expressions of JSON Schema, which have no ranges beyond U+FFFF."""
    pairs = _expanded(ranges) if isinstance(ranges, str) else ranges
    return _class([pair for pair in pairs if pair[1] <= 0xFFFF], _escaped)


# What a text may contain

ZERO_WIDTH_JOINERS = "\u200c\u200d"
#: Letters and marks that nobody sees.
BLANK_LETTERS = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0")
NOT_IN_ONE_LINE = frozenset({"Cc", "Cf", "Co", "Cs", "Zl", "Zp"})
NOT_IN_LINES = frozenset({"Cc", "Cs"})
#: The same for OpenAPI, without exceptions and without surrogates, which UTF-8 cannot encode.
UNSEEN = documented(
    """
    0-1f 7f-9f ad 34f 600-605 61c 6dd 70f 890-891 8e2 115f-1160 17b4-17b5 180e 200b-200f 2028-202e 2060-2064 2066-206f
    3164 e000-f8ff feff ffa0 fff9-fffb fffe-ffff
    """
)
CONTROLS = documented("0-8 b-c e-1f 7f-9f fffe-ffff")


def one_line(value: str) -> None:
    """Validate one line of visible text: no control, direction, invisible or private-use characters.

    Joiners (U+200C, U+200D) are allowed where scripts and emoji need them. Characters that are merely unknown to this
    version of Python are allowed: they may be letters of a later version of Unicode.
    """
    if value and value.splitlines() != [value]:
        raise ValidationError("Use one line of text.", code="line_break")
    _check_marks(value)
    for position, character in enumerate(value):
        if character in ZERO_WIDTH_JOINERS and _joins(value, position):
            continue
        _check(character, NOT_IN_ONE_LINE)


def lines(value: str) -> None:
    """Validate text of any number of lines: line breaks and tabs, and no other control characters."""
    _check_marks(value)
    for character in value:
        if character not in "\n\r\t":
            _check(character, NOT_IN_LINES)


class DocumentedValidator(RegexValidator):
    """Base of validators that say more than `regex`, which is what OpenAPI shows of them."""


class OneLineValidator(DocumentedValidator):
    regex = f"^[^{UNSEEN}]*$"

    def __call__(self, value: Any) -> None:
        one_line(str(value))


class LinesValidator(DocumentedValidator):
    regex = f"^[^{CONTROLS}]*$"

    def __call__(self, value: Any) -> None:
        lines(str(value))


@deconstructible
class StartsWithCapital(OneLineValidator):
    """Validate that a text starts with an upper or title case letter (Unicode's Lu, Lt) of any script.

    Letters of scripts without case, such as 中 and ع, are not capitals. `regex` documents what OneLineValidator, which
    every LineField has, demands as well.
    """

    regex = f"^[{documented(_CAPITALS)}][^{UNSEEN}]*$"
    code = "capital"

    def __call__(self, value: Any) -> None:
        if not re.match(f"[{CAPITALS}]", str(value)):
            raise ValidationError(self.message, code=self.code)


def _check_marks(text: str) -> None:
    if not text.isascii() and _has_too_many_marks(text):
        raise ValidationError(f"Use at most {MOST_MARKS} combining marks in a row.", code="marks")


def _check(character: str, refused: frozenset[str]) -> None:
    if character.isascii() and character.isprintable():
        return
    is_invisible = refused is NOT_IN_ONE_LINE and character in BLANK_LETTERS
    if is_invisible or unicodedata.category(character) in refused or ord(character) & 0xFFFE == 0xFFFE:
        name = unicodedata.name(character, "")
        raise ValidationError(
            f"Remove the character U+{ord(character):04X}{f' ({name})' if name else ''}.", code="character"
        )


def _joins(text: str, position: int) -> bool:
    """Return True if the joiner at `position` changes how its neighbours look (after UAX #31, 2.3)."""
    nearby = text[max(0, position - 2 * MOST_MARKS) : position]
    before = nearby.rstrip("\ufe0f\U0001f3fb\U0001f3fc\U0001f3fd\U0001f3fe\U0001f3ff")
    after = text[position + 1 : position + 2]
    if not before or not after:
        return False
    if unicodedata.combining(text[position - 1]) == 9:  # a virama, as in Indic scripts
        return True
    base = next((each for each in reversed(before) if unicodedata.category(each) != "Mn"), "")
    if base and unicodedata.bidirectional(base) == unicodedata.bidirectional(after) == "AL":
        return True
    is_emoji = unicodedata.category(before[-1]) == "So" and unicodedata.category(after) == "So"
    return text[position] == "\u200d" and is_emoji


class _Normalised:
    """Mixin of columns of text: NFC, whoever writes or looks for it. Migrations see Django's own column."""

    plain: str

    def to_python(self, value: Any) -> Any:
        return normalised(super().to_python(value))  # type: ignore[misc]

    def get_prep_value(self, value: Any) -> Any:
        return normalised(super().get_prep_value(value))  # type: ignore[misc]

    def deconstruct(self) -> tuple[str, str, Any, Any]:
        name, _, args, kwargs = super().deconstruct()  # type: ignore[misc]
        return name, self.plain, args, kwargs


class LineField(_Normalised, models.CharField):
    """One line of visible text."""

    plain = "django.db.models.CharField"
    default_validators = [OneLineValidator()]


class LinesField(_Normalised, models.TextField):
    """Text of several lines."""

    plain = "django.db.models.TextField"
    default_validators = [LinesValidator()]


def printable(text: str) -> str:
    """Return text of a stranger, such as a header, as one line: what `one_line` refuses becomes a blank."""
    return "".join(
        character if character.isprintable() and unicodedata.category(character) not in NOT_IN_ONE_LINE else " "
        for character in text
    )
