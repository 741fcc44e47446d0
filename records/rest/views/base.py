"""Base views of the API."""

from typing import Any

from django.db import Error
from rest_framework.exceptions import NotFound, ValidationError
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.settings import api_settings
from rest_framework.views import APIView

from records.http.hints import MAX_HINTS, did_you_mean, excerpt

#: The parameter of every view by which a client selects a renderer.
FORMAT = str(api_settings.URL_FORMAT_OVERRIDE)


class StrictMixin:
    """Refuse unknown query parameters, and count every request for the rate limits."""

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)  # type: ignore[misc]
        self.check_parameters(request)

    def perform_authentication(self, request: Request) -> None:
        """Authenticate the request and check the throttles.

        DRF checks them after authentication and permissions, so that requests with an invalid token, or without a
        permission, would never be counted.
        """
        request._request.rate_limit = {}  # type: ignore[attr-defined]
        try:
            super().perform_authentication(request)  # type: ignore[misc]
        except Error:
            raise  # the throttles would query the database for the user again
        except Exception:
            super().check_throttles(request)  # type: ignore[misc]
            raise
        super().check_throttles(request)  # type: ignore[misc]

    def check_throttles(self, request: Request) -> None:
        pass  # checked by perform_authentication

    def finalize_response(self, request: Request, response: Any, *args: Any, **kwargs: Any) -> Any:
        response = super().finalize_response(request, response, *args, **kwargs)  # type: ignore[misc]
        response.headers.setdefault("Cache-Control", "no-store")  # responses may hold personal data
        return response

    def known_parameters(self) -> frozenset[str]:
        """Return the names of the query parameters that the current action accepts."""
        return frozenset()

    def check_parameters(self, request: Request) -> None:
        if not hasattr(self, str(request.method).lower()):
            return  # the response will be 405
        known = self.known_parameters() | {FORMAT}
        errors: dict[str, list[str]] = {}
        for name, values in request.query_params.lists():
            if name not in known:
                hint = did_you_mean(name, known) if len(errors) < MAX_HINTS else ""
                errors[excerpt(name)] = [f"Unknown parameter '{excerpt(name)}'.{hint}"]
            elif message := _value_error(name, values):
                errors[name] = [message]
        if errors:
            raise ValidationError(errors)


def _value_error(name: str, values: list[str]) -> str:
    if len(values) > 1:
        return "This parameter is given twice."
    if name == FORMAT and not values[0]:
        return "This value may not be empty."
    # Django decodes invalid UTF-8 as the replacement character.
    if "\0" in values[0] or "\N{REPLACEMENT CHARACTER}" in values[0]:
        return "This value is not valid text (UTF-8 without NUL)."
    return ""


class StrictView(StrictMixin, APIView):
    """A view that is not a resource."""


class UnknownPathView(StrictView):
    """The response to every path under /api that does not exist."""

    authentication_classes = ()
    permission_classes = (AllowAny,)
    schema = None

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        self.format_kwarg = None
        request.accepted_renderer, request.accepted_media_type = self.perform_content_negotiation(request, force=True)
        raise NotFound("There is nothing at this address.")

    def http_method_not_allowed(self, request: Any, *args: Any, **kwargs: Any) -> Response:
        raise NotFound("There is nothing at this address.")
