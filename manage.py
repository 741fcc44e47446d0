#!/usr/bin/env python
import gc
import os
import sys

from django.core.exceptions import ImproperlyConfigured
from django.core.management import execute_from_command_line

from records.context import activate_command

#: Commands to which STATEMENT_TIMEOUT and LOCK_TIMEOUT apply, because they answer requests or run interactive input.
LIMITED = {"serve", "runserver", "testserver", "shell"}


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    command = sys.argv[1] if len(sys.argv) > 1 else "help"
    if command == "serve":
        gc.disable()  # until all is loaded: looking for garbage among modules takes a seventh of the start
    try:
        # Django would print a stack trace for an invalid setting.
        from config import databases, settings
    except ImproperlyConfigured as error:
        sys.exit(f"Error: {error}")
    if command not in LIMITED:
        settings.DATABASES["default"] = databases.without_limits(settings.DATABASES["default"])
    activate_command(command)
    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
