"""Password rules after NIST SP 800-63B, section 5.1.1.2."""

import re
import unicodedata
from typing import Any

from django.contrib.auth import password_validation
from django.core.exceptions import ValidationError

from users.passwords.breached import is_common
from users.passwords.hashing import normalized
from users.passwords.limits import MAX_LENGTH


class MinimumLengthValidator(password_validation.MinimumLengthValidator):
    """Count code points after normalization."""

    def validate(self, password: str, user: Any = None) -> None:
        super().validate(normalized(password), user)


class MaximumLengthValidator:
    """Bound the length, because the cost of hashing grows with it."""

    longest = MAX_LENGTH

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


#: Unicode letters, symbols and marks that are invisible.
INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)


class ContentValidator:
    """Refuse control characters, and passwords with few visible characters."""

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
    """Refuse passwords known from breaches, and common variations of them.

    The variations are other capitals, digits and signs at the ends or in between, leet spelling, accents, reversal and
    repetition. Also refuse the name of the service, keyboard walks, sequences and few distinct characters.
    """

    message = "This password is too common: it is known from data breaches, or easily guessed from one that is."

    def validate(self, password: str, user: Any = None) -> None:
        if is_common(password):
            raise ValidationError(self.message, code="password_too_common")

    def get_help_text(self) -> str:
        return "Your password can’t be one that is known from data breaches, or a variation of one."
