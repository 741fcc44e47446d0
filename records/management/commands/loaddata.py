"""Django's loaddata, extended for the append-only audit log."""

from collections.abc import Sequence
from typing import Any

from django.core.management.commands.loaddata import Command as LoadData

from records.audit.fixtures import add_missing_entries
from records.audit.models import AuditEntry
from records.serialization import loading

BATCH_SIZE = 1000


class Command(LoadData):
    """Load rows that share a natural key, and insert audit entries without updating existing ones."""

    def loaddata(self, fixture_labels: Sequence[str]) -> None:
        self.entries: list[AuditEntry] = []
        with loading():
            super().loaddata(fixture_labels)

    def load_label(self, fixture_label: str) -> None:
        super().load_label(fixture_label)
        self.add_entries()

    def save_obj(self, obj: Any) -> bool:
        # Insert collected entries first: saving a row writes an entry, whose id must be higher.
        if not isinstance(obj.object, AuditEntry):
            self.add_entries()
            return super().save_obj(obj)
        if AuditEntry in self.excluded_models or AuditEntry._meta.app_config in self.excluded_apps:
            return False
        self.entries.append(obj.object)
        if len(self.entries) >= BATCH_SIZE:
            self.add_entries()
        return True

    def add_entries(self) -> None:
        entries, self.entries = self.entries, []
        add_missing_entries(entries, self.using)
