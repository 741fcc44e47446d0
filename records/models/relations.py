"""How deleting or restoring a row affects the rows that refer to it."""

from typing import Any, TypeAlias

from django.db import models

Column: TypeAlias = "models.Field[Any, Any]"


def is_record(model: Any) -> bool:
    """Return True if `model` is a Record. Records import this module, so it cannot compare with the class."""
    return hasattr(model, "is_soft_deletable")


def record_references(model: type[models.Model]) -> list[Any]:
    """Return the foreign keys by which records refer to rows of `model`."""
    relations: Any = model._meta.related_objects
    return [relation.field for relation in relations if not relation.many_to_many and is_record(relation.related_model)]


def cascades_delete(field: Column) -> bool:
    """Return True if deleting the referenced row deletes this one."""
    return _refers_to_record(field, models.CASCADE)


def protects_target(field: Column) -> bool:
    """Return True if the referenced row cannot be deleted while this one exists."""
    return _refers_to_record(field, models.PROTECT)


def requires_live_target(field: Column) -> bool:
    """Return True if this row cannot be restored while the referenced row is deleted."""
    target: Any = field.related_model
    return _refers_to_record(field, models.CASCADE, models.PROTECT) and target.is_soft_deletable


def _refers_to_record(field: Column, *on_delete: Any) -> bool:
    remote: Any = field.remote_field
    return remote is not None and getattr(remote, "on_delete", None) in on_delete and is_record(remote.model)
