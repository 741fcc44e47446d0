"""Viewsets of records. A resource declares its query set, serializer, filters, search and sort fields."""

from typing import Any, ClassVar

from django.conf import settings
from django.core.exceptions import ValidationError as ModelValidationError
from django.db import models, transaction
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import status
from rest_framework.decorators import action
from rest_framework.exceptions import NotFound, ParseError, ValidationError
from rest_framework.parsers import FormParser, MultiPartParser
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.reverse import reverse
from rest_framework.viewsets import GenericViewSet

from records.db.character_classes import JSON_SCHEMA_INVISIBLE
from records.db.compiled import compiled_rows
from records.db.expressions import AnyOf
from records.db.text import validate_line
from records.exceptions import ConflictError
from records.models import Record, SoftDeletable
from records.rest.bulk import BulkWrites
from records.rest.columns import api_columns, select_columns
from records.rest.filters import RecordFilterBackend, SearchBackend, groups_of_filters
from records.rest.identifiers import not_found, parse_id
from records.rest.pagination import RecordPagination, selected_fields
from records.rest.parsers import StrictJSONParser
from records.rest.permissions import VERBS, RecordPermission
from records.rest.serializers import RecordSerializer, StrictSerializer
from records.rest.views.base import StrictMixin
from records.rest.views.writes import SafeWriteMixin

MAX_REASON_LENGTH = 200
REASON_PARAMETER = OpenApiParameter(
    "reason",
    {"type": "string", "maxLength": MAX_REASON_LENGTH, "pattern": rf"^[^{JSON_SCHEMA_INVISIBLE}\ufffd]*$"},
    description="Why; kept with the deleted row.",
)


