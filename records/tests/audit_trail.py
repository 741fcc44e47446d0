"""The audit trail of one row."""

from records.audit.models import AuditEntry
from records.models.values import from_json


def entries(row):
    """Return the audit entries of a row, oldest first."""
    return list(AuditEntry.objects.of_row(type(row), row.pk).order_by("id"))


def assert_replays(row):
    """Assert that replaying the entries gives the stored row, and that old values match the previous entry."""
    model, values = type(row), {}
    stored = model.all_objects.get(pk=row.pk)
    for entry in entries(row):
        for name, (old, new) in entry.changes.items():
            assert values.get(name) == old or name == "created_at"
            values[name] = new
    for field in model.audited_fields():
        if field.attname in values:
            assert from_json(field, values[field.attname]) == getattr(stored, field.attname)
        else:
            assert getattr(stored, field.attname) in (None, "") or field.name == "created_at"
