"""Runs commands with a given environment and no other settings."""

import secrets

from records.tests.processes import run_python

KEY = secrets.token_urlsafe(64)
PASSWORD = "hunter2-in-the-database"
POSTGRES = {"DATABASE_URL": "postgres://somebody@127.0.0.1:1/somewhere", "SECRET_KEY": KEY}
DEPLOYED = POSTGRES | {
    "DATABASE_URL": f"postgres://somebody:{PASSWORD}@db.example.com/stocks",
    "HTTPS": "true",
    "ALLOWED_HOSTS": "example.com",
    "APP_URL": "https://example.com",
    "EMAIL_URL": "smtp://mail.example.com:25",
}


def check(**environment):
    return run_python("manage.py", "check", **environment)


def setting(expression, **environment):
    """Return the value of a setting in this environment, as printed."""
    process = run_python("-c", f"from config.settings import *; print({expression})", **environment)
    assert process.returncode == 0, process.stderr
    return process.stdout.removesuffix("\n")


def assert_refused(process, name):
    assert process.returncode != 0
    assert name in process.stderr
    assert len(process.stderr.strip().splitlines()) == 1
    assert "Traceback" not in process.stderr + process.stdout
    assert PASSWORD not in process.stderr + process.stdout
