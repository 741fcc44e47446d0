"""Pages of a list: by number, by offset or by cursor, each with one query for the rows and their bounded count."""

from records.rest.pagination.paginator import RecordPagination
from records.rest.pagination.parameters import selected_fields

__all__ = ["RecordPagination", "selected_fields"]
