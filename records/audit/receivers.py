"""Write the changes that records announce to the audit log."""

from typing import Any

from django.dispatch import receiver

from records.audit.models import AuditEntry
from records.models.changes import Change, rows_changed, rows_purged


@receiver(rows_changed)
def write_entries(sender: Any, action: str, changes: list[Change], using: str | None, **kwargs: Any) -> None:
    AuditEntry.objects.using(using).record(sender, action, changes)


@receiver(rows_purged)
def erase_values(sender: Any, keys: list[Any], using: str | None, **kwargs: Any) -> None:
    AuditEntry.objects.using(using).erase_personal_data(sender, keys)
