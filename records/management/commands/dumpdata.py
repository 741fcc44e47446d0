from typing import Any

from django.apps import apps
from django.core.management.commands.dumpdata import Command as DumpData

LOG = {"records", "records.auditentry"}


class Command(DumpData):
    """Django's dumpdata, with deleted rows: the managers that leave them out are not for copies."""

    def handle(self, *app_labels: str, **options: Any) -> None:
        options["use_base_manager"] = True
        if options["use_natural_primary_keys"]:
            # A row without an id cannot be referred to by id.
            options["use_natural_foreign_keys"] = True
            has_log = not app_labels or bool(LOG & {label.lower() for label in app_labels})
            if has_log and not LOG & {label.lower() for label in options["exclude"]}:
                self.stderr.write(
                    "Warning: the audit log names rows by their ids, which --natural-primary leaves out. To copy the "
                    "log to another database, leave out --natural-primary."
                )
        if not app_labels:
            # Content types first: permissions refer to them by name, see records.serialization.
            labels = [config.label for config in apps.get_app_configs()]
            app_labels = tuple(sorted(labels, key=lambda label: label != "contenttypes"))
        super().handle(*app_labels, **options)
