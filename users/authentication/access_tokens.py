"""Authentication of API requests by access tokens."""

from functools import cache
from typing import Any

import jwt
from django.contrib.auth.models import AnonymousUser
from django.db.models import Model
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework.authentication import BaseAuthentication, get_authorization_header
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request

from records.db.compiled import compiled_rows
from users.access_tokens import read_access_token
from users.models import Session, User

ENDED = "This session has ended. Please log in again."

INVALID = "The access token is invalid or expired."

#: What most requests need of session and user; other columns are read when they are used. All of them would cost
#: PostgreSQL another third of the query. The password must not be read later than the request was authenticated: a
#: confirmation compares it with the locked row.
COLUMNS = (
    "user_id", "created_at", "user__username", "user__email", "user__password", "user__is_active", "user__is_verified",
    "user__is_staff", "user__is_superuser", "user__deleted_at",
)  # fmt: skip


class AnonymousAPIUser(AnonymousUser):
    """The user of an unauthenticated API request."""

    def may(self, verb: str, model: type[Model]) -> bool:
        return False


@cache
def _alive_sessions() -> Any:
    return compiled_rows(Session.objects).alive().with_now().select_related("user").only(*COLUMNS)


class AccessTokenAuthentication(BaseAuthentication):
    """Authenticate `Authorization: Bearer <access token>` by one query for session and user."""

    def authenticate(self, request: Request) -> tuple[User, Session] | None:
        scheme, _, token = get_authorization_header(request).partition(b" ")
        if scheme.lower() != b"bearer":
            return None
        try:
            claims = read_access_token(token.decode("ascii"))
        except (jwt.InvalidTokenError, UnicodeDecodeError):
            raise AuthenticationFailed(INVALID) from None
        session = _alive_sessions().filter(pk=claims.session_id, user_id=claims.user_id).first()
        if session is None:
            raise AuthenticationFailed(ENDED)
        if not claims.is_current(session.now):
            raise AuthenticationFailed(INVALID)
        request._request.login_session = session  # type: ignore[attr-defined]
        return session.user, session

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"


class AccessTokenScheme(OpenApiAuthenticationExtension):
    target_class = AccessTokenAuthentication
    name = ["accessToken", "password"]

    def get_security_requirement(self, auto_schema: Any) -> list[dict[str, list[Any]]]:
        return [{name: []} for name in self.name]  # alternatives

    def get_security_definition(self, auto_schema: Any) -> list[dict[str, Any]]:
        login = "/api/v1/auth/login"
        return [
            {
                "type": "http",
                "scheme": "bearer",
                "bearerFormat": "JWT",
                "description": f"The `access_token` of `POST {login}`.",
            },
            {
                "type": "oauth2",
                "flows": {"password": {"tokenUrl": login, "scopes": {}}},
                "description": "Username or e-mail address, and password. Client id and secret are ignored.",
            },
        ]
