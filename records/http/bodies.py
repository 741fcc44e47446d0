"""Requests whose body the server could not read: refused before any view takes the body for an empty one."""

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse

from records.http.problems import problem_response

#: WSGI environ key under which the server reports that it did not read the body.
UNREAD_BODY = "records.unread_body"


class UnreadBodyError(Exception):
    """The body was too large, too slow or incomplete; status and detail are those of the answer."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status, self.detail = status, detail


class UnreadBodyMiddleware:
    """Answer requests whose body the server did not read."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        error: UnreadBodyError | None = request.META.get(UNREAD_BODY)
        if error is None:
            return self.get_response(request)
        # The rest of the body is still on its way, and would be read as the next request. HTTP/2 has streams for that.
        headers = {"Connection": "close"} if request.META["SERVER_PROTOCOL"].startswith("HTTP/1") else {}
        return problem_response(request, error.status, error.detail, headers)
