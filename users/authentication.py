"""Who is calling: by access token, or by name and password."""

from typing import Any

import jwt
from django.contrib.auth.backends import ModelBackend
from django.contrib.auth.hashers import UNUSABLE_PASSWORD_PREFIX, check_password
from django.contrib.auth.models import Permission
from django.db.models import Q
from django.http import HttpRequest
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework.authentication import BaseAuthentication, get_authorization_header
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request

from users.models import Session, User
from users.tokens import session_id


class AccountBackend(ModelBackend):
    """Signs in by e-mail or username; each failure costs one password hash, as each success does."""

    def authenticate(
        self, request: HttpRequest | None, username: str | None = None, password: str | None = None, **kwargs: Any
    ) -> User | None:
        if username is None or password is None or "\0" in username:
            return None
        user = User.all_objects.with_login(username).first()
        if user is None:
            check_password(password, UNUSABLE_PASSWORD_PREFIX)
            return None
        # First the password: who is inactive or deleted must take as long as everybody else.
        fits = user.check_password(password)
        return user if fits and not user.is_deleted and self.user_can_authenticate(user) else None

    def get_all_permissions(self, user_obj: Any, obj: Any = None) -> set[str]:
        """The person's own and their groups' permissions, in one query a request."""
        if not user_obj.is_active or user_obj.is_anonymous or obj is not None:
            return set()
        if not hasattr(user_obj, "_permissions"):
            granted = Permission.objects.all()
            if not user_obj.is_superuser:
                granted = granted.filter(Q(user=user_obj) | Q(group__user=user_obj)).distinct()
            names = granted.order_by().values_list("content_type__app_label", "codename")
            user_obj._permissions = {f"{app}.{codename}" for app, codename in names}
        return user_obj._permissions


class AccessTokenAuthentication(BaseAuthentication):
    """`Authorization: Bearer <access token>`: one query for session and user together, whatever their number."""

    def authenticate(self, request: Request) -> tuple[User, Session] | None:
        scheme, _, token = get_authorization_header(request).partition(b" ")
        if scheme.lower() != b"bearer":
            return None
        try:
            session_pk, user_pk = session_id(token.decode("ascii"))
        except (jwt.InvalidTokenError, UnicodeDecodeError):
            raise AuthenticationFailed("The access token is invalid or expired.") from None
        session = Session.objects.alive().select_related("user").filter(pk=session_pk, user_id=user_pk).first()
        if session is None:
            raise AuthenticationFailed("This session has ended. Please log in again.")
        return session.user, session

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"


class AccessTokenScheme(OpenApiAuthenticationExtension):
    target_class = AccessTokenAuthentication
    name = "accessToken"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {
            "type": "http",
            "scheme": "bearer",
            "bearerFormat": "JWT",
            "description": "The `access_token` of `POST /api/v1/auth/login`.",
        }
