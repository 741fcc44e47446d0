"""RESULTS.md: the results of compare.py as text."""

import argparse
import importlib.metadata
import json
import platform
import statistics
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeAlias

from loads import CREATE, LIST, LOADS, STOCK, USER, USER_STOCKS
from measure import LoadResult, Measurement, Memory, median
from postgres import PostgresServer
from servers import (
    FASTAPI_ASYNC,
    FASTAPI_SYNC,
    LITESTAR,
    PEERS_PYTHON,
    PROJECT,
    SETTINGS,
    THIS_SERVICE,
    WORKERS,
    Service,
)
from system import describe_machine

RESULTS = Path(__file__).with_name("RESULTS.md")

PACKAGES = ["django", "djangorestframework", "granian", "psycopg2-binary", "orjson"]
PEER_PACKAGES = ["fastapi", "pydantic", "sqlalchemy", "asyncpg", "uvicorn", "uvloop", "litestar", "msgspec"]

MEMORY_LIMIT = 100  # MB a worker
START_LIMIT = 1  # seconds


#: Of one round, by load and service.
Measurements: TypeAlias = dict[tuple[str, str], Measurement]


@dataclass(frozen=True)
class Contention:
    """A load of this service on its own and during slow requests."""

    load: str
    alone: LoadResult
    with_searches: LoadResult
    with_bodies: LoadResult
    number_of_searches: int
    searches: LoadResult
    number_of_bodies: int


@dataclass(frozen=True)
class Snapshot:
    """The memory of the workers at one moment of the run, by service."""

    #: The part of the run that has ended.
    moment: str
    #: Requests that all workers of a service have served.
    served: dict[str, int]
    workers: dict[str, list[Memory]]

    def mean_pss(self, service: Service) -> float:
        """Return the memory of a worker in MB."""
        return statistics.mean(worker.pss for worker in self.workers[service.name])


@dataclass(frozen=True)
class Results:
    options: argparse.Namespace
    services: list[Service]
    postgres: PostgresServer
    rounds: list[Measurements]
    #: This service, by load and number of connections.
    connections: dict[tuple[str, int], LoadResult]
    contention: list[Contention]
    #: Seconds.
    starts: list[float]
    memory: list[Snapshot]
    seconds: float

    def ratio(self, load: str, peer: Service) -> float | None:
        """Return the total CPU time of this service divided by the peer's: the median of all rounds."""
        if (load, peer.name) not in self.rounds[0]:
            return None
        return statistics.median(
            measured[load, THIS_SERVICE.name].total_cpu / measured[load, peer.name].total_cpu
            for measured in self.rounds
        )


@dataclass(frozen=True)
class Goal:
    load: str
    peer: Service
    #: Upper limit of the ratio of total CPU time.
    limit: float


GOALS = [
    Goal(LIST, FASTAPI_SYNC, 0.6),
    Goal(LIST, FASTAPI_ASYNC, 1),
    Goal(USER, FASTAPI_SYNC, 0.6),
    Goal(USER, FASTAPI_ASYNC, 1),
    Goal(USER_STOCKS, FASTAPI_SYNC, 0.6),
    Goal(USER_STOCKS, FASTAPI_ASYNC, 1),
    Goal(STOCK, FASTAPI_ASYNC, 1.3),
    Goal(CREATE, FASTAPI_SYNC, 0.7),
]
#: Beyond these: cheaper than async FastAPI, and within twice the cost of Litestar.
FAR_GOALS = [Goal(load, peer, limit) for load in LOADS for peer, limit in ((FASTAPI_ASYNC, 1), (LITESTAR, 2))]


def render(results: Results) -> str:
    sections = [
        "# Results of `make bench`",
        _conditions(results),
        "## Requests, latency and CPU time",
        _measurements(results),
        "## Goals",
        _goals(results),
        "## Latency of this service with more connections",
        _connections(results),
        "## Latency of this service during slow requests",
        _contention(results),
        "## Memory and start",
        _memory(results),
    ]
    return "\n\n".join(sections) + "\n"