class ReadOnlyViewSet(SafeWriteMixin, StrictMixin, GenericViewSet[Any]):
    """List and retrieve the rows of one model."""

    request: Any
    paginator: Any
    serializer_class: type[RecordSerializer]
    filterset_class: ClassVar[Any] = None
    search_fields: ClassVar[tuple[str, ...]] = ()
    #: The search field, if it is the only one, has an index, and many rows have the same value.
    repeating_search_field: ClassVar[str | None] = None
    #: The groups of rows that a search has found.
    found_groups: Any = None
    sort_fields: ClassVar[tuple[str, ...]] = ("id",)
    #: `sort_by` of requests without it.
    default_sort: ClassVar[str | None] = None
    #: Actions that the owner of a row may take without a model permission.
    owner_actions: ClassVar[frozenset[str]] = frozenset({"create", "update", "partial_update", "destroy"})
    #: Columns that `format_row` needs, even if the request does not select them.
    required_columns: ClassVar[tuple[str, ...]] = ()
    #: The model of the id in the path of a list, if it lists only rows that belong to that row.
    path_model: Any = None
    #: Query parameters of single actions, except for `list` and `retrieve`.
    action_parameters: ClassVar[dict[str, frozenset[str]]] = {}
    #: Whether PUT sets fields that were not sent to their default.
    put_replaces: ClassVar[bool] = True

    parser_classes = (StrictJSONParser, FormParser, MultiPartParser)
    permission_classes = (RecordPermission,)
    filter_backends = (RecordFilterBackend, SearchBackend)
    pagination_class = RecordPagination
    lookup_url_kwarg = "id"
    lookup_value_regex = "[^/]+"

    @property
    def model(self) -> type[Any]:
        queryset: Any = type(self).queryset
        model: type[Any] = queryset.model
        return model

    def required_verb(self) -> str | None:
        """Return the verb of the model permission that the current action needs; None for reads."""
        return VERBS.get(self.action or "")

    def get_serializer_class(self) -> type[RecordSerializer]:
        return self.serializer_class

    def get_parsers(self) -> list[Any]:
        """Accept forms from the browsable API only, which has a session cookie."""
        request = self.request
        if request is not None and settings.SESSION_COOKIE_NAME not in request.COOKIES:
            return [StrictJSONParser()]
        return super().get_parsers()

    def known_parameters(self) -> frozenset[str]:
        if self.action == "list":
            names = set(self.pagination_class.parameters)
            for backend in self.filter_backends:
                names |= backend.parameter_names(self)
            return frozenset(names if self.may_see_deleted() else names - {"is_deleted"})
        if self.action == "retrieve":
            return frozenset({"fields"})
        return self.action_parameters.get(self.action or "", frozenset()) | self.write_parameters()

    # Rows

    def lists_all_live_rows(self) -> bool:
        """Return True if the list has all live rows before it is filtered."""
        if self.lists_deleted() or self.path_model is not None or self.model.parent_deletion_lookups():
            return False
        may_view: bool = self.model.is_public or self.request.user.may("view", self.model)
        return may_view

    def row_groups(self, queryset: Any) -> Any:
        """Return the groups to which the filters restrict the rows; None if there are other filters."""
        groups = groups_of_filters(self, queryset)
        return groups if groups is not None and self.lists_all_live_rows() else None

    def may_see_deleted(self) -> bool:
        may_view: bool = issubclass(self.model, SoftDeletable) and self.request.user.may("view", self.model)
        return may_view

    def lists_deleted(self) -> bool:
        """Return True if the request lists the deleted rows instead of the live ones."""
        return self.action == "list" and self.request.query_params.get("is_deleted", "").lower() in {"true", "1"}

    def get_queryset(self) -> models.QuerySet[Any]:
        if getattr(self, "swagger_fake_view", False):
            none: models.QuerySet[Any] = self.model.objects.none()
            return none
        rows = compiled_rows(self.model.all_objects).deleted() if self.lists_deleted() else self.live_rows()
        visible: models.QuerySet[Any] = rows.visible_to(self.request.user)
        return visible

    def live_rows(self) -> Any:
        return compiled_rows(self.model.objects)

    def row_id(self) -> Any:
        return parse_id(self.model, self.kwargs[self.lookup_url_kwarg])

    def not_found(self) -> NotFound:
        return not_found(self.model, self.kwargs[self.lookup_url_kwarg])

    def get_row(self, queryset: models.QuerySet[Any], names: list[str] | None = None) -> dict[str, Any]:
        """Return these fields, by default all, of the first row of `queryset`; raise NotFound if there is none."""
        serializer_class = self.get_serializer_class()
        selected = list(api_columns(serializer_class)) if names is None else names
        required = [name for name in self.required_columns if name not in selected]
        has_version = issubclass(self.model, Record)
        annotations = ["version"] if has_version and "version" not in selected else []
        rows = list(select_columns(queryset, serializer_class, [*selected, *required], annotations)[:1])
        if not rows:
            raise self.not_found()
        self.row_version = rows[0]["version"] if has_version else None
        self.format_row(rows[0])
        return {name: rows[0][name] for name in selected}

    def format_row(self, row: dict[str, Any]) -> None:
        """Change a row of a response in place, where its columns are not what the API returns."""

    def lock_row(self, queryset: models.QuerySet[Any]) -> Any:
        """Return the row of the path, locked, if the user may take the current action on this version of it."""
        row = self._checked(queryset.select_for_update(of=("self",), no_key=True))
        self.check_precondition(row)
        return row

    def current_row(self, row: Any) -> dict[str, Any]:
        return self.get_row(self.model.all_objects.filter(pk=row.pk))

    def get_object(self) -> Any:
        """Return the row of the path as an instance, by which DRF finds the methods for OPTIONS."""
        return self._checked(self.get_queryset()) if self.lookup_url_kwarg in self.kwargs else None

    def _checked(self, queryset: models.QuerySet[Any]) -> Any:
        row = queryset.filter(pk=self.row_id()).first()
        if row is None:
            raise self.not_found()
        self.check_object_permissions(self.request, row)
        return row

    # Actions

    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        items = self.paginate_queryset(self.filter_queryset(self.get_queryset()))
        return Response(self.paginator.get_paginated_response_data(items))

    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        names = selected_fields(request.query_params, self.get_serializer_class())
        return self.row_response(self.get_row(self.get_queryset().filter(pk=self.row_id()), names))


