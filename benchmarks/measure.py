"""What a server does under load: requests, latency, CPU time and memory. For Linux, with wrk."""

import json
import os
import re
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from system import require_program

SCRIPT = Path(__file__).with_name("requests.lua")
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
#: Longer than any response takes. wrk counts slower responses as errors.
TIMEOUT_SECONDS = 30
#: A process tree is idle if it needs no more than this part of a core.
IDLE_SHARE = 0.2
IDLE_WAIT_SECONDS = 10


class LoadError(Exception):
    """Some requests of a load failed, so that its figures mean nothing."""


@dataclass(frozen=True)
class Load:
    """Requests to random paths, on connections that stay open and wait for each response."""

    paths: list[str]
    #: Sent as JSON by POST. None sends GET.
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class LoadResult:
    requests: int
    seconds: float
    #: Milliseconds.
    p50: float
    p99: float
    longest: float

    @property
    def rate(self) -> float:
        """The number of requests per second."""
        return self.requests / self.seconds


@dataclass(frozen=True)
class Measurement:
    load: LoadResult
    #: Milliseconds of CPU time per request.
    server_cpu: float
    postgres_cpu: float

    @property
    def total_cpu(self) -> float:
        return self.server_cpu + self.postgres_cpu


def median(measurements: list[Measurement]) -> Measurement:
    """Return the median of each figure."""

    def of(values: Iterable[float]) -> float:
        return statistics.median(values)

    loads = [measurement.load for measurement in measurements]
    load = LoadResult(
        requests=round(of(load.requests for load in loads)),
        seconds=of(load.seconds for load in loads),
        p50=of(load.p50 for load in loads),
        p99=of(load.p99 for load in loads),
        longest=of(load.longest for load in loads),
    )
    server_cpu = of(measurement.server_cpu for measurement in measurements)
    postgres_cpu = of(measurement.postgres_cpu for measurement in measurements)
    return Measurement(load, server_cpu, postgres_cpu)


def measure(url: str, load: Load, seconds: int, connections: int, server: list[int], postgres: int) -> Measurement:
    """Run a load and return its figures with the CPU time of both process trees.

    `server` are the processes that started the server, `postgres` is the first process of PostgreSQL.
    """
    before = cpu_seconds(server), cpu_seconds([postgres])
    result = run_load(url, load, seconds, connections)
    after = cpu_seconds(server), cpu_seconds([postgres])
    server_cpu, postgres_cpu = (
        (end - start) * 1000 / result.requests for start, end in zip(before, after, strict=True)
    )
    return Measurement(result, server_cpu, postgres_cpu)


def run_load(url: str, load: Load, seconds: int, connections: int) -> LoadResult:
    """Send requests to the server at `url` for some seconds; raise LoadError if a request fails."""
    with tempfile.TemporaryDirectory() as directory:
        paths = Path(directory, "paths")
        paths.write_text("\n".join(load.paths))
        arguments = [str(paths)]
        if load.body is not None:
            body = Path(directory, "body")
            body.write_text(json.dumps(load.body))
            arguments.append(str(body))
        headers = [f"-H{name}: {value}" for name, value in load.headers.items()]
        options = ["-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", f"{TIMEOUT_SECONDS}s", *headers]
        wrk = require_program("wrk", "wrk")
        command = [wrk, *options, "-s", str(SCRIPT), url, "--", *arguments]
        process = subprocess.run(command, capture_output=True, text=True)
    return _parse(process.stdout, process.stderr)


def _parse(output: str, errors: str) -> LoadResult:
    lines = [line for line in output.splitlines() if line.startswith("{")]
    if not lines:
        raise LoadError(f"wrk printed no figures: {output} {errors}")
    figures = json.loads(lines[-1])
    if figures["failed"] or figures["refused"] or not figures["requests"]:
        raise LoadError(
            f"Of {figures['requests']:,} requests, {figures['failed']:,} were answered with an error, and "
            f"{figures['refused']:,} connections failed or timed out."
        )
    return LoadResult(
        requests=figures["requests"],
        seconds=figures["duration"] / 1e6,
        p50=figures["p50"] / 1e3,
        p99=figures["p99"] / 1e3,
        longest=figures["max"] / 1e3,
    )


def cpu_seconds(roots: list[int]) -> float:
    """Return the CPU time of processes and all their descendants, those that have ended included."""
    stats = _process_stats()
    # utime, stime, and cutime and cstime, which have the times of children that ended and were waited for.
    ticks = sum(int(value) for pid in _tree(roots, stats) for value in stats[pid][11:15])
    return ticks / TICKS_PER_SECOND


def wait_until_idle(roots: list[int]) -> None:
    """Wait until a server has finished its requests, at most IDLE_WAIT_SECONDS.

    wrk does not wait for the last response of each connection. The next load would wait for these requests.
    """
    interval = 0.1
    deadline = time.monotonic() + IDLE_WAIT_SECONDS
    used = cpu_seconds(roots)
    while time.monotonic() < deadline:
        time.sleep(interval)
        before, used = used, cpu_seconds(roots)
        if used - before <= IDLE_SHARE * interval:
            return


@dataclass(frozen=True)
class Memory:
    """Memory of a process, in megabytes of 10^6 bytes."""

    #: All pages of the process in memory, including those that it shares with others.
    rss: float
    #: The same, but a page that several processes share is divided among them.
    pss: float


def worker_memory(root: int, workers: int) -> list[Memory]:
    """Return the memory of the largest descendants of a process: its workers, without helpers."""
    stats = _process_stats()
    children = [pid for pid in _tree([root], stats) if pid != root]
    return sorted(map(_memory, children), key=lambda memory: memory.rss, reverse=True)[:workers]


def _memory(pid: int) -> Memory:
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    kilobytes = {name: int(value) for name, value in re.findall(r"^(\w+): +(\d+) kB$", text, re.MULTILINE)}
    return Memory(kilobytes["Rss"] * 1024 / 1e6, kilobytes["Pss"] * 1024 / 1e6)


def _process_stats() -> dict[int, list[str]]:
    """Return the fields of /proc/*/stat that follow the name of the program, by process. See proc(5)."""
    stats = {}
    for directory in Path("/proc").iterdir():
        if directory.name.isdecimal():
            try:
                stats[int(directory.name)] = (directory / "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue  # it has ended
    return stats


def _tree(roots: list[int], stats: dict[int, list[str]]) -> set[int]:
    """Return processes and all their descendants."""
    children: dict[int, list[int]] = {}
    for pid, fields in stats.items():
        children.setdefault(int(fields[1]), []).append(pid)
    found: set[int] = set()
    waiting = [pid for pid in roots if pid in stats]
    while waiting:
        pid = waiting.pop()
        found.add(pid)
        waiting += children.get(pid, [])
    return found
