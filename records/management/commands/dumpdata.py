"""Django's dumpdata, extended for deleted rows and the audit log."""

from typing import Any

from django.apps import apps
from django.core.management.commands.dumpdata import Command as DumpData

AUDIT_LOG = {"records", "records.auditentry"}


class Command(DumpData):
    """Dump deleted rows too, in an order that loaddata can load."""

    def handle(self, *app_labels: str, **options: Any) -> None:
        options["use_base_manager"] = True
        if options["use_natural_primary_keys"]:
            # Without ids, references have to use natural keys.
            options["use_natural_foreign_keys"] = True
            includes_audit_log = not app_labels or bool(AUDIT_LOG & {label.lower() for label in app_labels})
            if includes_audit_log and not AUDIT_LOG & {label.lower() for label in options["exclude"]}:
                self.stderr.write(
                    "Warning: the audit log refers to rows by their ids, which --natural-primary omits. To copy the "
                    "audit log to another database, do not use --natural-primary."
                )
        if not app_labels:
            # Content types first: permissions refer to them by natural key, see records.serialization.
            labels = [config.label for config in apps.get_app_configs()]
            app_labels = tuple(sorted(labels, key=lambda label: label != "contenttypes"))
        super().handle(*app_labels, **options)
