"""Django's migrate, for tables that are in use and a service that does not own them."""

from typing import Any

from django.core.management.commands.migrate import Command as Migrate

from records.db.migrating import owners_connection, retry_while_in_use


class Command(Migrate):
    def handle(self, *args: Any, **options: Any) -> None:
        with owners_connection(options["database"]):
            # Each migration is a transaction: an attempt goes on behind those that the one before finished.
            retry_while_in_use(lambda: super(Command, self).handle(*args, **options), self.stderr.write)
