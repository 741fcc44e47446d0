"""Sign-in through OpenID Connect providers: the authorization code flow with PKCE, state and nonce (by Authlib)."""

import logging
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import requests
from authlib.integrations.base_client.errors import MismatchingStateError
from authlib.integrations.django_client import OAuth, OAuthError
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
from users.accounts import PublicView
from users.deadline import deadline
from users.models import Claims, User
from users.provider_session import BoundedApp
from users.sessions import record_event

logger = logging.getLogger(__name__)

NEXT = "oauth_next"
FAILED = "Signing in failed"
#: Sign-ins a browser may have under way, and how long a path they may end at: both are kept in the session's cookie,
#: which holds 4 KB.
UNDER_WAY = 3
LONGEST_NEXT = 1000
#: What of a provider's metadata is used; what else it says could be taken for settings of ours.
ENDPOINTS = ("issuer", "authorization_endpoint", "token_endpoint", "jwks_uri")
OPTIONAL_METADATA = ("userinfo_endpoint", "token_endpoint_auth_methods_supported", "_loaded_at", "jwks")
#: Signed by a key of which we know the public half only; "none" and shared secrets are not.
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519")


@cache
def _registry() -> OAuth:
    registry = OAuth()
    for name, provider in settings.OAUTH_PROVIDERS.items():
        client = {"scope": "openid email profile", "code_challenge_method": "S256", "default_timeout": 5}
        registry.register(name, client_cls=BoundedApp, **provider, client_kwargs=client)
    return registry


def _client(name: str) -> Any:
    client = _registry().create_client(name)
    if client is None:
        raise NotFound(f"Nobody can sign in through '{excerpt(name)}' here.")
    return client


#: Providers that did not answer, and until when they are not asked again: each question costs a thread some seconds.
_silent: dict[str, float] = {}
SILENCE_SECONDS = 10


#: Seconds that all requests of one step of a sign-in may take together.
CONVERSATION_SECONDS = 10
#: Some threads stay free for everything else while providers are waited for.
_conversations = threading.BoundedSemaphore(max(1, settings.WEB_THREADS - 2))


@contextmanager
def _conversation(client: Any) -> Iterator[None]:
    """Talk to a provider. ConnectionError where it did not answer just now, or too many threads wait already."""
    if time.monotonic() < _silent.get(client.name, 0):
        raise ConnectionError("It did not answer just now.")
    if not _conversations.acquire(blocking=False):
        raise ConnectionError("Too many sign-ins are waiting for a provider.")
    try:
        with deadline(CONVERSATION_SECONDS):
            yield
    except TimeoutError:
        _silent[client.name] = time.monotonic() + SILENCE_SECONDS
        raise
    finally:
        _conversations.release()


def _load_metadata(client: Any) -> None:
    if "_loaded_at" not in client.server_metadata:
        try:
            with _conversation(client):
                client.load_server_metadata()
        except (requests.ConnectionError, requests.Timeout):
            _silent[client.name] = time.monotonic() + SILENCE_SECONDS
            raise
    metadata = client.server_metadata
    if missing := [name for name in ENDPOINTS if not isinstance(metadata.get(name), str)]:
        raise ValueError(f"The discovery document lacks {missing}.")
    offered = metadata.get("id_token_signing_alg_values_supported") or ["RS256"]
    client.server_metadata = {
        name: metadata[name] for name in (*ENDPOINTS, *OPTIONAL_METADATA) if metadata.get(name) is not None
    } | {"id_token_signing_alg_values_supported": [name for name in ALGORITHMS if name in offered]}


class ProviderView(PublicView):
    """A step of a browser on its way to the provider and back."""

    error_media_types = ("text/html",)

    def failed(self, provider: str, error: Exception, status: int, detail: str) -> HttpResponseBase:
        # Its kind alone: what a provider says may quote secrets of the sign-in.
        address = settings.OAUTH_PROVIDERS[provider]["server_metadata_url"]
        logger.warning("Sign-in through %s (%s) failed: %s %s", provider, address, type(error).__name__, _code(error))
        if not isinstance(error, (OAuthError, ValidationError)):  # which is the browser's fault, or the person's
            _registry.cache_clear()  # whatever it told us before is asked for again: it may have been mended since
        return problem_page(status, detail, title=FAILED)


