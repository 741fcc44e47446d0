"""What every stored row shares: versions, times, audited changes, soft deletion."""

from records.models.record import Record, RowGoneError
from records.models.soft_deletion import LiveManager, SoftDeletable, SoftDeletableQuerySet

__all__ = ["LiveManager", "Record", "RowGoneError", "SoftDeletable", "SoftDeletableQuerySet"]
