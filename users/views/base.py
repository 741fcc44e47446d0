"""Base views of the account endpoints."""

from typing import Any

from rest_framework.permissions import AllowAny
from rest_framework.request import Request

from records.rest.serializers import StrictSerializer
from records.rest.views import StrictView
from users.models import User


class AccountView(StrictView):
    """Base of the account endpoints, whose request body is one flat object."""

    serializer_class: type[StrictSerializer] = StrictSerializer

    @property
    def user(self) -> User:
        request: Any = self.request
        user: User = request.user
        return user

    def get_serializer_class(self, request: Request) -> type[StrictSerializer]:
        return self.serializer_class

    def body(self, request: Request) -> dict[str, Any]:
        serializer = self.get_serializer_class(request)(data=request.data)
        serializer.is_valid(raise_exception=True)
        validated: dict[str, Any] = serializer.validated_data
        return validated


class PublicView(AccountView):
    """Base of the endpoints that need no authentication."""

    authentication_classes = ()
    permission_classes = (AllowAny,)

    def get_authenticate_header(self, request: Request) -> str:
        return "Bearer"  # without it, DRF would return 403 instead of 401
