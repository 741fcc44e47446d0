"""Clients of OpenID Connect providers: the authorization code flow with PKCE, state and nonce, by Authlib."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import requests
from authlib.integrations.base_client.errors import MismatchingStateError
from authlib.integrations.django_client import OAuth
from django.conf import settings
from django.http import HttpRequest

from users.deadline import deadline
from users.oidc.bounded_session import BoundedApp
from users.oidc.claims import ProviderClaims

#: The metadata that is used. Other keys are dropped, because Authlib would take some of them for its settings.
ENDPOINTS = ("issuer", "authorization_endpoint", "token_endpoint", "jwks_uri")
OPTIONAL_METADATA = ("userinfo_endpoint", "token_endpoint_auth_methods_supported", "_loaded_at", "jwks")
#: Signature algorithms with a public key; "none" and shared secrets are refused.
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519")
#: Seconds that the requests to a provider in one step of a sign-in may take together.
EXCHANGE_SECONDS = 10
#: Seconds during which a provider that did not respond is not contacted, because each attempt blocks a thread.
PAUSE_SECONDS = 10

#: Name of a provider → the time, by time.monotonic(), until which it is not contacted.
_paused_until: dict[str, float] = {}


@cache
def registry() -> OAuth:
    clients = OAuth()
    for name, provider in settings.OAUTH_PROVIDERS.items():
        options = {"scope": "openid email profile", "code_challenge_method": "S256", "default_timeout": 5}
        clients.register(name, client_cls=BoundedApp, **provider, client_kwargs=options)
    return clients


@contextmanager
def exchange(client: Any) -> Iterator[None]:
    """Send requests to a provider within EXCHANGE_SECONDS; raise ConnectionError if it is paused."""
    if time.monotonic() < _paused_until.get(client.name, 0):
        raise ConnectionError("It did not respond a moment ago.")
    try:
        with deadline(EXCHANGE_SECONDS):
            yield
    except TimeoutError:
        _pause(client)
        raise


def _pause(client: Any) -> None:
    _paused_until[client.name] = time.monotonic() + PAUSE_SECONDS


def load_metadata(client: Any) -> None:
    """Load the discovery document of a provider once; raise ValueError if it lacks an endpoint."""
    if "_loaded_at" not in client.server_metadata:
        try:
            with exchange(client):
                client.load_server_metadata()
        except (requests.ConnectionError, requests.Timeout):
            _pause(client)
            raise
    client.server_metadata = _used_metadata(client.server_metadata)


def _used_metadata(metadata: dict[str, Any]) -> dict[str, Any]:
    """Return the entries that are used; Authlib would take others for settings of the client."""
    if missing := [name for name in ENDPOINTS if not isinstance(metadata.get(name), str)]:
        raise ValueError(f"The discovery document lacks {missing}.")
    offered = metadata.get("id_token_signing_alg_values_supported") or ["RS256"]
    return {name: metadata[name] for name in (*ENDPOINTS, *OPTIONAL_METADATA) if metadata.get(name) is not None} | {
        "id_token_signing_alg_values_supported": [name for name in ALGORITHMS if name in offered]
    }


def fetch_claims(client: Any, request: HttpRequest) -> ProviderClaims:
    """Return the claims of an ID token that the provider signed, for this service and for this sign-in."""
    state = request.GET.get("state", "")
    # Check the state before contacting the provider, because anyone may send this request.
    if client.framework.get_state_data(request.session, state) is None:
        raise MismatchingStateError
    load_metadata(client)
    issuer = client.server_metadata["issuer"]
    required = {"iss": {"essential": True, "value": issuer}, "aud": {"essential": True, "value": client.client_id}}
    with exchange(client):
        token = client.authorize_access_token(request, claims_options=required)
        claims = dict(token["userinfo"])
        if not claims.get("email") and client.server_metadata.get("userinfo_endpoint"):
            # Many providers put only the required claims into the ID token (OpenID Connect Core, section 5.4).
            additional = client.userinfo(token=token)
            if additional.get("sub") == claims["sub"]:
                claims = {**additional, **{name: value for name, value in claims.items() if value}}
    return ProviderClaims(claims)
