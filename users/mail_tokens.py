"""Tokens in mails, which prove that their holder reads the mail of an address."""

import hashlib
from datetime import timedelta
from typing import Any, NamedTuple

from django.core import signing
from django.utils.crypto import constant_time_compare

from records.db.clock import DatabaseNow, database_now
from users.models import SpentToken, User


class Purpose(NamedTuple):
    """A use of tokens, and how long they are valid for it."""

    name: str
    lifetime: timedelta
    page: str  # under /account/


VERIFY_EMAIL = Purpose("verify-email", timedelta(days=3), "verify-email")

CHANGE_EMAIL = Purpose("change-email", timedelta(days=3), "verify-email")

RESET_PASSWORD = Purpose("reset-password", timedelta(hours=1), "reset-password")

DELETE_ACCOUNT = Purpose("delete-account", timedelta(days=1), "delete-account")


class MailSigner(signing.TimestampSigner):
    """A signer that uses the time of the database, which is the same for every server."""

    def timestamp(self) -> str:
        return signing.b62_encode(int(database_now().timestamp()))


def mail_token(purpose: Purpose, user: User) -> str:
    """Return a token for a mail to `user`: to their pending address if the purpose is to change it.

    Nothing is stored before the token is used, so that requesting one takes the same time for unknown users.
    """
    return MailSigner(salt=f"mail:{purpose.name}").sign_object([user.pk, _state(purpose, user)])


def use_token(purpose: Purpose, token: str) -> User | None:
    """Return the user of a token, locked, and mark the token as used, in the current transaction.

    Return None if it is forged, expired, used, for another purpose, or older than the current address or password.
    """
    try:
        pk, state = signing.loads(token, salt=f"mail:{purpose.name}")
        issued_at = signing.b62_decode(token.split(":")[1])
    except (signing.BadSignature, UnicodeError, ValueError):
        return None
    locked = User.objects.active().select_for_update(no_key=True).annotate(now=DatabaseNow())
    user = locked.filter(pk=pk).first()
    if user is None or not constant_time_compare(state, _state(purpose, user)):
        return None
    if user.now.timestamp() - issued_at > purpose.lifetime.total_seconds():
        return None
    return user if SpentToken.objects.spend(token, user.now + purpose.lifetime) else None


def has_purpose(purpose: Purpose, token: str) -> bool:
    """Return True if the token was signed for this purpose, even if it is no longer valid."""
    try:
        signing.loads(token, salt=f"mail:{purpose.name}")
    except (signing.BadSignature, UnicodeError, ValueError):
        return False
    return True


def user_id_of(purpose: Purpose, token: str) -> int | None:
    """Return the user id of a token, even if it is no longer valid; None if it is forged or the user was purged."""
    try:
        pk, _ = signing.loads(token, salt=f"mail:{purpose.name}")
    except (signing.BadSignature, UnicodeError, ValueError):
        return None
    return pk if User.all_objects.filter(pk=pk).exists() else None


def _state(purpose: Purpose, user: User) -> str:
    """Return a hash of what must not have changed since the token was created."""
    own: dict[Purpose, list[Any]] = {DELETE_ACCOUNT: [user.deletion_decided_at], CHANGE_EMAIL: [user.pending_email]}
    parts = [user.email, user.password, *own.get(purpose, [])]
    return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()[:32]
