from typing import Any, ClassVar

from django.conf import settings
from django.contrib.auth import authenticate
from django.db import transaction
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import status
from rest_framework.decorators import action
from rest_framework.exceptions import AuthenticationFailed, PermissionDenied, ValidationError
from rest_framework.parsers import FormParser, MultiPartParser
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.reverse import reverse

from records.rest.pagination import RowCount, chosen_fields
from records.rest.parsers import StrictJSONParser
from records.rest.serializers import columns, rows, serializer_for
from records.rest.views import SoftDeletableViewSet, StrictView
from users.filters import UserFilterSet
from users.mail import send_verification
from users.models import Session, User
from users.serializers import (
    LoginSerializer,
    NewUserSerializer,
    RegistrationSerializer,
    TokenSerializer,
    TokensSerializer,
    UserSerializer,
)
from users.tokens import access_token, user_to_verify

STOCKS_SHOWN = 100


class UserViewSet(SoftDeletableViewSet):
    queryset = User.objects.all()
    serializer_class = UserSerializer
    filterset_class = UserFilterSet
    search_fields = ("username", "email", "name")
    sort_fields = ("id", "username", "email", "name", "age", "created_at")
    owner_actions = frozenset({"update", "partial_update"})
    action_parameters: ClassVar[dict[str, frozenset[str]]] = {
        "destroy": frozenset({"reason", "permanent"}),
        "me": frozenset({"fields"}),
    }
    put_replaces = False

    def get_serializer_class(self) -> type[UserSerializer]:
        return NewUserSerializer if self.action == "create" else UserSerializer

    def check_object_permissions(self, request: Request, obj: User) -> None:
        super().check_object_permissions(request, obj)
        if obj.is_superuser and obj != request.user and not request.user.is_superuser:
            raise PermissionDenied("Only a superuser may change a superuser.")

    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Show one user, with the first 100 of their stocks by id."""
        own = list(columns(UserSerializer))
        names = chosen_fields(request.query_params, UserSerializer, extra=("stocks", "stocks_total"))
        user_id = self.row_id()
        wanted = own if names is None else [name for name in names if name in own]
        row = self.row(self.get_queryset().filter(pk=user_id), wanted or ["id"])
        if names is None or {"stocks", "stocks_total"} & set(names):
            row |= self._holdings(user_id)
        return Response(row if names is None else {name: row[name] for name in names})

    def _holdings(self, user_id: int) -> dict[str, Any]:
        model: Any = User._meta.get_field("stocks").related_model
        holdings = model.objects.visible_to(self.request.user).filter(owner_id=user_id)
        serializer_class = serializer_for(model)
        selected = rows(holdings.order_by("id"), serializer_class).annotate(stocks_total=RowCount(holdings))
        stocks = list(selected.values(*columns(serializer_class), "stocks_total")[:STOCKS_SHOWN])
        totals = [stock.pop("stocks_total") for stock in stocks]
        return {"stocks": stocks, "stocks_total": totals[0] if totals else 0}

    @extend_schema(
        parameters=[
            OpenApiParameter("reason", str, description="Why; kept with the deleted row (≤ 200 characters)."),
            OpenApiParameter("permanent", bool, description="Superusers only: remove the rows for good."),
        ]
    )
    def destroy(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Delete a user, and with them their stocks."""
        permanent = request.query_params.get("permanent", "false").lower()
        if permanent not in {"true", "false"}:
            raise ValidationError({"permanent": ["Must be true or false."]})
        if permanent == "false":
            return super().destroy(request, *args, **kwargs)
        with transaction.atomic():
            user = self.locked(User.all_objects.visible_to(request.user))
            if not request.user.is_superuser:
                raise PermissionDenied("Only a superuser may remove a user for good.")
            User.all_objects.filter(pk=user.pk).purge()
        return Response(status=status.HTTP_204_NO_CONTENT)

    @extend_schema(methods=["PUT", "PATCH"], request=UserSerializer)
    @action(detail=False, methods=["get", "put", "patch"])
    def me(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Show or change the caller's own row."""
        self.kwargs["id"] = str(request.user.pk)
        own = User.objects.filter(pk=request.user.pk)
        if request.method in {"PUT", "PATCH"}:
            return self._change(own, partial=True)
        return Response(self.row(own, chosen_fields(request.query_params, UserSerializer)))


class PublicView(StrictView):
    """For callers who have no account yet, or do not say so."""

    authentication_classes = ()
    permission_classes = (AllowAny,)

    def get_authenticate_header(self, request: Request) -> str:
        return "Bearer"  # without one, DRF would call a wrong password forbidden


class RegisterView(PublicView):
    @extend_schema(request=RegistrationSerializer, responses={201: UserSerializer}, operation_id="auth_register")
    def post(self, request: Request) -> Response:
        """Make an account."""
        serializer = RegistrationSerializer(data=request.data, context={"request": request})
        serializer.is_valid(raise_exception=True)
        user = serializer.save()
        transaction.on_commit(lambda: send_verification(user))
        [row] = rows(User.objects.filter(pk=user.pk), UserSerializer)
        location = reverse("user-detail", kwargs={"id": user.pk})
        return Response(row, status=status.HTTP_201_CREATED, headers={"Location": location})


class VerifyEmailView(PublicView):
    @extend_schema(request=TokenSerializer, responses={204: None}, operation_id="auth_verify_email")
    def post(self, request: Request) -> Response:
        """Confirm an e-mail address by the token that was sent to it."""
        serializer = TokenSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        user = user_to_verify(serializer.validated_data["token"])
        if user is None:
            raise ValidationError({"token": ["This token is invalid, used or expired."]})
        user.is_verified = True
        user.save()
        return Response(status=status.HTTP_204_NO_CONTENT)


class LoginView(PublicView):
    error_statuses = (401,)
    parser_classes = (StrictJSONParser, FormParser, MultiPartParser)

    @extend_schema(request=LoginSerializer, responses=TokensSerializer, operation_id="auth_login")
    def post(self, request: Request) -> Response:
        """Sign in on this device."""
        serializer = LoginSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        user = authenticate(request._request, **serializer.validated_data)
        if user is None:
            raise AuthenticationFailed("Wrong username or password.")
        session, refresh_token = Session.objects.start(user, request)
        return Response(
            {
                "access_token": access_token(session),
                "refresh_token": refresh_token,
                "token_type": "bearer",
                "expires_in": int(settings.ACCESS_TOKEN_LIFETIME.total_seconds()),
            },
            headers={"Cache-Control": "no-store"},
        )
