"""Tokens that people and programs carry: access tokens (JSON Web Tokens, RFC 7519), and those in mails."""

import hashlib
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

import jwt
from django.conf import settings
from django.core import signing
from django.utils.crypto import constant_time_compare

from records.db.clock import DatabaseNow, database_now
from records.db.validators import BIGINT_MAX
from users.models import User
from users.sessions import Session, SpentToken

ALGORITHM = "HS256"
ISSUER = "stocks"
AUDIENCE = "stocks-api"
LEEWAY_SECONDS = 30
REQUIRED_CLAIMS = ["iss", "aud", "sub", "sid", "iat", "exp"]


def _key(secret: str) -> bytes:
    # Not the secret itself: what signs cookies signs no tokens.
    return b"access-token:" + secret.encode()


def access_token(session: Session) -> str:
    now = session.now or database_now()
    claims: dict[str, Any] = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": str(session.user_id),
        "sid": str(session.pk),
        "iat": now,
        "exp": now + settings.ACCESS_TOKEN_LIFETIME,
    }
    return jwt.encode(claims, _key(settings.SECRET_KEY), ALGORITHM)


class AccessClaims(NamedTuple):
    """The session and user that an access token names, and its times in seconds since 1970."""

    session_id: UUID
    user_id: int
    issued_at: float
    expires_at: float

    def is_current(self, now: datetime) -> bool:
        """Return False if the token is expired or from the future; `now` is the database's time."""
        moment = now.timestamp()
        return self.issued_at <= moment + LEEWAY_SECONDS and moment < self.expires_at + LEEWAY_SECONDS


def read_access_token(token: str) -> AccessClaims:
    """Return what a token says that we signed; jwt.InvalidTokenError for any other.

    Its times are not checked: the caller does, by the database's clock, when it has asked for the session.
    """
    claims = _claims(token)
    try:
        read = AccessClaims(UUID(claims["sid"]), int(claims["sub"]), float(claims["iat"]), float(claims["exp"]))
    except (AttributeError, TypeError, ValueError, OverflowError):
        raise jwt.InvalidTokenError("It names no session, or no times.") from None
    if read.user_id > BIGINT_MAX:
        raise jwt.InvalidTokenError("It names no user.")
    return read


def _claims(token: str) -> dict[str, Any]:
    """What the token says, whichever of our keys signed it; its header says nothing about keys that we believe."""
    *former, last = [settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS]
    for secret in former:
        try:
            return _signed_by(secret, token)
        except jwt.InvalidSignatureError:
            continue
    return _signed_by(last, token)


def _signed_by(secret: str, token: str) -> dict[str, Any]:
    return jwt.decode(
        token,
        _key(secret),
        algorithms=[ALGORITHM],
        audience=AUDIENCE,
        issuer=ISSUER,
        options={"require": REQUIRED_CLAIMS, "verify_exp": False, "verify_iat": False},
    )


class Purpose(NamedTuple):
    """What a token from a mail is good for, and how long."""

    name: str
    lifetime: timedelta
    page: str  # under /account/


VERIFY_EMAIL = Purpose("verify-email", timedelta(days=3), "verify-email")
CHANGE_EMAIL = Purpose("change-email", timedelta(days=3), "verify-email")
RESET_PASSWORD = Purpose("reset-password", timedelta(hours=1), "reset-password")
DELETE_ACCOUNT = Purpose("delete-account", timedelta(days=1), "delete-account")


class MailSigner(signing.TimestampSigner):
    """Signs with the time of the database, which every node reads alike."""

    def timestamp(self) -> str:
        return signing.b62_encode(int(database_now().timestamp()))


def mail_token(purpose: Purpose, user: User) -> str:
    """Show that its holder reads the mail of `user`'s address: the pending one to change it, else the present one.

    Nothing is stored until it is used, so that asking for one takes the same time whether or not the user exists.
    """
    return MailSigner(salt=f"mail:{purpose.name}").sign_object([user.pk, _state(purpose, user)])


def spend(purpose: Purpose, token: str) -> User | None:
    """Whose token it is, which works no more; to be called in the transaction of what it is good for.

    None where it is forged, expired, used, for another purpose, or from before the address or the password changed.
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


def is_for(purpose: Purpose, token: str) -> bool:
    """Return True if the token was made for this purpose, whether or not it is still good."""
    try:
        signing.loads(token, salt=f"mail:{purpose.name}")
    except (signing.BadSignature, UnicodeError, ValueError):
        return False
    return True


def aimed_at(purpose: Purpose, token: str) -> int | None:
    """Whose token it is or once was; None where it is forged, or they are gone for good."""
    try:
        pk, _ = signing.loads(token, salt=f"mail:{purpose.name}")
    except (signing.BadSignature, UnicodeError, ValueError):
        return None
    return pk if User.all_objects.filter(pk=pk).exists() else None


def _state(purpose: Purpose, user: User) -> str:
    """What must be as it was when the token was made."""
    own: dict[Purpose, list[Any]] = {DELETE_ACCOUNT: [user.deletion_decided_at], CHANGE_EMAIL: [user.pending_email]}
    parts = [user.email, user.password, *own.get(purpose, [])]
    return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()[:32]
