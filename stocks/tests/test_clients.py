"""Clients generated from the OpenAPI document type-check and work."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from config import documents
from conftest import import_or_skip, npm_ci

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.filterwarnings("ignore::ResourceWarning")]

CLIENTS = Path(__file__).parent / "clients"


def run(*command, folder):
    # The generator runs ruff, which is installed beside Python.
    environment = os.environ | {"PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])}
    process = subprocess.run(
        [*map(str, command)], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    assert process.returncode == 0, f"{command}\n{process.stdout[-5000:]}\n{process.stderr[-5000:]}"


#: One generated module does not pass --strict.
MYPY = """
[mypy]
strict = true
[mypy-stocks_client.client]
ignore_errors = true
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("clients")
    (path / "openapi.json").write_bytes(documents._openapi())
    return path


@pytest.fixture(scope="module")
def python_client(folder):
    import_or_skip("openapi_python_client")
    generate = ("generate", "--path", "openapi.json", "--output-path", "stocks_client", "--meta", "none")
    run(sys.executable, "-m", "openapi_python_client", *generate, "--fail-on-warning", folder=folder)
    (folder / "client.py").write_text((CLIENTS / "client.py").read_text())
    return folder


@pytest.fixture(scope="module")
def typescript_client(folder):
    node_modules = npm_ci(CLIENTS) / "node_modules"
    (folder / "node_modules").symlink_to(node_modules, target_is_directory=True)
    run(
        "node",
        node_modules / "openapi-typescript" / "bin" / "cli.js",
        "openapi.json",
        "-o",
        "schema.d.ts",
        folder=folder,
    )
    for name in ("client.ts", "tsconfig.json", "package.json"):
        (folder / name).write_text((CLIENTS / name).read_text())
    return folder


def test_python_client_type_checks(python_client):
    import_or_skip("mypy")
    (python_client / "mypy.ini").write_text(MYPY)
    run(sys.executable, "-m", "mypy", "--no-incremental", "stocks_client", "client.py", folder=python_client)


def test_python_client_works(python_client, live_server):
    run(sys.executable, "client.py", live_server.url, folder=python_client)


def test_typescript_client_type_checks_and_works(typescript_client, live_server):
    run("node", "node_modules/typescript/bin/tsc", "--project", "tsconfig.json", folder=typescript_client)
    run("node", "client.js", live_server.url, folder=typescript_client)
