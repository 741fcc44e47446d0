"""Sessions of the current user."""

from typing import Any

from django.db.models import BooleanField, ExpressionWrapper, Q, QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework import status
from rest_framework.request import Request
from rest_framework.response import Response

from records.rest.views import RecordViewSet
from users.models import Session
from users.serializers import (
    SessionSerializer,
)


class SessionViewSet(RecordViewSet):
    """The devices on which the current user is signed in."""

    queryset = Session.objects.all()
    serializer_class = SessionSerializer
    sort_fields = ("id", "created_at", "refreshed_at")
    default_sort = "-created_at"
    has_safe_writes = False

    def get_queryset(self) -> QuerySet[Session]:
        if getattr(self, "swagger_fake_view", False):
            return Session.objects.none()
        current: Any = self.request.auth
        is_current = ExpressionWrapper(Q(pk=current.pk), BooleanField())
        return Session.objects.alive().visible_to(self.request.user).annotate(current=is_current)

    def perform_destroy(self, instance: Session) -> None:
        instance.sign_out()

    @extend_schema(responses={204: None}, operation_id="auth_sessions_end_all")
    def end_all(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Sign out on every device, this one included."""
        Session.objects.sign_out_user(self.request.user)
        return Response(status=status.HTTP_204_NO_CONTENT)
