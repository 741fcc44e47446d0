#!/usr/bin/env python
import os
import sys

from django.core.exceptions import ImproperlyConfigured
from django.core.management import execute_from_command_line

from records.audit import begin_command


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    try:
        # Django shows a broken setting as a stack trace; the operator needs its name.
        import config.settings  # noqa: F401
    except ImproperlyConfigured as error:
        sys.exit(f"Error: {error}")
    begin_command(sys.argv[1] if len(sys.argv) > 1 else "help")
    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
