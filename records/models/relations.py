"""How deleting or restoring a row affects the rows that refer to it."""

from typing import Any

from django.db import models


def is_record(model: Any) -> bool:
    """Return True if `model` is a Record: a function, because records import this module."""
    return hasattr(model, "is_soft_deletable")


def _refers(field: models.Field, *on_delete: Any) -> bool:
    remote: Any = field.remote_field
    return remote is not None and getattr(remote, "on_delete", None) in on_delete and is_record(remote.model)


def cascades_delete(field: models.Field) -> bool:
    """Whether a row goes when the row goes that this field points to."""
    return _refers(field, models.CASCADE)


def protects_target(field: models.Field) -> bool:
    """Whether a row keeps the row from going that this field points to."""
    return _refers(field, models.PROTECT)


def requires_live_target(field: models.Field) -> bool:
    """Whether a row is not restored without the row that this field points to."""
    return _refers(field, models.CASCADE, models.PROTECT) and field.related_model.is_soft_deletable
