"""How every resource behaves over HTTP. A resource declares; what it does is here, once."""

import re
import uuid
from functools import cache
from typing import Any, ClassVar

from django.conf import settings
from django.core.exceptions import ValidationError as ModelValidationError
from django.db import Error, models, transaction
from django.utils.text import capfirst
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import status
from rest_framework.decorators import action
from rest_framework.exceptions import NotFound, ParseError, ValidationError
from rest_framework.parsers import FormParser, MultiPartParser
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.reverse import reverse
from rest_framework.settings import api_settings
from rest_framework.views import APIView
from rest_framework.viewsets import GenericViewSet

from records.db.text import one_line
from records.db.validators import BIGINT_MAX
from records.exceptions import ConflictError
from records.http.hints import MOST_HINTS, did_you_mean, excerpt
from records.models import SoftDeletable
from records.rest.filters import RecordFilterBackend, SearchBackend
from records.rest.pagination import RecordPagination, chosen_fields
from records.rest.parsers import PayloadTooLarge, StrictJSONParser
from records.rest.permissions import VERBS, RecordPermission
from records.rest.serializers import RecordSerializer, StrictSerializer, columns, rows

LONGEST_REASON = 200
REASON = OpenApiParameter(
    "reason",
    {"type": "string", "maxLength": LONGEST_REASON},  # type: ignore[arg-type]
    description="Why; kept with the deleted row.",
)


class StrictMixin:
    """Refuses bodies that are too large and query parameters that nobody knows."""

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        length = request.META.get("CONTENT_LENGTH") or "0"
        if not length.isascii() or not length.isdecimal():
            raise ParseError("The Content-Length is not a number.")
        if len(length) > 18 or int(length) > settings.DATA_UPLOAD_MAX_MEMORY_SIZE:
            raise PayloadTooLarge
        super().initial(request, *args, **kwargs)  # type: ignore[misc]
        self.check_parameters(request)

    def perform_authentication(self, request: Request) -> None:
        """Counts every caller, those too who are then refused for want of a (good) token."""
        request._request.rate_limit = {}  # type: ignore[attr-defined]
        try:
            super().perform_authentication(request)  # type: ignore[misc]
        except Error:
            raise  # the throttle would ask the database for the user again, and wait again
        except Exception:
            super().check_throttles(request)  # type: ignore[misc]
            raise
        super().check_throttles(request)  # type: ignore[misc]

    def finalize_response(self, request: Request, response: Any, *args: Any, **kwargs: Any) -> Any:
        response = super().finalize_response(request, response, *args, **kwargs)  # type: ignore[misc]
        response.headers.setdefault("Cache-Control", "no-store")  # whatever it is, it is this caller's
        return response

    def check_throttles(self, request: Request) -> None:
        pass  # counted above; DRF would ask here, after its permissions

    def known_parameters(self) -> frozenset[str]:
        return frozenset()

    def check_parameters(self, request: Request) -> None:
        if not hasattr(self, str(request.method).lower()):
            return  # 405 says more than what its parameters are
        known = self.known_parameters() | {api_settings.URL_FORMAT_OVERRIDE}
        errors: dict[str, list[str]] = {}
        for name, values in request.query_params.lists():
            if name not in known:
                hint = did_you_mean(name, known) if len(errors) < MOST_HINTS else ""
                errors[excerpt(name)] = [f"Unknown parameter '{excerpt(name)}'.{hint}"]
            elif len(values) > 1:
                errors[name] = ["This parameter is given twice."]
            elif name == api_settings.URL_FORMAT_OVERRIDE and not values[0]:
                errors[name] = ["This value may not be empty."]
            elif "\0" in values[0] or "\N{REPLACEMENT CHARACTER}" in values[0]:
                errors[name] = ["This value is not valid text (UTF-8 without NUL)."]
        if errors:
            raise ValidationError(errors)


class StrictView(StrictMixin, APIView):
    """A view that is not a resource."""


def not_found(model: type[models.Model], text: str) -> NotFound:
    return NotFound(f"{capfirst(model._meta.verbose_name)} with ID {excerpt(text)} not found")


def typed_id(model: type[models.Model], text: str) -> Any:
    """The id in a path; what no row can have is not found, as what no row has."""
    if isinstance(model._meta.pk, models.UUIDField):
        try:
            return uuid.UUID(text)
        except ValueError:
            raise not_found(model, text) from None
    if not re.fullmatch(r"[0-9]{1,19}", text) or int(text) > BIGINT_MAX:
        raise not_found(model, text)
    return int(text)


