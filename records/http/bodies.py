"""Requests with a body that the server could not read, which must not be treated as empty."""

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse

from records.http.problems import problem_response

#: Key of the WSGI environ under which the server stores an UnreadBodyError.
UNREAD_BODY = "records.unread_body"


class UnreadBodyError(Exception):
    """The body was too large, too slow or incomplete. Has the status and detail of the response."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status, self.detail = status, detail


class UnreadBodyMiddleware:
    """Refuse requests with a body that the server could not read."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        error: UnreadBodyError | None = request.META.get(UNREAD_BODY)
        if error is None:
            return self.get_response(request)
        # In HTTP/1 the rest of the body would be read as the next request. HTTP/2 has streams.
        headers = {"Connection": "close"} if request.META["SERVER_PROTOCOL"].startswith("HTTP/1") else {}
        return problem_response(request, error.status, error.detail, headers)
