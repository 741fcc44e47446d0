"""A temporary PostgreSQL server for a benchmark."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from system import free_port, install_package

SUPERUSER = "postgres"
START_SECONDS = 60

#: Durability is off because the disk is not what is measured. The data of a million stocks fits in the buffers.
SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "512MB",
    "max_connections": "200",
    "max_wal_size": "4GB",
}


@dataclass(frozen=True)
class PostgresServer:
    binaries: Path
    port: int
    #: Process that started all others of the server.
    pid: int
    #: As PostgreSQL reports it, such as "15.7".
    version: str
    settings: dict[str, str]

    def url(self, database: str) -> str:
        return f"postgresql://{SUPERUSER}@127.0.0.1:{self.port}/{database}"

    def create_database(self, name: str) -> str:
        """Create an empty database and return its URL."""
        subprocess.run([self.binaries / "createdb", "--maintenance-db", self.url("postgres"), name], check=True)
        return self.url(name)

    def execute(self, database: str, sql: str) -> str:
        """Run a statement and return its rows as psql prints them, without headers."""
        command = [
            self.binaries / "psql",
            "-X",
            "-q",
            "-A",
            "-t",
            "-v",
            "ON_ERROR_STOP=1",
            "-c",
            sql,
            self.url(database),
        ]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@contextmanager
def temporary_server(settings: dict[str, str] = SETTINGS) -> Iterator[PostgresServer]:
    """Run a new PostgreSQL server on a free port; stop it and delete its data at the end."""
    binaries = _find_binaries()
    directory = Path(tempfile.mkdtemp(prefix="postgres-"))
    data = directory / "data"
    run_as = _unprivileged_owner(directory)
    port = free_port()
    options = [f"-p {port}", f"-k {directory}", "-c listen_addresses=127.0.0.1"]
    options += [f"-c {name}={value}" for name, value in settings.items()]
    control = [*run_as, binaries / "pg_ctl", "-D", data, "-s", "-w", "-t", str(START_SECONDS)]
    try:
        locale = ["-E", "UTF8", "--locale=C.UTF-8"]
        _run([*run_as, binaries / "initdb", "-D", data, "-U", SUPERUSER, "-A", "trust", *locale], directory)
        _run([*control, "-l", data / "log", "-o", " ".join(options), "start"], directory)
        pid = int((data / "postmaster.pid").read_text().split()[0])
        server = PostgresServer(binaries, port, pid, _version(binaries), settings)
        yield server
    finally:
        if (data / "postmaster.pid").exists():
            subprocess.run([*control, "-m", "immediate", "stop"], cwd=directory)
        shutil.rmtree(directory, ignore_errors=True)


def _find_binaries() -> Path:
    """Return the directory of the newest installed PostgreSQL server; install one if there is none."""
    binaries = _newest_installed()
    if binaries is None:
        install_package("postgresql")
        binaries = _newest_installed()
    if binaries is None:
        sys.exit("Error: The package postgresql has no initdb in /usr/lib/postgresql.")
    return binaries


def _newest_installed() -> Path | None:
    # Debian keeps the binaries of the server out of PATH, one directory for each major version.
    initdb = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parent.parent.name), reverse=True
    )
    in_path = shutil.which("initdb")
    return initdb[0].parent if initdb else Path(in_path).parent if in_path else None


def _unprivileged_owner(directory: Path) -> list[str]:
    """Return the command prefix that runs a server in `directory`: PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return []
    if subprocess.run(["id", SUPERUSER], capture_output=True).returncode:
        subprocess.run(["useradd", "--system", SUPERUSER], check=True)
    shutil.chown(directory, SUPERUSER)
    directory.chmod(0o755)
    return ["runuser", "-u", SUPERUSER, "--"]


def _version(binaries: Path) -> str:
    output = subprocess.run([binaries / "postgres", "--version"], check=True, capture_output=True, text=True).stdout
    number = re.search(r"\d+(\.\d+)*", output)
    return number[0] if number else output.strip()


def _run(command: list, directory: Path) -> None:
    # PostgreSQL's programs change to the current directory, which their user may not enter.
    result = subprocess.run(command, cwd=directory, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if result.returncode:
        sys.exit(f"Error: {' '.join(map(str, command))} failed: {result.stderr.strip()}")
