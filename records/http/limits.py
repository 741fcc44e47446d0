"""Limits of a request, checked before anything reads it."""

import re
from collections.abc import Callable

from django.conf import settings
from django.core.handlers.wsgi import get_str_from_wsgi
from django.http import HttpRequest, HttpResponse

from records.http.problems import problem_response

MAX_URL_BYTES = 8 * 1024
MAX_HEADER_BYTES = 32 * 1024
MAX_PARAMETERS = 100
BODY_TOO_LARGE = "The request body is larger than 1 MiB."
METHODS = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"

_COOKIE_ESCAPE = re.compile(r"\\(?:([0-3][0-7][0-7])|(.))")


class RequestLimitMiddleware:
    """Refuse TRACE, and URLs, headers and bodies that are larger than any valid request.

    This is the one check of the size of bodies. Servers and WSGI adapters read at most one byte more than the limit of
    a body without a Content-Length, and pass its length on.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if refusal := _target_refusal(request) or _body_refusal(request):
            return refusal
        if "\\" in request.META.get("HTTP_COOKIE", ""):
            request.COOKIES = parse_cookies(get_str_from_wsgi(request.META, "HTTP_COOKIE", ""))
        return self.get_response(request)


def _target_refusal(request: HttpRequest) -> HttpResponse | None:
    query = request.META.get("QUERY_STRING", "")
    if request.method == "TRACE":
        return problem_response(request, 405, 'Method "TRACE" not allowed.', {"Allow": METHODS})
    # Quoting turns one character into at most 12.
    if 12 * len(request.path + query) > MAX_URL_BYTES and len(request.get_full_path()) > MAX_URL_BYTES:
        return problem_response(request, 414, f"The URL is longer than {MAX_URL_BYTES // 1024} KiB.")
    headers = (item for item in request.META.items() if item[0].startswith("HTTP_"))
    if sum(len(name) + len(value) for name, value in headers) > MAX_HEADER_BYTES:
        return problem_response(request, 431, f"The headers are longer than {MAX_HEADER_BYTES // 1024} KiB.")
    if query.count("&") >= MAX_PARAMETERS:
        return problem_response(request, 400, f"The URL has more than {MAX_PARAMETERS} parameters.")
    return None


def _body_refusal(request: HttpRequest) -> HttpResponse | None:
    length = request.META.get("CONTENT_LENGTH") or "0"
    if not length.isascii() or not length.isdecimal():
        return problem_response(request, 400, "The Content-Length is not a number.")
    if len(length) > 18 or int(length) > settings.DATA_UPLOAD_MAX_MEMORY_SIZE:
        return problem_response(request, 413, BODY_TOO_LARGE)
    return None


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
