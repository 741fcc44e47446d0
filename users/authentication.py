"""Who is calling: by access token, by a browser's session, or by name and password."""

import math
from datetime import timedelta
from typing import Any

import jwt
from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.auth.backends import ModelBackend
from django.contrib.auth.hashers import UNUSABLE_PASSWORD_PREFIX
from django.contrib.auth.middleware import AuthenticationMiddleware
from django.contrib.auth.models import AnonymousUser, Permission
from django.contrib.auth.signals import user_logged_in, user_logged_out
from django.db.models import Model, Q
from django.dispatch import receiver
from django.http import HttpRequest
from django.utils.functional import SimpleLazyObject
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework.authentication import BaseAuthentication, SessionAuthentication, get_authorization_header
from rest_framework.exceptions import AuthenticationFailed, Throttled
from rest_framework.request import Request

from records import context
from records.http.client_address import client_network
from users import passwords
from users.models import User
from users.sessions import Limit, RateLimit, Session, hash_token, record_event
from users.tokens import read_access_token

BAD_LOGINS_OF_ACCOUNT = Limit("login-account", 10, timedelta(minutes=15))
BAD_LOGINS_FROM_ADDRESS = Limit("login-address", 50, timedelta(minutes=15))
REFUSALS_TOLD = Limit("login-refused", 10, timedelta(minutes=15))
# The session cookie's one entry of ours: the id of the users.Session that it stands for.
SESSION_ROW = "session"
#: No password is that long; a browser's form may send one of a megabyte to be hashed.
LONGEST_PASSWORD = 1024
ENDED = "This session has ended. Please log in again."
NOT_VALID = "The access token is invalid or expired."


class AnonymousAPIUser(AnonymousUser):
    """Whom the API has before it when nobody has signed in."""

    def may(self, verb: str, model: type[Model]) -> bool:
        return False


class TooManyFailures(Throttled):
    def __init__(self, wait: int) -> None:
        super().__init__(wait)
        self.detail = f"Too many failed attempts. Please try again in {math.ceil(wait / 60)} min."  # type: ignore[assignment]


class AccountBackend(ModelBackend):
    """Signs in by e-mail or username; each failure costs one password hash, as each success does.

    The API's login, the browsable API's and the admin's come through here, and are counted here: TooManyFailures for
    an account or an address with too many failures, whatever the password.
    """

    def authenticate(
        self, request: HttpRequest | None, username: str | None = None, password: str | None = None, **kwargs: Any
    ) -> User | None:
        if username is None or password is None or "\0" in username or len(password) > LONGEST_PASSWORD:
            return None
        user = User.all_objects.with_login(username).first()
        try:
            signed_in = self._checked(user, password, _counted(user, username, request))
        except TooManyFailures:
            # Told so often only: refusing costs us little, and whoever goes on must not fill the log.
            network = client_network(request) if request else None
            if not RateLimit.objects.hit((REFUSALS_TOLD, network or username.lower()[:60])):
                record_event("login", user.pk if user else None, "failure")
            raise
        if signed_in is None:
            record_event("login", user.pk if user else None, "failure")
        return signed_in

    def _checked(self, user: User | None, password: str, counted: list[tuple[Limit, str]]) -> User | None:
        self._refuse_after(RateLimit.objects.wait(*counted))
        # First the password: who is inactive or deleted must take as long as everybody else.
        fits = user.check_password(password) if user else passwords.check(password, UNUSABLE_PASSWORD_PREFIX)
        if user is None or not fits or user.is_deleted or not self.user_can_authenticate(user):
            self._refuse_after(RateLimit.objects.hit(*counted))
            return None
        # Asked again: of many guesses at once, the right one is not let in behind the wrong ones.
        self._refuse_after(RateLimit.objects.wait(*counted))
        RateLimit.objects.forget(*counted[0])
        return user

    @staticmethod
    def _refuse_after(wait: int) -> None:
        if wait:
            raise TooManyFailures(wait)

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


