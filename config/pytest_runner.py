"""`manage.py test` runs pytest."""

import subprocess
import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from django.conf import settings

VERBOSITY = {0: ["--quiet"], 1: [], 2: ["-vv"], 3: ["-vvv"]}


class PytestRunner:
    """Run the suite with pytest, as pytest-django's documentation recommends.

    pytest runs in a separate process: this one has read the settings before pytest sets those of the tests.
    """

    def __init__(
        self,
        *,
        verbosity: int = 1,
        failfast: bool = False,
        keepdb: bool = False,
        pdb: bool = False,
        parallel: str | None = None,
        test_name_patterns: Sequence[str] | None = None,
        **options: Any,
    ) -> None:
        self.arguments = [*VERBOSITY[verbosity]]
        if failfast:
            self.arguments.append("--exitfirst")
        if keepdb:
            self.arguments.append("--reuse-db")
        if pdb:
            self.arguments += ["--pdb", "-n", "0"]
        if parallel:
            self.arguments += ["-n", parallel]
        if test_name_patterns:
            self.arguments += ["-k", " or ".join(test_name_patterns)]

    @classmethod
    def add_arguments(cls, parser: ArgumentParser) -> None:
        parser.add_argument("--failfast", action="store_true", help="Stop at the first failure.")
        parser.add_argument("--keepdb", action="store_true", help="Keep the test database for the next run.")
        parser.add_argument("--pdb", action="store_true", help="Start a debugger at each failure.")
        parser.add_argument("--parallel", metavar="N", help="Run tests in N processes; 0 runs them in one.")
        parser.add_argument(
            "-k",
            action="append",
            dest="test_name_patterns",
            metavar="EXPRESSION",
            help="Run tests with matching names.",
        )

    def run_tests(self, test_labels: Sequence[str], **kwargs: Any) -> int:
        """Return pytest's exit code."""
        command = [sys.executable, "-m", "pytest", *self.arguments, *map(pytest_argument, test_labels)]
        return subprocess.run(command, cwd=settings.BASE_DIR).returncode  # noqa: S603


def pytest_argument(label: str) -> str:
    """Return the path and the names of a dotted label such as `users.tests.test_login`; leave paths unchanged."""
    if (settings.BASE_DIR / label.partition("::")[0]).exists():
        return label
    parts = label.split(".")
    for length in range(len(parts), 0, -1):
        path = Path(*parts[:length])
        if length == len(parts) and (settings.BASE_DIR / path).is_dir():
            return str(path)
        if (settings.BASE_DIR / f"{path}.py").is_file():
            return "::".join([f"{path}.py", *parts[length:]])
    return label
