"""Django's migrate, extended for tables in use and for a service role that does not own the tables."""

from typing import Any

from django.core.management.commands.migrate import Command as Migrate

from records.db.migrating import owners_connection, retry_while_in_use


class Command(Migrate):
    def handle(self, *args: Any, **options: Any) -> None:
        with owners_connection(options["database"]):
            # Each migration is a transaction: a retry continues after the last completed one.
            retry_while_in_use(lambda: super(Command, self).handle(*args, **options), self.stderr.write)
