"""Base classes of the admin, and the admin page of the audit log.

Autodiscovery imports this package, which registers AuditEntryAdmin.
"""

from records.admin.audit_log import AuditEntryAdmin
from records.admin.forms import RecordForm
from records.admin.inlines import RecordStackedInline, RecordTabularInline
from records.admin.large_tables import LargeTableAdmin, ReadOnlyAdmin
from records.admin.records import RecordAdmin

__all__ = [
    "AuditEntryAdmin",
    "LargeTableAdmin",
    "ReadOnlyAdmin",
    "RecordAdmin",
    "RecordForm",
    "RecordStackedInline",
    "RecordTabularInline",
]
