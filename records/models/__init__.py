"""What every stored row shares: versions, times, audited changes, soft deletion."""

from records.models.idempotency import IdempotencyKey
from records.models.record import Record, RowGoneError
from records.models.soft_deletion import LiveManager, SoftDeletable, SoftDeletableQuerySet

__all__ = ["IdempotencyKey", "LiveManager", "Record", "RowGoneError", "SoftDeletable", "SoftDeletableQuerySet"]
