"""Access tokens: JSON Web Tokens (RFC 7519) that name a session and its user."""

from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple
from uuid import UUID

import jwt
from django.conf import settings

from records.db.clock import database_now
from records.db.validators import BIGINT_MAX
from users.models import Session

ALGORITHM = "HS256"

ISSUER = "stocks"

AUDIENCE = "stocks-api"

LEEWAY_SECONDS = 30

REQUIRED_CLAIMS = ["iss", "aud", "sub", "sid", "iat", "exp"]


def _key(secret: str) -> bytes:
    # A key of its own, so that a signed cookie can never be used as a token.
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
    """Return the claims of a token that we signed; raise jwt.InvalidTokenError for any other.

    The caller checks the times by the database's clock, which it reads together with the session.
    """
    claims = _claims(token, settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS)
    try:
        read = AccessClaims(UUID(claims["sid"]), int(claims["sub"]), float(claims["iat"]), float(claims["exp"]))
    except (AttributeError, TypeError, ValueError, OverflowError):
        raise jwt.InvalidTokenError("It has no session or no times.") from None
    if read.user_id > BIGINT_MAX:
        raise jwt.InvalidTokenError("It has no user.")
    return read


@lru_cache(4096)
def _claims(token: str, *secrets: str) -> dict[str, Any]:
    """Return the claims of a token that any of our keys signed; the header of the token is not trusted.

    Clients send a token many times, and checking its signature takes longer than most of what a request does.
    """
    *others, last = secrets
    for secret in others:
        try:
            return _decode(secret, token)
        except jwt.InvalidSignatureError:
            continue
    return _decode(last, token)


def _decode(secret: str, token: str) -> dict[str, Any]:
    return jwt.decode(
        token,
        _key(secret),
        algorithms=[ALGORITHM],
        audience=AUDIENCE,
        issuer=ISSUER,
        options={"require": REQUIRED_CLAIMS, "verify_exp": False, "verify_iat": False},
    )
