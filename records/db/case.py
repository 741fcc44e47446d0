"""Case-insensitive lookups with the same meaning on PostgreSQL and SQLite.

Two texts are equal regardless of case if Unicode's simple upper case mapping, which replaces each character by one
character, makes them equal: `é` and `É`, `ς` and `Σ`, `ı` and `I` are equal, but `ß`, `ẞ` and `SS` differ. PostgreSQL's
`upper` does so in the UTF-8 locales of libc except the Turkish ones. `simple_upper` does the same for SQLite.
"""

from functools import cache
from typing import Any

from django.db.models.lookups import IContains, IEndsWith, IExact, IStartsWith

from records.db.text import normalize_text

#: ASCII letter → non-ASCII letter with this upper case. SQLite's LIKE ignores the case of ASCII letters only.
NON_ASCII_VARIANTS = {"I": "ı", "S": "ſ"}


@cache
def _simple_upper(character: str) -> str:
    # A few letters, such as ᾳ, have a single title case letter (ᾼ) but several letters in upper case.
    return next((upper for upper in (character.upper(), character.title()) if len(upper) == 1), character)


def simple_upper(text: str) -> str:
    """Return the text in upper case, with each character replaced by exactly one character."""
    upper = text.upper()
    return upper if len(upper) == len(text) else "".join(map(_simple_upper, text))


class UnicodeCaseMixin:
    """Make a case-insensitive lookup of Django behave alike on both databases, and normalize its value to NFC."""

    lhs: Any
    rhs: Any

    def get_prep_lookup(self) -> Any:
        return normalize_text(super().get_prep_lookup())  # type: ignore[misc]

    def as_sqlite(self, compiler: Any, connection: Any) -> tuple[str, Any]:
        if not self.rhs_is_direct_value():  # type: ignore[attr-defined]
            sql: tuple[str, Any] = self.as_sql(compiler, connection)  # type: ignore[attr-defined]
            return sql
        column, column_params = self.process_lhs(compiler, connection)  # type: ignore[attr-defined]
        _, [text] = self.process_rhs(compiler, connection)  # type: ignore[attr-defined]
        if text.isascii():
            for letter, variant in NON_ASCII_VARIANTS.items():
                if letter in text.upper():
                    column = f"REPLACE({column}, '{variant}', '{letter}')"
        else:
            column, text = f"UPPER({column})", simple_upper(text)
        return f"{column} LIKE %s ESCAPE '\\'", [*column_params, text]


class UnicodeIExact(UnicodeCaseMixin, IExact):
    pass


class UnicodeIContains(UnicodeCaseMixin, IContains):
    pass


class UnicodeIStartsWith(UnicodeCaseMixin, IStartsWith):
    pass


class UnicodeIEndsWith(UnicodeCaseMixin, IEndsWith):
    pass


CASE_INSENSITIVE_LOOKUPS = (UnicodeIExact, UnicodeIContains, UnicodeIStartsWith, UnicodeIEndsWith)
