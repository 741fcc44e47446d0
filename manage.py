#!/usr/bin/env python
import os
import sys

from django.core.exceptions import ImproperlyConfigured
from django.core.management import execute_from_command_line

from records.context import activate_command

#: Commands whose statements STATEMENT_TIMEOUT and LOCK_TIMEOUT limit: they answer requests, or run what is typed.
#: The others, such as migrate, purge_deleted, loaddata and dumpdata, take the time that they need.
LIMITED = {"serve", "runserver", "testserver", "shell"}


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    try:
        # Django shows a broken setting as a stack trace; the operator needs its name.
        import config.settings as settings
    except ImproperlyConfigured as error:
        sys.exit(f"Error: {error}")
    command = sys.argv[1] if len(sys.argv) > 1 else "help"
    if command not in LIMITED:
        settings.lift_limits()
    activate_command(command)
    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
