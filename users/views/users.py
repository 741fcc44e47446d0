"""Users, for themselves and for staff."""

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from django.db import transaction
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import status
from rest_framework.decorators import action
from rest_framework.exceptions import APIException, PermissionDenied, ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from records.db.compiled import compiled_rows
from records.rest.checks import Candidate
from records.rest.columns import api_columns, select_columns, serializer_for
from records.rest.pagination import selected_fields
from records.rest.views import REASON_PARAMETER, SoftDeletableViewSet
from users.confirmation import confirmed_password_hash
from users.filters import UserFilterSet
from users.models import PROFILE, User
from users.models.managers import LAST_SUPERUSER_MESSAGE
from users.serializers import (
    ManyUsersSerializer,
    MeSerializer,
    NewUserSerializer,
    UserDetailSerializer,
    UserSerializer,
)

MAX_STOCKS = 100


class UserViewSet(SoftDeletableViewSet):
    queryset = User.objects.all()
    serializer_class = UserSerializer
    filterset_class = UserFilterSet
    search_fields = ("username", "email", "name")
    sort_fields = ("id", "username", "email", "name", "age", "created_at")
    owner_actions = frozenset({"update", "partial_update"})
    conditional_actions = SoftDeletableViewSet.conditional_actions | {"me"}
    action_parameters: ClassVar[dict[str, frozenset[str]]] = {
        "destroy": frozenset({"reason", "permanent"}),
        "bulk_destroy": frozenset({"reason"}),
        "me": frozenset({"fields"}),
    }
    put_replaces = False
    #: The password hash of a user who has proved to own their row.
    confirmed_password_hash: str | None = None

    def get_serializer_class(self) -> type[UserSerializer]:
        by_action: dict[Any, type[UserSerializer]] = {
            "create": NewUserSerializer,
            "bulk_update": ManyUsersSerializer,
            "me": MeSerializer,
        }
        return by_action.get(self.action, UserSerializer)

    def check_object_permissions(self, request: Request, obj: User) -> None:
        super().check_object_permissions(request, obj)
        for error in self._forbidden_users([obj]).values():
            raise error

    def perform_update(self, serializer: Any) -> None:
        user = serializer.instance
        changed = {name for name, value in serializer.validated_data.items() if getattr(user, name, None) != value}
        for error in self._forbidden_changes({user: changed}).values():
            raise error
        super().perform_update(serializer)

    def refused_rows(self, rows: list[User]) -> dict[Any, APIException]:
        refused = super().refused_rows(rows) | self._forbidden_users(rows)
        if self.action != "bulk_destroy":
            return refused
        deleted = [user.pk for user in rows if user.pk not in refused]
        return refused | self._last_superusers(deleted)

    def refused_changes(self, candidates: list[Candidate]) -> dict[Any, APIException]:
        changes = {candidate.row: set(filter(candidate.changes, candidate.sent)) for candidate in candidates}
        refused = self._forbidden_changes(changes)
        lost = [user.pk for user, names in changes.items() if user.pk not in refused and user.gives_up_rights(names)]
        return refused | self._last_superusers(lost)

    def _forbidden_users(self, users: list[User]) -> dict[Any, APIException]:
        is_update = self.action in {"update", "partial_update", "me", "bulk_update"}
        # For the columns that change, see `_forbidden_changes`.
        return self._forbidden(
            {user: PROFILE if is_update else () for user in users if user.is_superuser or not is_update}
        )

    def _forbidden_changes(self, changes: Mapping[User, set[str]]) -> dict[Any, APIException]:
        # The serializer requires a confirmation for changes of their own row.
        return self._forbidden(
            {user: names for user, names in changes.items() if user.pk != self.request.user.pk and names - PROFILE}
        )

    def _forbidden(self, changes: Mapping[User, Iterable[str]]) -> dict[Any, APIException]:
        """Return the key of each user whose columns the caller may not change, with the error."""
        names_by_key = {user.pk: names for user, names in changes.items()}
        keys = User.forbidden_keys(self.request.user, names_by_key) if changes else set()
        superuser = PermissionDenied("Only a superuser may change a superuser.")
        stronger = PermissionDenied("This person has permissions that you lack: you may change their profile only.")
        return {user.pk: superuser if user.is_superuser else stronger for user in changes if user.pk in keys}

    def _last_superusers(self, keys: list[Any]) -> dict[Any, APIException]:
        last = User.objects.last_superuser_of(keys) if keys else None
        return {last: ValidationError(LAST_SUPERUSER_MESSAGE)} if last is not None else {}

    @extend_schema(responses=UserDetailSerializer)
    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Show one user, with the first 100 of their stocks by id."""
        own = list(api_columns(UserSerializer))
        names = selected_fields(request.query_params, UserSerializer, extra=("stocks", "stocks_total"))
        user_id = self.row_id()
        selected = own if names is None else [name for name in names if name in own]
        row = self.get_row(self.get_queryset().filter(pk=user_id), selected or ["id"])
        if names is None or {"stocks", "stocks_total"} & set(names):
            row |= self._holdings(user_id)
        return self.row_response(row if names is None else {name: row[name] for name in names})

    def current_row(self, row: User) -> dict[str, Any]:
        current = super().current_row(row)
        return current if self.action == "me" else current | self._holdings(row.pk)

    def _holdings(self, user_id: int) -> dict[str, Any]:
        model: Any = User._meta.get_field("stocks").related_model
        holdings = compiled_rows(model.objects).visible_to(self.request.user).filter(owner_id=user_id)
        stocks = list(select_columns(holdings.order_by("id"), serializer_for(model))[:MAX_STOCKS])
        return {"stocks": stocks, "stocks_total": len(stocks) if len(stocks) < MAX_STOCKS else holdings.count()}

    @extend_schema(
        parameters=[
            REASON_PARAMETER,
            OpenApiParameter("permanent", bool, description="Superusers only: remove the rows permanently."),
        ]
    )
    def destroy(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Delete a user and their stocks."""
        permanent = request.query_params.get("permanent", "false").lower()
        if permanent not in {"true", "false"}:
            raise ValidationError({"permanent": ["Must be true or false."]})
        if permanent == "false":
            return super().destroy(request, *args, **kwargs)
        with transaction.atomic():
            user = self.lock_row(User.all_objects.visible_to(request.user))
            if not request.user.is_superuser:
                raise PermissionDenied("Only a superuser may remove a user for good.")
            User.all_objects.filter(pk=user.pk).purge()
        return Response(status=status.HTTP_204_NO_CONTENT)

    def prepare_write(self) -> None:
        is_own = self.action == "me" or (self.action in {"update", "partial_update"} and self.is_own_row())
        if is_own:
            self.confirmed_password_hash = confirmed_password_hash(self.request)

    def is_own_row(self) -> bool:
        return bool(self.row_id() == self.request.user.pk)

    def get_serializer_context(self) -> dict[str, Any]:
        return {**super().get_serializer_context(), "confirmed_password_hash": self.confirmed_password_hash}

    @extend_schema(methods=["PUT", "PATCH"], request=MeSerializer)
    @action(detail=False, methods=["get", "put", "patch"])
    def me(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Show or change your own row."""
        self.kwargs["id"] = str(request.user.pk)
        own = self.live_rows().filter(pk=request.user.pk)
        if request.method in {"PUT", "PATCH"}:
            return self.update_row(own, partial=True)
        return self.row_response(self.get_row(own, selected_fields(request.query_params, MeSerializer)))