class RecordViewSet(BulkWrites, ReadOnlyViewSet):
    """List, retrieve, create, update and delete the rows of one model."""

    def create(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        if isinstance(request.data, list):
            return self.bulk_create(request)
        self.refuse_atomic(request)
        serializer: Any = self.get_serializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        self.require_body()
        self.perform_create(serializer)
        row = self.written_row(serializer.instance)
        location = reverse(f"{self.model._meta.model_name}-detail", kwargs={"id": serializer.instance.pk})
        return self.row_response(row, status=status.HTTP_201_CREATED, headers={"Location": location})

    def require_body(self) -> None:
        """Raise ParseError if a body is missing where an empty object would be valid: it was probably lost."""
        if self.request.META.get("CONTENT_LENGTH") in {None, "", "0"}:
            raise ParseError("Expected a JSON object in the request body, got no body.")

    def perform_create(self, serializer: Any) -> None:
        serializer.save(**self.added_values(serializer.validated_data))

    def added_values(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Return the owner of a new row: the user of the request, unless the body names another."""
        owner = self.model.owned_by
        has_owner = owner is None or owner == self.model._meta.pk.attname or owner in attrs
        return {} if has_owner else {owner: self.request.user.pk}

    def written_row(self, instance: Any) -> dict[str, Any]:
        """Return the fields of a row that was just written, as the statement returned them."""
        [row] = self.written_rows([instance])
        self.row_version = instance.stored_row.values.get("version")
        return row

    def written_rows(self, instances: list[Any]) -> list[dict[str, Any]]:
        """Return the fields of rows that were just written, as the statement returned them."""
        columns = api_columns(self.get_serializer_class())
        stored = [instance.stored_row.values for instance in instances]
        if self.required_columns or not all(values.keys() >= set(columns.values()) for values in stored):
            return self._read_again([instance.pk for instance in instances])
        rows = [{name: values[column] for name, column in columns.items()} for values in stored]
        for row in rows:
            self.format_row(row)
        return rows

    def _read_again(self, keys: list[Any]) -> list[dict[str, Any]]:
        serializer_class = self.get_serializer_class()
        selected = list(api_columns(serializer_class))
        required = [name for name in self.required_columns if name not in selected]
        rows = select_columns(self.live_rows().filter(AnyOf("pk", keys)), serializer_class, [*selected, *required])
        by_key = {row["id"]: row for row in rows}
        for row in by_key.values():
            self.format_row(row)
        return [{name: by_key[key][name] for name in selected} for key in keys]

    def update(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return self.update_row(self.get_queryset(), partial=not self.put_replaces)

    def partial_update(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return self.update_row(self.get_queryset(), partial=True)

    def update_row(self, queryset: models.QuerySet[Any], *, partial: bool) -> Response:
        data = self.request.data  # read before the row is locked, because a body may arrive slowly
        with transaction.atomic():
            instance = self.lock_row(queryset)
            serializer = self.get_serializer(instance, data=data, partial=partial)
            serializer.is_valid(raise_exception=True)
            self.require_body()
            self.perform_update(serializer)
            return self.row_response(self.written_row(instance))

    def perform_update(self, serializer: Any) -> None:
        serializer.save(**({} if serializer.partial else serializer.with_defaults(serializer.validated_data)))

    def destroy(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        with transaction.atomic():
            self.perform_destroy(self.lock_row(self.get_queryset()))
        return Response(status=status.HTTP_204_NO_CONTENT)

    def perform_destroy(self, instance: Any) -> None:
        instance.delete(**self.deletion_options())


class SoftDeletableViewSet(RecordViewSet):
    """A resource whose deletions can be undone."""

    action_parameters: ClassVar[dict[str, frozenset[str]]] = {
        "destroy": frozenset({"reason"}),
        "bulk_destroy": frozenset({"reason"}),
    }

    @extend_schema(parameters=[REASON_PARAMETER])
    def destroy(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return super().destroy(request, *args, **kwargs)

    @extend_schema(parameters=[REASON_PARAMETER])
    def bulk_destroy(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return super().bulk_destroy(request, *args, **kwargs)

    def deletion_options(self) -> dict[str, Any]:
        reason = self.request.query_params.get("reason", "")
        if len(reason) > MAX_REASON_LENGTH:
            raise ValidationError({"reason": [f"Ensure this value has at most {MAX_REASON_LENGTH} characters."]})
        try:
            validate_line(reason)
        except ModelValidationError as error:
            raise ValidationError({"reason": error.messages}) from None
        return {"reason": reason}

    @extend_schema(request=None)
    @action(detail=True, methods=["post"])
    def restore(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Undo a deletion.

        Rows that were deleted with this one are restored too. A row that is not deleted stays unchanged.
        """
        StrictSerializer(data=request.data).is_valid(raise_exception=True)
        rows = compiled_rows(self.model.all_objects) if self.may_see_deleted() else self.live_rows()
        with transaction.atomic():
            instance = self.lock_row(rows.visible_to(request.user))
            try:
                instance.restore()
            except ModelValidationError as error:
                raise ConflictError(error.messages[0]) from None
            return self.row_response(self.get_row(self.live_rows().filter(pk=instance.pk)))
