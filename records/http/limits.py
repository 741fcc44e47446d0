"""Bounds on a request, checked before anything reads it, so that its cost stays in proportion to its size."""

import re
from collections.abc import Callable

from django.conf import settings
from django.core.handlers.wsgi import get_str_from_wsgi
from django.http import HttpRequest, HttpResponse

from records.http.problems import problem_response

LONGEST_URL = 8 * 1024
LONGEST_HEADERS = 32 * 1024
MOST_PARAMETERS = 100
METHODS = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"

_COOKIE_ESCAPE = re.compile(r"\\(?:([0-3][0-7][0-7])|(.))")


class RequestLimitMiddleware:
    """Refuses TRACE, and URLs, headers and bodies that are larger than any request of ours needs."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if refusal := _refusal(request):
            return refusal
        if "\\" in request.META.get("HTTP_COOKIE", ""):
            request.COOKIES = parse_cookies(get_str_from_wsgi(request.META, "HTTP_COOKIE", ""))
        return self.get_response(request)


def _refusal(request: HttpRequest) -> HttpResponse | None:
    meta = request.META
    query = meta.get("QUERY_STRING", "")
    if request.method == "TRACE":
        return problem_response(request, 405, 'Method "TRACE" not allowed.', {"Allow": METHODS})
    # Quoting makes at most 12 characters of one.
    if 12 * len(request.path + query) > LONGEST_URL and len(request.get_full_path()) > LONGEST_URL:
        return problem_response(request, 414, f"The URL is longer than {LONGEST_URL // 1024} KiB.")
    if sum(len(name) + len(value) for name, value in meta.items() if name.startswith("HTTP_")) > LONGEST_HEADERS:
        return problem_response(request, 431, f"The headers are longer than {LONGEST_HEADERS // 1024} KiB.")
    if query.count("&") >= MOST_PARAMETERS:
        return problem_response(request, 400, f"The URL has more than {MOST_PARAMETERS} parameters.")
    if not request.path.startswith("/api/v1/") and _body_length(request) > settings.DATA_UPLOAD_MAX_MEMORY_SIZE:
        # The API's views check their own. Django would read uploads of any size to look for a CSRF token.
        return problem_response(request, 413, "The request body is larger than 1 MiB.")
    return None


def _body_length(request: HttpRequest) -> int:
    length = request.META.get("CONTENT_LENGTH") or "0"
    return int(length[:19]) if length.isascii() and length.isdecimal() else 0


def parse_cookies(header: str) -> dict[str, str]:
    """Return the cookies as Django does, in linear time.

    Django unquotes by `http.cookies`, which takes quadratic time before Python 3.11.10 and 3.12.6 (CVE-2024-7592):
    2 s for 32 KiB of backslashes.
    """
    cookies = {}
    for chunk in header.split(";"):
        name, separator, value = chunk.partition("=")
        name, value = (name.strip(), value.strip()) if separator else ("", name.strip())
        if name or value:
            cookies[name] = _unquote(value)
    return cookies


def _unquote(value: str) -> str:
    if len(value) < 2 or value[0] != '"' or value[-1] != '"':
        return value
    return _COOKIE_ESCAPE.sub(lambda match: chr(int(match[1], 8)) if match[1] else match[2], value[1:-1])
