"""Sign-in of browsers through OpenID Connect providers."""

import logging
import re
from typing import Any

from authlib.integrations.django_client import OAuthError
from django.conf import settings
from django.contrib.auth import login
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.shortcuts import resolve_url
from django.utils.http import url_has_allowed_host_and_scheme
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework.exceptions import NotFound
from rest_framework.request import Request
from rest_framework.reverse import reverse

from records import context
from records.http.hints import excerpt
from records.http.problems import problem_page
from users.events import record_event
from users.models import User
from users.oidc.client import fetch_claims, load_metadata, registry
from users.views.base import PublicView

logger = logging.getLogger(__name__)

#: Key of the session cookie under which the path is stored that the sign-in ends at.
NEXT_PATH_KEY = "oauth_next"
FAILURE_TITLE = "Signing in failed"
#: Both limits keep the session cookie below 4 KB.
MAX_PENDING_SIGN_INS = 3
MAX_NEXT_PATH_LENGTH = 1000


class ProviderView(PublicView):
    """A step of a browser on its way to the provider and back."""

    error_media_types = ("text/html",)

    def get_client(self, provider: str) -> Any:
        client = registry().create_client(provider)
        if client is None:
            raise NotFound(f"Sign-in through '{excerpt(provider)}' is not configured.")
        return client

    def failure_page(self, provider: str, error: Exception, status: int, detail: str) -> HttpResponseBase:
        # Log the type of the error only: the text of a provider may quote secrets.
        url = settings.OAUTH_PROVIDERS[provider]["server_metadata_url"]
        logger.warning("Sign-in through %s (%s) failed: %s %s", provider, url, type(error).__name__, _code(error))
        if not isinstance(error, (OAuthError, ValidationError)):  # those are errors of the browser or the person
            registry.cache_clear()  # load the metadata again, which may have been corrected
        return problem_page(status, detail, title=FAILURE_TITLE)


class OAuthLoginView(ProviderView):
    error_statuses = (502,)

    @extend_schema(
        operation_id="auth_oauth_login",
        parameters=[OpenApiParameter("next", str, description="Path of this service to end at.")],
        responses={302: OpenApiResponse(description="To the provider.")},
    )
    def get(self, request: Request, provider: str) -> HttpResponseBase:
        """Sign a browser in through an OpenID Connect provider: redirects to its page."""
        client = self.get_client(provider)
        _remove_oldest_pending(request._request)
        path = request.query_params.get("next", "")
        request._request.session[NEXT_PATH_KEY] = path if len(path) <= MAX_NEXT_PATH_LENGTH else ""
        callback = settings.APP_URL + reverse("oauth-callback", kwargs={"provider": provider})
        try:
            load_metadata(client)
            response: HttpResponseBase = client.authorize_redirect(request._request, callback)
        except Exception as error:  # providers may respond with anything
            return self.failure_page(provider, error, 502, f"The provider {provider} does not answer as it should.")
        return response

    def known_parameters(self) -> frozenset[str]:
        return frozenset({"next"})


class OAuthCallbackView(ProviderView):
    error_statuses = (403,)

    @extend_schema(
        operation_id="auth_oauth_callback",
        parameters=[
            OpenApiParameter("state", str, description="The sign-in that the provider answers."),
            OpenApiParameter("code", str, description="What the provider exchanges for the person's claims."),
            OpenApiParameter("error", str, description="Why the provider signed nobody in."),
        ],
        responses={302: OpenApiResponse(description="Signed in: to where the browser wanted to go.")},
    )
    def get(self, request: Request, provider: str) -> HttpResponseBase:
        """Finish a sign-in: the provider redirects the browser here."""
        client = self.get_client(provider)
        try:
            claims = fetch_claims(client, request._request)
        except Exception as error:
            record_event("oauth_login", None, "failure")
            return self.failure_page(provider, error, 400, _failure_detail(provider, request, error))
        with context.record_as("oauth_login", by_owner=True):
            try:
                user = User.objects.get_or_create_from_claims(provider, claims)
            except ValidationError as error:
                record_event("oauth_login", (getattr(error, "params", None) or {}).get("user_id"), "failure")
                return self.failure_page(provider, error, 403, error.messages[0])
            path = request._request.session.pop(NEXT_PATH_KEY, "")
            login(request._request, user)
        is_local = url_has_allowed_host_and_scheme(path, allowed_hosts=None)
        return HttpResponseRedirect(path if is_local else resolve_url(settings.LOGIN_REDIRECT_URL))

    def check_parameters(self, request: Request) -> None:
        pass  # providers may add parameters (RFC 6749, section 4.1.2)


def _code(error: Exception) -> str:
    """Return the error code of OAuth 2.0 (RFC 6749), or "" if the error has none."""
    code = str(getattr(error, "error", ""))
    return code if re.fullmatch("[a-z_]{1,40}", code) else ""


def _failure_detail(provider: str, request: Request, error: Exception) -> str:
    if request.query_params.get("error") == "access_denied":
        return f"You did not allow {provider} to sign you in. Nothing was changed."
    if getattr(error, "error", "") == "mismatching_state":
        return "This sign-in was begun elsewhere, too long ago, or finished already. Please begin again."
    return f"The provider {provider} did not confirm who you are. Please try again."


def _remove_oldest_pending(request: HttpRequest) -> None:
    states = [key for key in dict(request.session) if key.startswith("_state_")]
    for key in sorted(states, key=lambda key: request.session[key].get("exp", 0))[: -MAX_PENDING_SIGN_INS + 1]:
        del request.session[key]
