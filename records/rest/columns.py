"""Which columns the API reads, and under which names.

Reads select columns into dictionaries, without model instances and serializers. The serializer of a resource declares
the columns by its fields.
"""

from collections.abc import Iterable
from functools import cache
from typing import Any, TypeVar

from django.db import models
from django.db.models import BooleanField, ExpressionWrapper, F, Q, QuerySet
from rest_framework import serializers

from records.models import Record, SoftDeletable

DELETION_COLUMNS = ("is_deleted", "deleted_at", "deleted_by", "deletion_reason")

S = TypeVar("S", bound=type[serializers.ModelSerializer[Any]])

_serializers: dict[type[models.Model], Any] = {}


def register(serializer_class: S) -> S:
    """Register the serializer of a resource: its fields name the columns of the model, wherever the API does."""
    _serializers[serializer_class.Meta.model] = serializer_class
    return serializer_class


def serializer_for(model: type[models.Model]) -> Any:
    """Return the registered serializer of a model, for code that reaches rows by a relation."""
    return _serializers[model]


@cache
def api_columns(serializer_class: Any) -> dict[str, str]:
    """Return the column of each field of the response, in the order of the response."""
    fields = serializer_class().get_fields()
    return {name: field.source or name for name, field in fields.items() if not field.write_only}


@cache
def api_names(model: type[models.Model]) -> dict[str, str]:
    """Return the name of each column in the API; empty if the model has no resource."""
    serializer_class = _serializers.get(model)
    return {column: name for name, column in api_columns(serializer_class).items()} if serializer_class else {}


def select_columns(
    queryset: QuerySet[Any], serializer_class: Any, names: list[str] | None = None, annotations: Iterable[str] = ()
) -> QuerySet[Any, dict[str, Any]]:
    """Return the rows as dictionaries of the columns behind these names of the response, by default all.

    `annotations` are names of annotations of `queryset` to select in addition.
    """
    columns: dict[str, Any] = dict(api_columns(serializer_class))
    selected = list(columns) if names is None else names
    if issubclass(queryset.model, SoftDeletable):
        columns |= {name: name for name in DELETION_COLUMNS}
    renamed: dict[str, Any] = {name: F(columns[name]) for name in selected if columns[name] != name}
    if "is_deleted" in selected:
        renamed["is_deleted"] = ExpressionWrapper(Q(deleted_at__isnull=False), BooleanField())
    rows: QuerySet[Any, dict[str, Any]] = queryset.annotate(**renamed).values(*selected, *annotations)
    return rows


@cache
def reference_fields(model: type[Record]) -> dict[str, Any]:
    """Return the foreign keys to other records by column, without the one to the owner of the row."""
    keys: list[Any] = [field for field in model._meta.concrete_fields if isinstance(field, models.ForeignKey)]
    return {key.attname: key for key in keys if key.attname != model.owned_by}


def is_reference(field: "serializers.Field[Any, Any, Any, Any]") -> bool:
    """Return True if a serializer field holds the id of another record or of the owner."""
    model = getattr(getattr(field.parent, "Meta", None), "model", None)
    if not (isinstance(model, type) and issubclass(model, Record)) or field.source == "id":
        return False
    return field.source == model.owned_by or field.source in reference_fields(model)


def column_of(model: type[models.Model], name: str) -> str:
    """Return the column of a model field: "owner_id" for "owner"."""
    field: Any = model._meta.get_field(name)
    return str(field.attname)


@cache
def column_names(model: type[models.Model]) -> frozenset[str]:
    """Return the names of all concrete fields and of their columns."""
    return frozenset(name for field in model._meta.concrete_fields for name in (field.name, field.attname))
