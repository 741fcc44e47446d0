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
from records.rest.permissions import RecordPermission
from records.rest.serializers import BigIntegerField, StrictSerializer
from records.rest.views import ReadOnlyViewSet, not_found, typed_id


class AuditPermission(RecordPermission):
    """Staff with view permission read the log, with change permission they undo what it tells of."""

    def has_permission(self, request: Any, view: Any) -> bool:
        if not super().has_permission(request, view):
            return False
        # A method that is not allowed here is that for everybody.
        return view.detail or view.action is None or request.user.may("view", AuditEntry)


class UndoRequestSerializer(StrictSerializer):
    request_id = serializers.CharField(max_length=64, help_text="`request_id` of the entries to undo.")
    user_id = BigIntegerField(
        required=False, allow_null=True, help_text="Who did it; needed only where several people used the same id."
    )


class UndoneSerializer(StrictSerializer):
    undone = serializers.IntegerField(help_text="How many rows were put back.")
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
    helping_columns: ClassVar[tuple[str, ...]] = ("object_type", "user_id")

    def get_queryset(self) -> QuerySet:
        if getattr(self, "swagger_fake_view", False):
            return AuditEntry.objects.none()
        return AuditEntry.objects.visible_to(self.request.user)

    def verb(self) -> str | None:
        return "change" if self.action in {"undo", "undo_request"} else None

    def present(self, row: dict[str, Any]) -> None:
        """Ids and fields as the resource has them that the entry is about."""
        if (row.get("object_id") or "").isdecimal():
            row["object_id"] = int(row["object_id"])
        if row.get("changes"):
            names = api_names_of_type(row["object_type"])
            shown = {name: change for name, change in row["changes"].items() if name != "deletion"}
            row["changes"] = {names.get(name, name): change for name, change in shown.items()}

    @extend_schema(request=None, responses=UndoneSerializer, operation_id="admin_audit_logs_undo_entry")
    @action(detail=True, methods=["post"])
    def undo(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Put a row back to what it was before this entry.

        That is a new change, which has an entry of its own and can be undone too. Of a creation the row is deleted,
        with all that belongs to it; of a deletion restored, with what went with it. 409 names the fields that have
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
        """Put back every row that one request changed, all or none.

        409 names the rows, and their fields, that have changed since.
        """
        serializer = UndoRequestSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        entries = AuditEntry.objects.filter(**serializer.validated_data)
        if not entries.exists():
            raise ValidationError({"request_id": ["The log knows of no such request."]})
        changing = entries.filter(outcome=AuditEntry.Outcome.SUCCESS, action__in=CHANGES | IRREVERSIBLE.keys())
        people = set(changing.values_list("user_id", flat=True))
        if len(people) > 1:
            # Anybody may call their request what they like.
            named = ", ".join(sorted(str(person or "null") for person in people))
            raise ConflictError(f"Several people used this id: name one of them, by user_id ({named}).")
        return self._undo(entries)

    def _undo(self, entries: QuerySet) -> Response:
        return Response({"undone": undo(entries, self.request.user), "request_id": context.request_id()})


#: As in lists, for those only who may see deleted rows.
WHO_DELETED = {"deleted_by", "deletion_reason"}


class HistoryViewSet(AuditEntryViewSet):
    """The entries about one row of another resource, for whoever may see the row."""

    permission_classes: Any = (RecordPermission,)
    error_statuses = ()
    #: The viewset of that resource.
    resource: ClassVar[Any] = None

    @property
    def path_model(self) -> Any:
        """Whose id is in the path."""
        return self.resource.queryset.model

    def initial(self, request: Any, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        if self.action is None:
            return  # a method that is not allowed, whatever the row
        model = self.resource.queryset.model
        self.row_key = typed_id(model, kwargs["id"])
        self.sees_everything = request.user.may("view", AuditEntry)
        self.sees_owners = self.sees_everything or request.user.may("view", model)
        rows = model.all_objects if request.user.may("view", model) else model.objects
        found = rows.visible_to(request.user).filter(pk=self.row_key).values_list(model.owned_by or "pk").first()
        if found is None:
            raise not_found(model, kwargs["id"])
        [self.owner_id] = found

    def known_parameters(self) -> frozenset[str]:
        # What is not shown cannot be guessed by filtering either.
        known = super().known_parameters()
        return known if self.request.user.may("view", AuditEntry) else known - {"request_id"}

    def may_see_deleted(self) -> bool:
        return self.request.user.may("view", self.resource.queryset.model)

    def get_queryset(self) -> QuerySet:
        if getattr(self, "swagger_fake_view", False):
            return AuditEntry.objects.none()
        model = self.resource.queryset.model
        entries = AuditEntry.objects.of_row(model, self.row_key)
        if self.sees_owners or model.owned_by in {None, model._meta.pk.attname}:
            return entries
        # What was before a row had its present owner is its former owner's.
        return entries.filter(owner_id=self.owner_id)

    def present(self, row: dict[str, Any]) -> None:
        is_new_owner = self.resource.queryset.model.owned_by in (row.get("changes") or {})
        super().present(row)
        if is_new_owner and not self.sees_owners:
            # The values that the change of owner replaced are the former owner's too.
            row["changes"] = {name: [None, new] for name, (_, new) in row["changes"].items()}
        if self.sees_everything:
            return
        if row["user_id"] != self.request.user.pk:
            # Theirs to know, and the administrators': from where it was done, and what else with it.
            row.update({name: None for name in ("ip", "request_id") if name in row})
        if row.get("changes") and not self.may_see_deleted():
            row["changes"] = {name: each for name, each in row["changes"].items() if name not in WHO_DELETED}
