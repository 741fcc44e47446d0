"""Signing in and out."""

from typing import Any

from django.conf import settings
from django.contrib.auth import authenticate, logout
from django.http import QueryDict
from drf_spectacular.utils import extend_schema
from rest_framework import status
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.parsers import FormParser, MultiPartParser
from rest_framework.request import Request
from rest_framework.response import Response

from records.rest.parsers import StrictJSONParser
from records.rest.serializers import StrictSerializer
from users.access_tokens import access_token
from users.authentication.browser import BrowserSessionAuthentication, device_of
from users.models import Session, User
from users.serializers import (
    LoginFormSerializer,
    LoginSerializer,
    RefreshSerializer,
    TokensSerializer,
)
from users.views.base import AccountView, PublicView


def token_pair(session: Session, refresh_token: str) -> Response:
    return Response(
        {
            "access_token": access_token(session),
            "refresh_token": refresh_token,
            "token_type": "bearer",
            "expires_in": int(settings.ACCESS_TOKEN_LIFETIME.total_seconds()),
        }
    )


LOGIN_BODIES = {
    "application/json": LoginSerializer,
    "application/x-www-form-urlencoded": LoginFormSerializer,
    "multipart/form-data": LoginFormSerializer,
}


class LoginView(PublicView):
    error_statuses = (401,)
    parser_classes = (StrictJSONParser, FormParser, MultiPartParser)
    serializer_class = LoginSerializer

    @extend_schema(request=LOGIN_BODIES, responses=TokensSerializer, operation_id="auth_login")
    def post(self, request: Request) -> Response:
        """Sign in on this device.

        Form data may be a password grant of OAuth 2.0.
        """
        body = self.body(request)
        user = authenticate(request._request, username=body["username"], password=body["password"])
        session = Session.objects.start(user, device_of(request)) if isinstance(user, User) else None
        if session is None:
            raise AuthenticationFailed("Wrong username or password.")
        return token_pair(session, session.next_refresh_token())

    def get_serializer_class(self, request: Request) -> type[StrictSerializer]:
        return LoginFormSerializer if isinstance(request.data, QueryDict) else LoginSerializer


class BrowserTokenView(AccountView):
    authentication_classes = (BrowserSessionAuthentication,)
    error_statuses = (401,)

    def get_authenticate_header(self, request: Request) -> str:
        return "Bearer"

    @extend_schema(request=None, responses=TokensSerializer, operation_id="auth_token")
    def post(self, request: Request) -> Response:
        """Exchange the session of a browser for tokens, which get a separate session."""
        self.body(request)
        current: Any = request.auth
        session = Session.objects.start(self.user, device_of(request), by=current)
        if session is None:
            raise AuthenticationFailed
        return token_pair(session, session.next_refresh_token())


class RefreshView(PublicView):
    error_statuses = (401,)
    serializer_class = RefreshSerializer

    @extend_schema(request=RefreshSerializer, responses=TokensSerializer, operation_id="auth_refresh")
    def post(self, request: Request) -> Response:
        """Exchange a refresh token for the next pair of tokens.

        Each refresh token works once. A token that is used again more than five seconds after its session was refreshed
        counts as stolen and ends the session; within five seconds, as when two tabs race, it is only refused.
        """
        refreshed = Session.objects.refresh(self.body(request)["refresh_token"], device_of(request))
        if refreshed is None:
            raise AuthenticationFailed("This refresh token is invalid, used or expired. Please log in again.")
        return token_pair(*refreshed)


class LogoutView(AccountView):
    @extend_schema(request=None, responses={204: None}, operation_id="auth_logout")
    def post(self, request: Request) -> Response:
        """End the session of this request: its tokens or its cookie become invalid."""
        self.body(request)
        session: Any = request.auth
        session.sign_out()
        if isinstance(request.successful_authenticator, BrowserSessionAuthentication):
            logout(request._request)
        return Response(status=status.HTTP_204_NO_CONTENT)
