"""Tokens that were used and must not be used again."""

from datetime import datetime

from django.db import IntegrityError, models, transaction
from django.db.models import QuerySet

from users.models.session import hash_token


class SpentTokenQuerySet(QuerySet["SpentToken"]):
    def spend(self, token: str, expires_at: datetime) -> bool:
        """Mark the token as used; return False if it was used before. Of concurrent calls exactly one returns True."""
        try:
            with transaction.atomic():
                self.create(token_hash=hash_token(token), expires_at=expires_at)
        except IntegrityError:
            return False
        return True


class SpentToken(models.Model):
    """The hash of a token from a mail that was used."""

    token_hash = models.CharField(max_length=64, primary_key=True)
    expires_at = models.DateTimeField()

    objects = SpentTokenQuerySet.as_manager()

    class Meta:
        db_table = "spent_tokens"
        indexes = [models.Index(fields=["expires_at"], name="spent_tokens_expires_at")]

    def __str__(self) -> str:
        return self.token_hash[:8]
