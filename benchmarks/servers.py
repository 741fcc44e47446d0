"""The servers that compare.py measures, and how they are started."""

import http.client
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from system import free_port, require_program

PROJECT = Path(__file__).resolve().parent.parent
PEERS = Path(__file__).resolve().parent / "peers"
PEERS_PYTHON = PEERS / ".venv" / "bin" / "python"

WORKERS = 2
START_SECONDS = 60
STOP_SECONDS = 20

#: Settings of this service that differ from the defaults. Limits and short-lived tokens would end a benchmark.
SETTINGS = {
    "WEB_WORKERS": str(WORKERS),
    "THROTTLE_USER": "1000000/min",
    "ACCESS_TOKEN_MINUTES": "600",
    "LOG_LEVEL": "WARNING",
}
#: The defaults of what a developer may have set otherwise in .env.
DEFAULTS = {"DEBUG": "false", "HTTPS": "false", "ALLOWED_HOSTS": "127.0.0.1", "MIGRATION_DATABASE_URL": ""}


@dataclass(frozen=True)
class Service:
    name: str
    #: The command without interpreter; {port} is the port to listen on.
    arguments: list[str]
    directory: Path = PEERS
    python: Path = PEERS_PYTHON
    #: Before the paths of stocks and users.
    prefix: str = ""
    #: A path that needs no token.
    ready_path: str = "/stocks?size=1"
    environment: dict[str, str] = field(default_factory=dict)


def _uvicorn(module: str) -> list[str]:
    quiet = ["--log-level", "warning", "--no-access-log"]
    return ["-m", "uvicorn", f"{module}:app", "--port", "{port}", "--workers", str(WORKERS), *quiet]


def _granian(module: str) -> list[str]:
    # Four threads in each of two workers, for eight connections. Threads that ended would have to connect again.
    threads = ["--blocking-threads", "4", "--blocking-threads-idle-timeout", "600"]
    options = ["--interface", "wsgi", "--port", "{port}", "--workers", str(WORKERS), *threads, "--no-ws", "--no-log"]
    return ["-m", "granian", *options, f"{module}:application"]


THIS_SERVICE = Service(
    "this service",
    ["manage.py", "serve"],
    directory=PROJECT,
    python=Path(sys.executable),
    prefix="/api/v1",
    ready_path="/ping",
    environment=SETTINGS | DEFAULTS,
)
FASTAPI_SYNC = Service("FastAPI sync", _uvicorn("fastapi_sync"))
FASTAPI_ASYNC = Service("FastAPI async", _uvicorn("fastapi_async"))
LITESTAR = Service("Litestar", _uvicorn("litestar_asyncpg"))
PLAIN_DRF = Service("plain DRF", _granian("plain_drf"))
BARE_WSGI = Service("bare WSGI", _granian("bare_wsgi"))
SERVICES = [THIS_SERVICE, FASTAPI_SYNC, FASTAPI_ASYNC, LITESTAR, PLAIN_DRF, BARE_WSGI]


@dataclass(frozen=True)
class RunningServer:
    service: Service
    pid: int
    port: int
    #: Seconds from the start of the process to the first successful response.
    start_seconds: float

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def running(service: Service, environment: dict[str, str]) -> Iterator[RunningServer]:
    """Start a server, wait until it responds, and stop it at the end. Exit with its output if it does not start."""
    port = free_port()
    arguments = [argument.format(port=port) for argument in service.arguments]
    variables = os.environ | environment | service.environment | {"PORT": str(port)}
    with tempfile.TemporaryFile("w+") as output:
        started = time.perf_counter()
        process = subprocess.Popen(
            [service.python, *arguments], cwd=service.directory, env=variables, stdout=output, stderr=output,
            start_new_session=True,
        )  # fmt: skip
        try:
            seconds = _wait_until_ready(process, port, service.ready_path, started)
            if seconds is None:
                output.seek(0)
                sys.exit(f"Error: {service.name} did not start:\n{output.read()}")
            yield RunningServer(service, process.pid, port, seconds)
        finally:
            _stop(process)


def _wait_until_ready(process: subprocess.Popen, port: int, path: str, started: float) -> float | None:
    """Return the seconds until the first response with status 200; None if there is none."""
    while process.poll() is None and time.perf_counter() < started + START_SECONDS:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=START_SECONDS)
        with suppress(OSError, http.client.HTTPException):
            connection.request("GET", path)
            if connection.getresponse().status == 200:
                return time.perf_counter() - started
        connection.close()
        time.sleep(0.005)
    return None


def _stop(process: subprocess.Popen) -> None:
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # workers that outlived their parent
    process.wait()


@contextmanager
def redis_server() -> Iterator[tuple[int, str]]:
    """Run a Redis server without persistence; yield its process and its URL."""
    port = free_port()
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    command = [require_program("redis-server", "redis-server"), *options]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        yield process.pid, f"redis://127.0.0.1:{port}/0"
    finally:
        _stop(process)