class UnknownPathView(StrictView):
    """Whatever is asked for under /api and is not there."""

    authentication_classes = ()
    permission_classes = (AllowAny,)
    schema = None

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        self.format_kwarg = None
        request.accepted_renderer, request.accepted_media_type = self.perform_content_negotiation(request, force=True)
        raise NotFound("There is nothing at this address.")

    def http_method_not_allowed(self, request: Any, *args: Any, **kwargs: Any) -> Response:
        raise NotFound("There is nothing at this address.")


@cache
def _list_parameters(view_class: type["ReadOnlyViewSet"]) -> frozenset[str]:
    """The names that the documentation of the list gives, and the filters."""
    view = view_class()
    described = RecordPagination().get_schema_operation_parameters(view)
    described += SearchBackend().get_schema_operation_parameters(view)
    filterset_class = view_class.filterset_class
    return frozenset(parameter["name"] for parameter in described) | frozenset(
        filterset_class.base_filters if filterset_class else ()
    )


class ReadOnlyViewSet(StrictMixin, GenericViewSet):
    """List and retrieve the rows of one model.

    A resource declares `queryset`, `serializer_class`, `filterset_class`, `search_fields` and `sort_fields`.
    """

    request: Any
    paginator: Any
    serializer_class: type[RecordSerializer]
    filterset_class: ClassVar[Any] = None
    search_fields: ClassVar[tuple[str, ...]] = ()
    sort_fields: ClassVar[tuple[str, ...]] = ("id",)
    #: What `sort_by` is where nothing is said.
    default_sort: ClassVar[str | None] = None
    #: What the owner of a row may do without any model permission.
    owner_actions: ClassVar[frozenset[str]] = frozenset({"create", "update", "partial_update", "destroy"})
    #: Columns that `present` needs, whether or not they are asked for.
    helping_columns: ClassVar[tuple[str, ...]] = ()
    #: Query parameters of single actions, beyond those of lists.
    action_parameters: ClassVar[dict[str, frozenset[str]]] = {}
    #: Whether fields that a PUT leaves out take their default, instead of staying.
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
        return queryset.model

    def verb(self) -> str | None:
        """The model permission that the present action needs: add, change, delete; None for reads."""
        return VERBS.get(self.action or "")

    def get_serializer_class(self) -> type[RecordSerializer]:
        return self.serializer_class

    def get_parsers(self) -> list:
        """Forms are for the browsable page, which comes with a session; programs send JSON."""
        request = self.request
        if request is not None and settings.SESSION_COOKIE_NAME not in request.COOKIES:
            return [StrictJSONParser()]
        return super().get_parsers()

    # Which rows

    def known_parameters(self) -> frozenset[str]:
        if self.action == "list":
            known = _list_parameters(type(self))
            return known if self.may_see_deleted() else known - {"is_deleted"}
        if self.action == "retrieve":
            return frozenset({"fields"})
        return self.action_parameters.get(self.action or "", frozenset())

    def may_see_deleted(self) -> bool:
        return issubclass(self.model, SoftDeletable) and self.request.user.may("view", self.model)

    def shows_deleted(self) -> bool:
        return self.action == "list" and self.request.query_params.get("is_deleted", "").lower() in {"true", "1"}

    def get_queryset(self) -> models.QuerySet:
        if getattr(self, "swagger_fake_view", False):
            return self.model.objects.none()
        live_or_deleted = self.model.all_objects.deleted() if self.shows_deleted() else self.model.objects.all()
        return live_or_deleted.visible_to(self.request.user)

    def row_id(self) -> Any:
        return typed_id(self.model, self.kwargs[self.lookup_url_kwarg])

    def not_found(self) -> NotFound:
        return not_found(self.model, self.kwargs[self.lookup_url_kwarg])

    def row(self, queryset: models.QuerySet, names: list[str] | None = None) -> dict[str, Any]:
        """The response for the one row of `queryset`."""
        serializer_class = self.get_serializer_class()
        asked = list(columns(serializer_class)) if names is None else names
        helping = [name for name in self.helping_columns if name not in asked]
        found = list(rows(queryset, serializer_class, [*asked, *helping])[:1])
        if not found:
            raise self.not_found()
        self.present(found[0])
        return {name: found[0][name] for name in asked}

    def present(self, row: dict[str, Any]) -> None:
        """Change a row on its way into the answer, where its columns are not yet what is shown."""

    def locked(self, queryset: models.QuerySet) -> Any:
        """The asked row of `queryset`, which nobody else changes meanwhile, for those who may act on it."""
        row = queryset.select_for_update(of=("self",), no_key=True).filter(pk=self.row_id()).first()
        if row is None:
            raise self.not_found()
        self.check_object_permissions(self.request, row)
        return row

    def get_object(self) -> Any:
        """The row as an instance, for what DRF itself asks: which methods the caller has (OPTIONS)."""
        if self.lookup_url_kwarg not in self.kwargs:
            return None
        row = self.get_queryset().filter(pk=self.row_id()).first()
        if row is None:
            raise self.not_found()
        self.check_object_permissions(self.request, row)
        return row

    # Actions

    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        items = self.paginate_queryset(self.filter_queryset(self.get_queryset()))
        return Response(self.paginator.get_paginated_response_data(items))

    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        names = chosen_fields(request.query_params, self.get_serializer_class())
        return Response(self.row(self.get_queryset().filter(pk=self.row_id()), names))


