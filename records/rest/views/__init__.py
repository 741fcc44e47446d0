"""Base views and viewsets of every resource."""

from records.rest.identifiers import not_found, parse_id
from records.rest.views.base import StrictMixin, StrictView, UnknownPathView
from records.rest.views.viewsets import REASON_PARAMETER, ReadOnlyViewSet, RecordViewSet, SoftDeletableViewSet

__all__ = [
    "REASON_PARAMETER", "ReadOnlyViewSet", "RecordViewSet", "SoftDeletableViewSet", "StrictMixin", "StrictView",
    "UnknownPathView", "not_found", "parse_id",
]  # fmt: skip
