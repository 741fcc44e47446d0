from collections.abc import Sequence
from typing import Any

from django.core.management.commands.loaddata import Command as LoadData

from records.audit.fixtures import add_missing_entries
from records.audit.models import AuditEntry
from records.serialization import loading

BATCH = 1000


class Command(LoadData):
    """Django's loaddata, for a log that can only be added to and for rows that share a natural key."""

    def loaddata(self, fixture_labels: Sequence[str]) -> None:
        self.entries: list[AuditEntry] = []
        with loading():
            super().loaddata(fixture_labels)

    def load_label(self, fixture_label: str) -> None:
        super().load_label(fixture_label)
        self.add_entries()

    def save_obj(self, obj: Any) -> bool:
        # The entries go first: rows that are loaded behind them write entries, whose ids must be higher.
        if not isinstance(obj.object, AuditEntry):
            self.add_entries()
            return super().save_obj(obj)
        if AuditEntry in self.excluded_models or AuditEntry._meta.app_config in self.excluded_apps:
            return False
        self.entries.append(obj.object)
        if len(self.entries) >= BATCH:
            self.add_entries()
        return True

    def add_entries(self) -> None:
        entries, self.entries = self.entries, []
        add_missing_entries(entries, self.using)