class OAuthLoginView(ProviderView):
    error_statuses = (502,)

    @extend_schema(
        operation_id="auth_oauth_login",
        parameters=[OpenApiParameter("next", str, description="Path of this service to end at.")],
        responses={302: OpenApiResponse(description="To the provider.")},
    )
    def get(self, request: Request, provider: str) -> HttpResponseBase:
        """Sign a browser in through an OpenID Connect provider: redirects to its page."""
        client = _client(provider)
        _forget_abandoned(request._request)
        wanted = request.query_params.get("next", "")
        request._request.session[NEXT] = wanted if len(wanted) <= LONGEST_NEXT else ""
        callback = settings.APP_URL + reverse("oauth-callback", kwargs={"provider": provider})
        try:
            _load_metadata(client)
            return client.authorize_redirect(request._request, callback)
        except Exception as error:  # there is no end to what a provider may answer
            return self.failed(provider, error, 502, f"The provider {provider} does not answer as it should.")

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
        """Where the provider sends the browser back to."""
        client = _client(provider)
        try:
            person = _claims(client, request._request)
        except Exception as error:
            record_event("oauth_login", None, "failure")
            return self.failed(provider, error, 400, _reason(provider, request, error))
        with context.record_as("oauth_login", by_owner=True):
            try:
                user = User.objects.get_or_create_from_claims(provider, person)
            except ValidationError as error:
                record_event("oauth_login", (getattr(error, "params", None) or {}).get("user_id"), "failure")
                return self.failed(provider, error, 403, error.messages[0])
            wanted = request._request.session.pop(NEXT, "")
            login(request._request, user)
        is_ours = url_has_allowed_host_and_scheme(wanted, allowed_hosts=None)
        return HttpResponseRedirect(wanted if is_ours else resolve_url(settings.LOGIN_REDIRECT_URL))

    def check_parameters(self, request: Request) -> None:
        pass  # the provider's, who may add what it likes (RFC 6749, section 4.1.2)


def _claims(client: Any, request: HttpRequest) -> Claims:
    """What the provider says of the person, in an ID token that was signed by it, for us, and for this sign-in."""
    state = request.GET.get("state", "")
    if client.framework.get_state_data(request.session, state) is None:
        raise MismatchingStateError  # before the provider is asked anything: anybody may come here
    _load_metadata(client)
    issuer = client.server_metadata["issuer"]
    checked = {"iss": {"essential": True, "value": issuer}, "aud": {"essential": True, "value": client.client_id}}
    with _conversation(client):
        token = client.authorize_access_token(request, claims_options=checked)
        claims = dict(token["userinfo"])
        if not claims.get("email") and client.server_metadata.get("userinfo_endpoint"):
            # Many put into the ID token no more than they must (OpenID Connect Core, section 5.4).
            told = client.userinfo(token=token)
            if told.get("sub") == claims["sub"]:
                claims = {**told, **{name: value for name, value in claims.items() if value}}
    return Claims(claims)


def _code(error: Exception) -> str:
    """The error code that OAuth has for it (RFC 6749), where that is what it is."""
    code = str(getattr(error, "error", ""))
    return code if re.fullmatch("[a-z_]{1,40}", code) else ""


def _reason(provider: str, request: Request, error: Exception) -> str:
    if request.query_params.get("error") == "access_denied":
        return f"You did not allow {provider} to sign you in. Nothing was changed."
    if getattr(error, "error", "") == "mismatching_state":
        return "This sign-in was begun elsewhere, too long ago, or finished already. Please begin again."
    return f"The provider {provider} did not confirm who you are. Please try again."


def _forget_abandoned(request: HttpRequest) -> None:
    states = [key for key in dict(request.session) if key.startswith("_state_")]
    for key in sorted(states, key=lambda key: request.session[key].get("exp", 0))[: -UNDER_WAY + 1]:
        del request.session[key]