def _counted(user: User | None, username: str, request: HttpRequest | None) -> list[tuple[Limit, str]]:
    """What a failed login counts against: the account, or the name that is nobody's, and the address."""
    account = str(user.pk) if user else f"?{hash_token(username.lower())}"
    network = client_network(request) if request else None
    return [(BAD_LOGINS_OF_ACCOUNT, account)] + ([(BAD_LOGINS_FROM_ADDRESS, network)] if network else [])


# Browsers


class BrowserSessionMiddleware(AuthenticationMiddleware):
    """`request.user` of a browser, by one query for session and user together."""

    def process_request(self, request: HttpRequest) -> None:
        # Not Django's own, which would believe the cookie of a session that has ended.
        request.user = SimpleLazyObject(lambda: _browser_user(request))  # type: ignore[assignment]
        request.auser = sync_to_async(lambda: request.user)  # type: ignore[assignment]


def _browser_user(request: HttpRequest) -> User | AnonymousUser:
    session = None
    if row := request.session.get(SESSION_ROW):
        session = Session.objects.alive().select_related("user").filter(pk=row).first()
    request.login_session = session  # type: ignore[attr-defined]
    return session.user if session else AnonymousUser()


@receiver(user_logged_in)
def _start_session(sender: Any, request: HttpRequest, user: User, **kwargs: Any) -> None:
    # Django has emptied `request.session` where somebody else was logged in; the cookie still tells who.
    cookie = type(request.session)(request.COOKIES.get(settings.SESSION_COOKIE_NAME))
    _end(request.session.get(SESSION_ROW) or cookie.get(SESSION_ROW))
    session = Session.objects.start(user, request)
    if session is None:  # deactivated, or the password changed, since it was asked for
        request.session.flush()
        request.user = AnonymousUser()
        return
    request.session[SESSION_ROW] = str(session.pk)
    request.login_session = session  # type: ignore[attr-defined]


@receiver(user_logged_out)
def _end_session(sender: Any, request: HttpRequest, **kwargs: Any) -> None:
    _end(request.session.get(SESSION_ROW))


def _end(row: str | None) -> None:
    if row:
        Session.objects.filter(pk=row).sign_out()


class BrowserSessionAuthentication(SessionAuthentication):
    def authenticate(self, request: Request) -> tuple[User, Session] | None:
        signed_in = super().authenticate(request)
        return (signed_in[0], context.login_session()) if signed_in else None


# Programs


class AccessTokenAuthentication(BaseAuthentication):
    """`Authorization: Bearer <access token>`: one query for session and user together, whatever their number."""

    def authenticate(self, request: Request) -> tuple[User, Session] | None:
        scheme, _, token = get_authorization_header(request).partition(b" ")
        if scheme.lower() != b"bearer":
            return None
        try:
            claims = read_access_token(token.decode("ascii"))
        except (jwt.InvalidTokenError, UnicodeDecodeError):
            raise AuthenticationFailed(NOT_VALID) from None
        alive = Session.objects.alive().with_now().select_related("user")
        session = alive.filter(pk=claims.session_id, user_id=claims.user_id).first()
        if session is None:
            raise AuthenticationFailed(ENDED)
        if not claims.is_current(session.now):
            raise AuthenticationFailed(NOT_VALID)
        request._request.login_session = session  # type: ignore[attr-defined]
        return session.user, session

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"


class AccessTokenScheme(OpenApiAuthenticationExtension):
    target_class = AccessTokenAuthentication
    name = ["accessToken", "password"]

    def get_security_requirement(self, auto_schema: Any) -> list[dict[str, list[Any]]]:
        return [{name: []} for name in self.name]  # one of them is enough

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


class BrowserSessionScheme(OpenApiAuthenticationExtension):
    target_class = BrowserSessionAuthentication
    name = "browserSession"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {
            "type": "apiKey",
            "in": "cookie",
            "name": settings.SESSION_COOKIE_NAME,
            "description": "The session of a browser; writes need the CSRF token too.",
        }
