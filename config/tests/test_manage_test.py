import subprocess
import sys

import pytest
from django.conf import settings
from django.core.management import call_command

from config.pytest_runner import pytest_argument


@pytest.fixture
def arguments(monkeypatch):
    """Return the arguments of the pytest process that `manage.py test` with these arguments starts."""

    def run(*command_line: str) -> list[str]:
        processes = []

        def start(command, **options):
            processes.append(command)
            return subprocess.CompletedProcess(command, 0)

        monkeypatch.setattr("config.pytest_runner.subprocess.run", start)
        call_command("test", *command_line)
        [command] = processes
        assert command[:3] == [sys.executable, "-m", "pytest"]
        return command[3:]

    return run


@pytest.mark.parametrize(
    ("command_line", "expected"),
    [
        ("", []),
        ("users stocks/tests/test_stocks.py", ["users", "stocks/tests/test_stocks.py"]),
        ("users.tests.test_login", ["users/tests/test_login.py"]),
        ("-k paging -k cursor", ["-k", "paging or cursor"]),
        ("--failfast --keepdb", ["--exitfirst", "--reuse-db"]),
        ("-v 0", ["--quiet"]),
        ("-v 2", ["-vv"]),
        ("--pdb", ["--pdb", "-n", "0"]),
        ("--parallel 2", ["-n", "2"]),
    ],
)
def test_options_are_passed_to_pytest(arguments, command_line, expected):
    assert arguments(*command_line.split()) == expected


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("users", "users"),
        ("users.tests", "users/tests"),
        ("users.tests.test_login.test_login", "users/tests/test_login.py::test_login"),
        ("users/tests/test_login.py::test_login", "users/tests/test_login.py::test_login"),
        ("nothing.here", "nothing.here"),
    ],
)
def test_dotted_label_becomes_a_path(label, expected):
    assert pytest_argument(label) == expected


def manage_test(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "manage.py", "test", "--parallel", "0", *arguments]
    return subprocess.run(command, cwd=settings.BASE_DIR, capture_output=True, text=True)


def test_manage_test_runs_pytest():
    process = manage_test("config.tests.test_imports", "-k", "test_login")
    assert process.returncode == 0, process.stdout + process.stderr
    assert "2 passed" in process.stdout


def test_manage_test_fails_where_pytest_does():
    assert manage_test("config/tests/no_such_module.py").returncode != 0
