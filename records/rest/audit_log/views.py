"""The audit log's API."""

from typing import Any, ClassVar

from django.db.models import QuerySet
from drf_spectacular.utils import OpenApiExample, extend_schema
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from records import context
from records.audit.models import AuditEntry
from records.audit.reversal import CHANGES, IRREVERSIBLE
from records.audit.undo import undo
from records.exceptions import ConflictError
from records.rest.audit_log.filters import AuditEntryFilterSet
from records.rest.audit_log.names import api_names_of_type
from records.rest.audit_log.serializers import AuditEntrySerializer
from records.rest.fields import BigIntegerField
from records.rest.permissions import RecordPermission
from records.rest.serializers import StrictSerializer
from records.rest.views import ReadOnlyViewSet, not_found, parse_id


class AuditPermission(RecordPermission):
    """Staff with view permission read the audit log, and with change permission undo its entries."""

    def has_permission(self, request: Any, view: Any) -> bool:
        if not super().has_permission(request, view):
            return False
        # `action` is None for methods that are not allowed, which get 405.
        return view.detail or view.action is None or request.user.may("view", AuditEntry)


class UndoRequestSerializer(StrictSerializer):
    request_id = serializers.CharField(max_length=64, help_text="`request_id` of the entries to undo.")
    user_id = BigIntegerField(
        required=False, allow_null=True, help_text="Who did it; needed only where several people used the same id."
    )


class UndoneSerializer(StrictSerializer):
    undone = serializers.IntegerField(help_text="Number of rows that were restored to their state before the change.")
    request_id = serializers.CharField(help_text="The id of this request, by which the undoing can be undone.")


class AuditEntryViewSet(ReadOnlyViewSet):
    """The audit log."""

    queryset = AuditEntry.objects.all()
    serializer_class = AuditEntrySerializer
    filterset_class = AuditEntryFilterSet
    permission_classes: Any = (AuditPermission,)
    error_statuses: tuple[int, ...] = (403,)
    sort_fields = ("id",)
    default_sort = "-id"
    required_columns: ClassVar[tuple[str, ...]] = ("object_type", "user_id")

    def get_queryset(self) -> QuerySet[Any]:
        if getattr(self, "swagger_fake_view", False):
            return AuditEntry.objects.none()
        visible: QuerySet[Any] = self.live_rows().visible_to(self.request.user)
        return visible

    def required_verb(self) -> str | None:
        return "change" if self.action in {"undo", "undo_request"} else None

    def format_row(self, row: dict[str, Any]) -> None:
        """Use the types and names of the resource that the entry is about."""
        if (row.get("object_id") or "").isdecimal():
            row["object_id"] = int(row["object_id"])
        if row.get("changes"):
            names = api_names_of_type(row["object_type"])
            row["changes"] = {
                names.get(name, name): change for name, change in row["changes"].items() if name != "deletion"
            }

    @extend_schema(request=None, responses=UndoneSerializer, operation_id="admin_audit_logs_undo_entry")
    @action(detail=True, methods=["post"])
    def undo(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Undo the change of one entry.

        The undo is a new change, with its own entry, and can be undone too. It deletes a created row with all that
        belongs to it, and restores a deleted row with all that was deleted with it. 409 names the fields that have
        changed since.
        """
        StrictSerializer(data=request.data).is_valid(raise_exception=True)
        return self._undo(AuditEntry.objects.filter(pk=self.get_object().pk))

    @extend_schema(
        request=UndoRequestSerializer,
        operation_id="admin_audit_logs_undo_request",
        responses=UndoneSerializer,
        examples=[OpenApiExample("one request", {"request_id": "57aa540a-4823-4d1b-bf5d-2efe27ea4db8"})],
    )
    @action(detail=False, methods=["post"], url_path="undo", serializer_class=UndoRequestSerializer)
    def undo_request(self, request: Request) -> Response:
        """Undo all changes of one request, or none.

        409 names the rows, and their fields, that have changed since.
        """
        serializer = UndoRequestSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        entries = AuditEntry.objects.filter(**serializer.validated_data)
        if not entries.exists():
            raise ValidationError({"request_id": ["The audit log has no entries of this request."]})
        changing = entries.filter(outcome=AuditEntry.Outcome.SUCCESS, action__in=CHANGES | IRREVERSIBLE.keys())
        user_ids = set(changing.values_list("user_id", flat=True))
        if len(user_ids) > 1:
            # Clients choose their request ids, so that several users may have sent the same one.
            named = ", ".join(sorted(str(user_id or "null") for user_id in user_ids))
            raise ConflictError(f"Several people used this id: name one of them, by user_id ({named}).")
        return self._undo(entries)

    def _undo(self, entries: QuerySet[Any]) -> Response:
        return Response({"undone": undo(entries, self.request.user), "request_id": context.request_id()})


#: Columns that only users who may see deleted rows may see.
DELETION_DETAILS = {"deleted_by", "deletion_reason"}


class HistoryViewSet(AuditEntryViewSet):
    """The entries about one row of a resource, for users who may see the row."""

    permission_classes: Any = (RecordPermission,)
    error_statuses = ()
    #: The viewset of that resource.
    resource: ClassVar[Any] = None

    @property
    def path_model(self) -> Any:
        """The model of the id in the path, for OpenAPI."""
        return self.resource.queryset.model

    def initial(self, request: Any, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        if self.action is None:
            return  # the method is not allowed
        model = self.resource.queryset.model
        self.row_key = parse_id(model, kwargs["id"])
        self.may_view_audit_log = request.user.may("view", AuditEntry)
        self.may_view_rows = self.may_view_audit_log or request.user.may("view", model)
        rows = model.all_objects if request.user.may("view", model) else model.objects
        owner = rows.visible_to(request.user).filter(pk=self.row_key).values_list(model.owned_by or "pk").first()
        if owner is None:
            raise not_found(model, kwargs["id"])
        [self.owner_id] = owner

    def known_parameters(self) -> frozenset[str]:
        # Filtering must not reveal the values of a hidden column.
        known = super().known_parameters()
        return known if self.request.user.may("view", AuditEntry) else known - {"request_id"}

    def may_see_deleted(self) -> bool:
        may_view: bool = self.request.user.may("view", self.resource.queryset.model)
        return may_view

    def get_queryset(self) -> QuerySet[Any]:
        if getattr(self, "swagger_fake_view", False):
            return AuditEntry.objects.none()
        model = self.resource.queryset.model
        entries: QuerySet[Any] = self.live_rows().of_row(model, self.row_key)
        if self.may_view_rows or model.owned_by in {None, model._meta.pk.attname}:
            return entries
        # Entries from before a change of owner belong to the former owner.
        return entries.filter(owner_id=self.owner_id)

    def format_row(self, row: dict[str, Any]) -> None:
        is_new_owner = self.resource.queryset.model.owned_by in (row.get("changes") or {})
        super().format_row(row)
        if is_new_owner and not self.may_view_rows:
            # The old values belong to the former owner.
            row["changes"] = {name: [None, new] for name, (_, new) in row["changes"].items()}
        if not self.may_view_audit_log:
            self._hide_details(row)

    def _hide_details(self, row: dict[str, Any]) -> None:
        if row["user_id"] != self.request.user.pk:
            # Address and request id are visible to the actor and to administrators only.
            row.update({name: None for name in ("ip", "request_id") if name in row})
        if row.get("changes") and not self.may_see_deleted():
            row["changes"] = {name: change for name, change in row["changes"].items() if name not in DELETION_DETAILS}
