"""Loading audit entries from fixtures, without duplicates."""

from collections import Counter
from typing import Any

from django.db import connections

from records.audit.append_only import FIXED
from records.audit.models import AuditEntry
from records.db.expressions import AnyOf
from records.models.values import is_same_moment

#: Columns by which entries are compared. `changes` and `ip` may have been erased in one of the databases.
IDENTITY = tuple(name for name in FIXED if name != "id")


def add_missing_entries(entries: list[AuditEntry], using: str) -> None:
    """Insert the entries of a fixture that are not stored yet.

    An entry keeps its id if that is free, and gets the next id if another entry has it.
    """
    if not entries:
        return
    stored_entries = AuditEntry.objects.using(using)
    stored: dict[int, AuditEntry] = {
        entry.pk: entry for entry in stored_entries.filter(AnyOf("id", [entry.pk for entry in entries]))
    }
    missing = [entry for entry in entries if not _is_same(entry, stored.get(entry.pk))]
    missing = _without_copies(missing, entries, stored, using)
    kept: list[AuditEntry] = []
    renumbered: list[AuditEntry] = []
    for entry in missing:
        if entry.pk is not None and entry.pk not in stored:
            stored[entry.pk] = entry
            kept.append(entry)
        else:
            entry.pk = None
            renumbered.append(entry)
    stored_entries.bulk_create(kept)
    _advance_sequence(using)
    stored_entries.bulk_create(renumbered)


def _without_copies(
    missing: list[AuditEntry], entries: list[AuditEntry], stored: dict[int, AuditEntry], using: str
) -> list[AuditEntry]:
    """Return the entries without those that are stored under another id."""
    same_times = AuditEntry.objects.using(using).filter(AnyOf("at", {entry.at for entry in missing})) if missing else ()
    copies = Counter(map(_identity, same_times))
    # An entry that is stored under its own id is not a copy of another entry.
    copies -= Counter(_identity(stored[entry.pk]) for entry in entries if _is_same(entry, stored.get(entry.pk)))
    remaining = []
    for entry in missing:
        if copies[_identity(entry)] > 0:
            copies[_identity(entry)] -= 1
        else:
            remaining.append(entry)
    return remaining


def _advance_sequence(using: str) -> None:
    """Set PostgreSQL's sequence behind the ids that were inserted, but never behind those that others have taken."""
    connection = connections[using]
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT setval(name, GREATEST(MAX(id), pg_sequence_last_value(name))) "
                "FROM audit_log, CAST(pg_get_serial_sequence('audit_log', 'id') AS regclass) AS name GROUP BY name"
            )


def _identity(entry: AuditEntry) -> tuple[Any, ...]:
    return tuple(getattr(entry, name) for name in IDENTITY)


def _is_same(entry: AuditEntry, stored: AuditEntry | None) -> bool:
    """Return True if `stored` is the same entry; older fixtures have times in milliseconds."""
    if stored is None:
        return False
    at = stored.at if is_same_moment(entry.at, stored.at) else entry.at
    return _identity(stored) == tuple(at if name == "at" else getattr(entry, name) for name in IDENTITY)
