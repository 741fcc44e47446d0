"""Access tokens: JSON Web Tokens (RFC 7519) that name a session."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import jwt
from django.conf import settings
from django.core import signing
from django.utils import timezone

from records.models import BIGINT_MAX
from users.models import Session, User

ALGORITHM = "HS256"
ISSUER = "stocks"
AUDIENCE = "stocks-api"
LEEWAY_SECONDS = 30
VERIFICATION_LIFETIME = timedelta(days=3)
REQUIRED_CLAIMS = ["iss", "aud", "sub", "sid", "iat", "exp"]


def _key(secret: str) -> bytes:
    # Not the secret itself: what signs cookies signs no tokens.
    return b"access-token:" + secret.encode()


def access_token(session: Session) -> str:
    now = timezone.now()
    claims: dict[str, Any] = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": str(session.user_id),
        "sid": str(session.pk),
        "iat": now,
        "exp": now + settings.ACCESS_TOKEN_LIFETIME,
    }
    return jwt.encode(claims, _key(settings.SECRET_KEY), ALGORITHM)


def session_id(token: str) -> tuple[UUID, int]:
    """The session and user that a valid token names; jwt.InvalidTokenError for any other token."""
    claims = jwt.decode(
        token,
        _key(settings.SECRET_KEY),
        algorithms=[ALGORITHM],
        audience=AUDIENCE,
        issuer=ISSUER,
        leeway=LEEWAY_SECONDS,
        options={"require": REQUIRED_CLAIMS},
    )
    try:
        session, user = UUID(claims["sid"]), int(claims["sub"])
    except (AttributeError, TypeError, ValueError):
        raise jwt.InvalidTokenError("It names no session.") from None
    if user > BIGINT_MAX:
        raise jwt.InvalidTokenError("It names no user.")
    return session, user


def verification_token(user: User) -> str:
    """Shows that its holder reads the mail of `user`'s present address; worthless once that is known."""
    return signing.dumps([user.pk, user.email], salt="email-verification")


def user_to_verify(token: str) -> User | None:
    """Whom the token verifies; None where it is forged, expired, used, or for an address of former times."""
    try:
        pk, email = signing.loads(token, salt="email-verification", max_age=VERIFICATION_LIFETIME)
    except (signing.BadSignature, UnicodeError, ValueError):
        return None
    return User.objects.active().filter(pk=pk, email=email, is_verified=False).first()
