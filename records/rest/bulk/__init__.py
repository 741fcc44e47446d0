"""Writes of many rows by one request, with a number of statements that does not depend on the number of rows."""

from records.rest.bulk.rows import MAX_ROWS
from records.rest.bulk.views import BULK_ACTIONS, BulkWrites

__all__ = ["BULK_ACTIONS", "MAX_ROWS", "BulkWrites"]
