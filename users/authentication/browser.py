"""Sessions of browsers, by a signed cookie that names a row of users.Session."""

from typing import Any

from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.auth.middleware import AuthenticationMiddleware
from django.contrib.auth.models import AnonymousUser
from django.contrib.auth.signals import user_logged_in, user_logged_out
from django.dispatch import receiver
from django.http import HttpRequest
from django.utils.functional import SimpleLazyObject
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework.authentication import SessionAuthentication
from rest_framework.request import Request

from records import context
from records.db.compiled import compiled_rows
from records.db.text import printable
from records.http.client_address import client_address
from users.models import User
from users.models.session import Device, Session

#: Key of the session cookie under which the id of the users.Session is stored.
SESSION_ROW = "session"


class BrowserSessionMiddleware(AuthenticationMiddleware):
    """Set `request.user` from a browser's session, by one query for session and user."""

    def process_request(self, request: HttpRequest) -> None:
        # Unlike Django's middleware, check the row of the session: the cookie stays valid after it has ended.
        request.user = SimpleLazyObject(lambda: _browser_user(request))  # type: ignore[assignment]
        request.auser = sync_to_async(lambda: request.user)


def _browser_user(request: HttpRequest) -> User | AnonymousUser:
    session = None
    if key := request.session.get(SESSION_ROW):
        session = compiled_rows(Session.objects).alive().select_related("user").filter(pk=key).first()
    request.login_session = session  # type: ignore[attr-defined]
    return session.user if session else AnonymousUser()


def device_of(request: HttpRequest) -> Device:
    return Device(client_address(request), printable(request.headers.get("User-Agent", "")[:300]))


@receiver(user_logged_in)
def _start_session(sender: Any, request: HttpRequest, user: User, **kwargs: Any) -> None:
    # Django flushes `request.session` if another user was logged in; the cookie still names their session.
    cookie = type(request.session)(request.COOKIES.get(settings.SESSION_COOKIE_NAME))
    _sign_out(request.session.get(SESSION_ROW) or cookie.get(SESSION_ROW))
    session = Session.objects.start(user, device_of(request))
    if session is None:  # the user was deactivated or changed their password since
        request.session.flush()
        request.user = AnonymousUser()
        return
    request.session[SESSION_ROW] = str(session.pk)
    request.login_session = session  # type: ignore[attr-defined]


@receiver(user_logged_out)
def _end_session(sender: Any, request: HttpRequest, **kwargs: Any) -> None:
    _sign_out(request.session.get(SESSION_ROW))


def _sign_out(key: str | None) -> None:
    if key:
        Session.objects.filter(pk=key).sign_out()


class BrowserSessionAuthentication(SessionAuthentication):
    def authenticate(self, request: Request) -> tuple[User, Session] | None:
        signed_in = super().authenticate(request)
        return (signed_in[0], context.login_session()) if signed_in else None


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