def _conditions(results: Results) -> str:
    options = results.options
    counters = "Redis" if options.redis else "the memory of each worker, the default"
    written = (
        f"Written by `benchmarks/compare.py` on {datetime.now(UTC):%Y-%m-%d} in {results.seconds / 60:.0f} minutes"
        f"{_commit()}; do not edit. [README.md](README.md#make-bench) describes what is measured."
    )
    machine = f"{describe_machine()}. The load generator, the servers and PostgreSQL share it."
    versions = f"Python {platform.python_version()}, PostgreSQL {results.postgres.version}, {_versions()}."
    load = (
        f"100,000 users, 1,000,000 stocks. Every server has {WORKERS} workers. wrk keeps 8 connections open. "
        f"{_count(options.rounds, 'round')} of {options.seconds} s for each load and service, alternating; medians of "
        "the rounds."
    )
    own_settings = (
        f"`manage.py serve` with {_assignments(SETTINGS)} and defaults otherwise. Its throttles count requests "
        f"in {counters}."
    )
    rows = {
        "Machine": machine,
        "Versions": versions,
        "Load": load,
        "This service": own_settings,
        "PostgreSQL": f"{_assignments(results.postgres.settings)}.",
    }
    return "\n".join([written, "", *(f"- {name}: {text}" for name, text in rows.items())])


def _assignments(settings: dict[str, str]) -> str:
    return ", ".join(f"`{name}={value}`" for name, value in settings.items())


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    process = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
    return f" at commit {process.stdout.strip()}" if process.returncode == 0 else ""


def _versions() -> str:
    code = f"import importlib.metadata as m, json; print(json.dumps({{p: m.version(p) for p in {PEER_PACKAGES}}}))"
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    if PEERS_PYTHON.exists():
        process = subprocess.run([PEERS_PYTHON, "-c", code], check=True, capture_output=True, text=True)
        versions |= json.loads(process.stdout)
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _measurements(results: Results) -> str:
    header = [
        "load", "service", "requests/s", "p50, ms", "p99, ms", "CPU of server, ms", "CPU of PostgreSQL, ms",
        "CPU total, ms", "ratio",
    ]  # fmt: skip
    rows = []
    for load in results.options.loads:
        for service in results.services:
            figures = median([measured[load, service.name] for measured in results.rounds])
            ratio = "" if service is THIS_SERVICE else f"{results.ratio(load, service):.2f}"
            rows.append(
                [
                    load if service is results.services[0] else "",
                    service.name,
                    f"{figures.load.rate:,.0f}",
                    f"{figures.load.p50:.1f}",
                    f"{figures.load.p99:.1f}",
                    f"{figures.server_cpu:.2f}",
                    f"{figures.postgres_cpu:.2f}",
                    f"{figures.total_cpu:.2f}",
                    ratio,
                ]
            )
    return (
        "CPU time is that of one request. Ratio: total CPU time of this service divided by the peer's; below 1, this "
        "service needs less.\n\n" + table(header, rows, left=2)
    )


def _goals(results: Results) -> str:
    header = ["load", "compared with", "ratio at most", "measured", "reached"]
    return (
        "Ratios of total CPU time.\n\n"
        + table(header, [_goal(results, goal) for goal in GOALS], left=2)
        + "\n\nBeyond that: cheaper than async FastAPI with every load, and within twice the cost of Litestar.\n\n"
        + table(header, [_goal(results, goal) for goal in FAR_GOALS], left=2)
    )


def _goal(results: Results, goal: Goal) -> list[str]:
    ratio = results.ratio(goal.load, goal.peer)
    verdict = ["–", "not measured"] if ratio is None else [f"{ratio:.2f}", "yes" if ratio <= goal.limit else "no"]
    return [goal.load, goal.peer.name, f"{goal.limit:g}", *verdict]


