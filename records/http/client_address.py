"""The address of a client, behind any number of trusted proxies."""

import ipaddress
import re
from contextlib import suppress

from django.conf import settings
from django.http import HttpRequest


def client_address(request: HttpRequest) -> str | None:
    """Return the client's IP address; the last `TRUSTED_PROXIES` entries of X-Forwarded-For are trusted."""
    addresses = [request.META.get("REMOTE_ADDR") or ""]
    if settings.TRUSTED_PROXIES and (forwarded := request.META.get("HTTP_X_FORWARDED_FOR")):
        hops = forwarded.split(",")
        # Each proxy appends its peer, so entries are counted from the right: clients can forge those on the left.
        hop = hops[-min(settings.TRUSTED_PROXIES, len(hops))].strip()
        # Some proxies append the port: 192.0.2.7:4711, [2001:db8::7]:4711.
        addresses.insert(0, re.sub(r"^\[(.*)\](:\d+)?$|^([^:]*):\d+$", r"\1\3", hop))
    for address in addresses:
        with suppress(ValueError):
            parsed = ipaddress.ip_address(address)
            return str(getattr(parsed, "ipv4_mapped", None) or parsed)
    return None


def client_network(request: HttpRequest) -> str | None:
    """Return the network that rate limits count as one client: an IPv4 address or an IPv6 /64 (RFC 6177)."""
    address = client_address(request)
    return str(ipaddress.ip_network(f"{address}/64", strict=False)) if address and ":" in address else address