class RecordViewSet(ReadOnlyViewSet):
    """The same, and create, update and delete them."""

    def create(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        serializer: Any = self.get_serializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        self.require_body()
        with transaction.atomic():
            self.perform_create(serializer)
            row = self.row(self.model.objects.filter(pk=serializer.instance.pk))
        location = reverse(f"{self.model._meta.model_name}-detail", kwargs={"id": serializer.instance.pk})
        return Response(row, status=status.HTTP_201_CREATED, headers={"Location": location})

    def require_body(self) -> None:
        """Refuse a request without a body where an empty object would be valid: something was lost on the way."""
        if self.request.META.get("CONTENT_LENGTH") in {None, "", "0"}:
            raise ParseError("Expected a JSON object in the request body, got no body.")

    def perform_create(self, serializer: Any) -> None:
        """A row that belongs to a user is the caller's where nobody else is named."""
        owner = self.model.owned_by
        is_named = owner is None or owner == self.model._meta.pk.attname or owner in serializer.validated_data
        serializer.save(**({} if is_named else {owner: self.request.user.pk}))

    def update(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return self._change(self.get_queryset(), partial=not self.put_replaces)

    def partial_update(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return self._change(self.get_queryset(), partial=True)

    def _change(self, queryset: models.QuerySet, *, partial: bool) -> Response:
        data = self.request.data  # read before a row is locked: a body may take its time to arrive
        with transaction.atomic():
            instance = self.locked(queryset)
            serializer = self.get_serializer(instance, data=data, partial=partial)
            serializer.is_valid(raise_exception=True)
            self.require_body()
            self.perform_update(serializer)
            return Response(self.row(self.model.objects.filter(pk=instance.pk)))

    def perform_update(self, serializer: Any) -> None:
        serializer.save(**({} if serializer.partial else serializer.replaced(serializer.validated_data)))

    def destroy(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        with transaction.atomic():
            self.perform_destroy(self.locked(self.get_queryset()))
        return Response(status=status.HTTP_204_NO_CONTENT)

    def perform_destroy(self, instance: Any) -> None:
        instance.delete()


class SoftDeletableViewSet(RecordViewSet):
    """A resource whose deletions can be taken back."""

    action_parameters: ClassVar[dict[str, frozenset[str]]] = {"destroy": frozenset({"reason"})}

    @extend_schema(parameters=[REASON])
    def destroy(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return super().destroy(request, *args, **kwargs)

    def perform_destroy(self, instance: SoftDeletable) -> None:
        reason = self.request.query_params.get("reason", "")
        if len(reason) > LONGEST_REASON:
            raise ValidationError({"reason": [f"Ensure this value has at most {LONGEST_REASON} characters."]})
        try:
            one_line(reason)
        except ModelValidationError as error:
            raise ValidationError({"reason": error.messages}) from None
        instance.delete(reason=reason)

    @extend_schema(request=None)
    @action(detail=True, methods=["post"])
    def restore(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Take a deletion back.

        All that went with the row comes back too; a row that is not deleted stays as it is.
        """
        StrictSerializer(data=request.data).is_valid(raise_exception=True)
        everything = self.model.all_objects if self.may_see_deleted() else self.model.objects
        with transaction.atomic():
            instance = self.locked(everything.visible_to(request.user))
            try:
                instance.restore()
            except ModelValidationError as error:
                raise ConflictError(error.messages[0]) from None
            return Response(self.row(self.model.objects.filter(pk=instance.pk)))