def _connections(results: Results) -> str:
    header = ["load", "connections", "requests/s", "p50, ms", "p99, ms"]
    rows = [
        [load, str(connections), f"{result.rate:,.0f}", f"{result.p50:.1f}", f"{result.p99:.1f}"]
        for (load, connections), result in results.connections.items()
    ]
    return table(header, rows, left=1)


def _contention(results: Results) -> str:
    header = ["load on 8 connections", "at the same time", "requests/s", "p50, ms", "p99, ms"]
    rows = []
    for case in results.contention:
        searches = f"{case.number_of_searches} searches at a time, which take {case.searches.p50:,.0f} ms each"
        bodies = f"{case.number_of_bodies} request bodies that arrive at 10 bytes a second"
        for name, result in (("nothing", case.alone), (searches, case.with_searches), (bodies, case.with_bodies)):
            load = case.load if result is case.alone else ""
            rows.append([load, name, f"{result.rate:,.0f}", f"{result.p50:.1f}", f"{result.p99:.1f}"])
    note = "The searches occupy PostgreSQL and with it the cores that all processes share; the bodies need no CPU time."
    return f"{note}\n\n{table(header, rows, left=2)}"


def _memory(results: Results) -> str:
    header = ["service", "after", "requests", "RSS, MB", "PSS, MB"]
    rows = []
    for name in (service.name for service in results.services):
        label, served = name, 0
        for snapshot in results.memory:
            if snapshot.served[name] == served:
                continue  # nothing has happened since the last one
            workers = snapshot.workers[name]
            sizes = [_each(worker.rss for worker in workers), _each(worker.pss for worker in workers)]
            rows.append([label, snapshot.moment, f"{snapshot.served[name]:,}", *sizes])
            label, served = "", snapshot.served[name]
    note = "Memory of each worker. PSS divides shared pages among the processes that share them."
    goals = f"{_memory_goal(results)}\n{_start_goal(results)}"
    return "\n\n".join([note, table(header, rows, left=2), goals])


def _memory_goal(results: Results) -> str:
    before, end = results.memory[-2:]
    largest = max(end.workers[THIS_SERVICE.name], key=lambda worker: worker.rss)
    growth = end.mean_pss(THIS_SERVICE) - before.mean_pss(THIS_SERVICE)
    served = end.served[THIS_SERVICE.name]
    return (
        f"- The largest worker of this service has {largest.rss:.0f} MB (RSS; PSS {largest.pss:.0f} MB) after "
        f"{served:,} requests. Goal: under {MEMORY_LIMIT} MB RSS, {_verdict(largest.rss < MEMORY_LIMIT)}. In the last "
        f"{served - before.served[THIS_SERVICE.name]:,} requests, its workers have grown by {growth:+.1f} MB (PSS) on "
        "average."
    )


def _start_goal(results: Results) -> str:
    start = statistics.median(results.starts)
    return (
        f"- This service starts in {start:.2f} s: from the start of the process, on a migrated database, to the first "
        f"response 200 of `/ping`; the median of {len(results.starts)} starts. Goal: under {START_LIMIT} s, "
        f"{_verdict(start < START_LIMIT)}."
    )


def _verdict(is_reached: bool) -> str:
    return "reached" if is_reached else "not reached"


def _each(values: Iterable[float]) -> str:
    return ", ".join(f"{value:.0f}" for value in values)


def table(header: list[str], rows: list[list[str]], left: int) -> str:
    """Return a Markdown table whose first `left` columns are aligned to the left, the others to the right."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]

    def line(cells: list[str]) -> str:
        aligned = (
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return f"| {' | '.join(aligned)} |"

    rule = ["-" * width if column < left else "-" * (width - 1) + ":" for column, width in enumerate(widths)]
    return "\n".join([line(header), line(rule), *map(line, rows)])
