"""OpenID Connect providers, from the environment."""

import os
import re

from django.core.exceptions import ImproperlyConfigured

from config import addresses
from config.env import env

KEYS = ("CLIENT_ID", "CLIENT_SECRET", "DISCOVERY_URL")
_NAME = re.compile(rf"OAUTH_([A-Z0-9]+(?:_[A-Z0-9]+)*)_({'|'.join(KEYS)})")
_SIMILAR = re.compile(rf"OAUTH_(.*)_({'|'.join(KEYS)})", re.IGNORECASE)


def providers() -> dict[str, dict[str, str]]:
    """Return the options of each provider by its name: `OAUTH_GOOGLE_CLIENT_ID` belongs to "google"."""
    for name in os.environ:
        match = _SIMILAR.fullmatch(name)
        if match and (not _NAME.fullmatch(name) or len(match[1]) > 50):
            raise ImproperlyConfigured(f"{name} names no provider: expected capitals, digits and single underscores.")
    variables = {
        match[0]: match[1] for name in os.environ if (match := _NAME.fullmatch(name)) and env.str(name, default="")
    }
    return {
        provider.lower().replace("_", "-"): _options(provider, variables) for provider in sorted({*variables.values()})
    }


def _options(provider: str, variables: dict[str, str]) -> dict[str, str]:
    if missing := [name for key in KEYS if (name := f"OAUTH_{provider}_{key}") not in variables]:
        raise ImproperlyConfigured(f"{' and '.join(missing)} must be set too: a provider needs all three.")
    client_id, client_secret, url = (env.line(f"OAUTH_{provider}_{key}") for key in KEYS)
    addresses.discovery_url(f"OAUTH_{provider}_DISCOVERY_URL", url)
    return {"client_id": client_id, "client_secret": client_secret, "server_metadata_url": url}
