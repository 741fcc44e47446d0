"""Write the changes that records announce to the audit log."""

from typing import Any

from records.audit.models import AuditEntry
from records.db.compiled.writes import SQL
from records.models.changes import Change, row_written, rows_changed, rows_purged


def connect_signals() -> None:
    rows_changed.connect(_write_entries)
    row_written.connect(_entry_statement)
    rows_purged.connect(_erase_values)


def _write_entries(sender: Any, action: str, changes: list[Change], using: str | None, **kwargs: Any) -> None:
    AuditEntry.objects.using(using).record(sender, action, changes)


def _entry_statement(sender: Any, action: str, change: Change, using: str, **kwargs: Any) -> SQL:
    return AuditEntry.objects.using(using).statement_of_row(sender, action, change)


def _erase_values(sender: Any, keys: list[Any], using: str | None, **kwargs: Any) -> None:
    AuditEntry.objects.using(using).erase_personal_data(sender, keys)
