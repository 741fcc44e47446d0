"""Django's flush, for a database whose audit log refuses to be emptied."""

from typing import Any

from django.core.management.commands.flush import Command as Flush
from django.db import connections

from records.append_only import lifted


class Command(Flush):
    def handle(self, **options: Any) -> None:
        with lifted(connections[options["database"]]):
            super().handle(**options)
