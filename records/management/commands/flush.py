"""Django's flush, extended for the append-only audit log."""

from typing import Any

from django.core.management.base import CommandError
from django.core.management.commands.flush import Command as Flush
from django.db import OperationalError, connections, transaction

from records.audit.append_only import without_triggers
from records.db.migrating import limit_lock_waits, owners_connection, retry_while_in_use


class Command(Flush):
    def handle(self, *, interactive: bool = True, **options: Any) -> None:
        connection = connections[options["database"]]
        if interactive:
            # Ask before locking the tables, so that no request waits for the answer.
            name = connection.settings_dict["NAME"]
            answer = input(
                f"This permanently deletes all rows of {name!r}, including the audit log. Type 'yes' to continue: "
            )
            if answer != "yes":
                self.stdout.write("Cancelled. No rows were deleted.")
                return
        with owners_connection(options["database"]) as connection:
            retry_while_in_use(lambda: self._flush(connection, options), self.stderr.write)

    def _flush(self, connection: Any, options: dict[str, Any]) -> None:
        with transaction.atomic(using=connection.alias):
            if connection.vendor == "postgresql":
                limit_lock_waits(connection)
            with without_triggers(connection):
                try:
                    super().handle(interactive=False, **options)
                except CommandError as error:
                    if not isinstance(reason := error.__cause__, OperationalError):
                        raise
                    # `retry_while_in_use` needs the database error that Django wraps.
                    raise reason from reason.__cause__
