"""Django's flush, for a database whose audit log refuses to be emptied."""

from typing import Any

from django.core.management.commands.flush import Command as Flush
from django.db import connections

from records.append_only import lifted


class Command(Flush):
    def handle(self, *, interactive: bool = True, **options: Any) -> None:
        connection = connections[options["database"]]
        if interactive:
            # Before the log is locked: nobody shall wait for the answer.
            name = connection.settings_dict["NAME"]
            answer = input(f"This empties the database {name!r} for good, audit log included. Type 'yes' to go on: ")
            if answer != "yes":
                self.stdout.write("Nothing was done.")
                return
        with lifted(connection):
            super().handle(interactive=False, **options)
