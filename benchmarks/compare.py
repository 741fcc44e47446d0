"""Measure this service and its peers: the same data, the same load, alternating. `make bench` runs this program.

It prints the results and writes them to RESULTS.md, unless --only or --loads leaves some out.
"""

import argparse
import json
import os
import random
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from loads import CREATE, LIST, LOADS, NEW_STOCK, STOCK, VARYING, Targets, paths
from measure import Load, LoadError, LoadResult, Measurement, measure, run_load, wait_until_idle, worker_memory
from postgres import PostgresServer, temporary_server
from report import RESULTS, Contention, Measurements, Results, Snapshot, render
from servers import (
    PEERS_PYTHON,
    PROJECT,
    SERVICES,
    THIS_SERVICE,
    WORKERS,
    RunningServer,
    Service,
    redis_server,
    running,
)
from system import require_program

DATABASE = "bench"
CONNECTIONS = 8
MORE_CONNECTIONS = (8, 64, 200)
LATENCY_SECONDS = 5
#: Long enough for the slow searches, and less than the 10 s that the server waits for a body.
CONTENTION_SECONDS = 8
STARTS = 3
MEMORY_REQUESTS = 100_000
#: Seconds after which the program serves no more requests to reach MEMORY_REQUESTS.
TIME_LIMIT = 13 * 60

#: No symbol contains it. PostgreSQL checks all million rows, because its trigrams need three letters.
SLOW_PATH = "/stocks?search=7X"
SLOW_SEARCHES = 2
SLOW_BODIES = 32


@dataclass
class Benchmark:
    postgres: PostgresServer
    targets: Targets
    #: Running servers by the name of their service.
    servers: dict[str, RunningServer]
    seconds: int
    #: Processes that this service needs besides its own.
    helpers: list[int] = field(default_factory=list)
    #: Requests that each service has served.
    served: dict[str, int] = field(default_factory=dict)

    def load(self, service: Service, requested: list[str], body: Any = None) -> Load:
        headers = {"Authorization": f"Bearer {self.targets.token}"} if service is THIS_SERVICE else {}
        return Load([service.prefix + path for path in requested], body, headers)

    def named_load(self, service: Service, name: str) -> Load:
        return self.load(service, paths(name, self.targets), NEW_STOCK if name == CREATE else None)

    def run(self, service: Service, load: Load, seconds: int, connections: int = CONNECTIONS) -> LoadResult:
        """Send requests without measuring CPU time."""
        with self._ready(service, load):
            result = run_load(self.servers[service.name].url, load, seconds, connections)
        self._count(service, result)
        return result

    def measure(self, service: Service, load: Load) -> Measurement:
        server = self.servers[service.name]
        processes = [server.pid, *(self.helpers if service is THIS_SERVICE else [])]
        with self._ready(service, load):
            measurement = measure(server.url, load, self.seconds, CONNECTIONS, processes, self.postgres.pid)
        self._count(service, measurement.load)
        return measurement

    def snapshot(self, moment: str, services: list[Service]) -> Snapshot:
        workers = {service.name: worker_memory(self.servers[service.name].pid, WORKERS) for service in services}
        return Snapshot(moment, dict(self.served), workers)

    @contextmanager
    def _ready(self, service: Service, load: Load) -> Iterator[None]:
        """Wait until the requests of the previous load have ended. Name the load if one of its requests fails."""
        wait_until_idle([server.pid for server in self.servers.values()])
        try:
            yield
        except LoadError as error:
            raise LoadError(f"{service.name}, {load.paths[0]}: {error}") from None

    def _count(self, service: Service, result: LoadResult) -> None:
        self.served[service.name] = self.served.get(service.name, 0) + result.requests


def prepare_database(postgres: PostgresServer, environment: dict[str, str]) -> Targets:
    """Create and fill the tables; return what to request."""
    # Loading a million rows takes longer than a statement of a request may.
    unlimited = os.environ | environment | THIS_SERVICE.environment | {"STATEMENT_TIMEOUT": "0", "LOCK_TIMEOUT": "0"}

    def run(*command: str) -> str:
        process = subprocess.run(
            [sys.executable, *command], cwd=PROJECT, env=unlimited, stdout=subprocess.PIPE, text=True
        )
        if process.returncode:
            sys.exit(f"Error: {' '.join(command)} failed.")
        return process.stdout

    postgres.create_database(DATABASE)
    run("manage.py", "migrate", "--verbosity", "0")
    run("benchmarks/load.py")
    targets = Targets(**json.loads(run("benchmarks/targets.py")))
    postgres.execute(DATABASE, "CHECKPOINT")
    return targets


def verify(benchmark: Benchmark, services: list[Service], names: list[str]) -> None:
    """Exit unless all services give the same stocks and the same user."""
    for name in names:
        expected = _sample(benchmark, THIS_SERVICE, name)
        for service in services:
            found = _sample(benchmark, service, name)
            if found != expected:
                sys.exit(f"Error: {service.name}, {name}: expected {str(expected)[:500]} …, got {str(found)[:500]} …")


def _sample(benchmark: Benchmark, service: Service, name: str) -> Any:
    """Return what a response contains, without envelopes, totals and fields that vary."""
    load = benchmark.named_load(service, name)
    data = None if load.body is None else json.dumps(load.body).encode()
    headers = {"Content-Type": "application/json", **load.headers}
    request = urllib.request.Request(benchmark.servers[service.name].url + load.paths[0], data, headers)
    with urllib.request.urlopen(request) as response:
        body = json.load(response)
    if name == CREATE:
        return sorted(body), {key: value for key, value in body.items() if key not in VARYING}
    if isinstance(body, dict):
        body.pop("stocks_total", None)
        return body.get("items") or body.get("results") or body
    return body


def warm_up(benchmark: Benchmark, services: list[Service], names: list[str]) -> None:
    """Fill caches and pools, before the memory and the loads are measured."""
    for service in services:
        for name in names:
            benchmark.run(service, benchmark.named_load(service, name), seconds=1)


def run_round(benchmark: Benchmark, services: list[Service], names: list[str]) -> Measurements:
    """Measure each load on all services, one after the other."""
    measurements: Measurements = {}
    for name in names:
        # Entries that wait for the index of the search: the next INSERTs of any service would have to insert them.
        benchmark.postgres.execute(DATABASE, "SELECT gin_clean_pending_list('stocks_search')")
        for service in services:
            measurement = benchmark.measure(service, benchmark.named_load(service, name))
            measurements[name, service.name] = measurement
            say(
                f"  {name}, {service.name}: {measurement.load.rate:,.0f} requests/s, "
                f"CPU {measurement.server_cpu:.2f} + {measurement.postgres_cpu:.2f} ms"
            )
    return measurements


def measure_connections(benchmark: Benchmark) -> dict[tuple[str, int], LoadResult]:
    """Return the results of this service by load and number of connections."""
    return {
        (name, connections): benchmark.run(
            THIS_SERVICE, benchmark.named_load(THIS_SERVICE, name), LATENCY_SECONDS, connections
        )
        for name in (LIST, STOCK)
        for connections in MORE_CONNECTIONS
    }


def measure_contention(benchmark: Benchmark, name: str) -> Contention:
    """Measure a load on its own, during slow searches, and during bodies that arrive slowly."""
    load = benchmark.named_load(THIS_SERVICE, name)
    slow = benchmark.load(THIS_SERVICE, [SLOW_PATH])
    url = benchmark.servers[THIS_SERVICE.name].url
    alone = benchmark.run(THIS_SERVICE, load, CONTENTION_SECONDS)
    with ThreadPoolExecutor() as executor:
        searches = executor.submit(run_load, url, slow, CONTENTION_SECONDS, SLOW_SEARCHES)
        with_searches = benchmark.run(THIS_SERVICE, load, CONTENTION_SECONDS)
        slow_searches = searches.result()
    with slow_bodies(benchmark):
        with_bodies = benchmark.run(THIS_SERVICE, load, CONTENTION_SECONDS)
    return Contention(name, alone, with_searches, with_bodies, SLOW_SEARCHES, slow_searches, SLOW_BODIES)


@contextmanager
def slow_bodies(benchmark: Benchmark) -> Iterator[None]:
    """Send requests whose bodies never end, a byte every 100 ms."""
    server = benchmark.servers[THIS_SERVICE.name]
    head = (
        f"POST {THIS_SERVICE.prefix}/stocks HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {benchmark.targets.token}\r\nContent-Length: 10000\r\n\r\n"
    )
    with ExitStack() as stack:
        clients = [
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port))) for _ in range(SLOW_BODIES)
        ]
        for client in clients:
            client.sendall(head.encode())
        is_over = threading.Event()

        def send() -> None:
            while not is_over.wait(0.1):
                for client in clients:
                    with suppress(OSError):  # the server refuses bodies that take too long
                        client.sendall(b" ")

        sender = threading.Thread(target=send)
        sender.start()
        try:
            yield
        finally:
            is_over.set()
            sender.join()


def serve_requests(benchmark: Benchmark, deadline: float) -> None:
    """Send reads to this service until it has served MEMORY_REQUESTS, or until the deadline."""
    mixed = [
        path for name in LOADS if name != CREATE for path in random.choices(paths(name, benchmark.targets), k=1_000)
    ]
    load = benchmark.load(THIS_SERVICE, mixed)
    while benchmark.served[THIS_SERVICE.name] < MEMORY_REQUESTS and time.monotonic() < deadline:
        benchmark.run(THIS_SERVICE, load, seconds=10)


def run_benchmark(options: argparse.Namespace, stack: ExitStack) -> Results:
    started = time.monotonic()
    services = [service for service in SERVICES if service is THIS_SERVICE or service.name in options.only]
    postgres = stack.enter_context(temporary_server())
    environment = {"DATABASE_URL": postgres.url(DATABASE), "SECRET_KEY": secrets.token_urlsafe(64)}
    helpers: list[int] = []
    if options.redis:
        pid, environment["CACHE_URL"] = stack.enter_context(redis_server())
        helpers.append(pid)
    say("Loading 100,000 users and 1,000,000 stocks …")
    targets = prepare_database(postgres, environment)
    environment["OWNER_ID"] = str(targets.owner)
    starts = measure_starts(environment)
    servers = {service.name: stack.enter_context(running(service, environment)) for service in services}
    benchmark = Benchmark(postgres, targets, servers, options.seconds, helpers)
    verify(benchmark, services, options.loads)
    warm_up(benchmark, services, options.loads)
    memory = [benchmark.snapshot("warm-up", services)]
    rounds = []
    for number in range(options.rounds):
        say(f"Round {number + 1} of {options.rounds} …")
        rotated = services[number % len(services) :] + services[: number % len(services)]
        rounds.append(run_round(benchmark, rotated, options.loads))
        if number == 0:
            memory.append(benchmark.snapshot("first round", services))
    say("Latency with more connections, and during slow requests …")
    connections = measure_connections(benchmark)
    contention = [measure_contention(benchmark, name) for name in (LIST, STOCK)]
    memory.append(benchmark.snapshot("latency", services))
    say(f"Serving requests up to {MEMORY_REQUESTS:,} …")
    serve_requests(benchmark, started + TIME_LIMIT)
    memory.append(benchmark.snapshot("end", services))
    return Results(
        options=options,
        services=services,
        postgres=postgres,
        rounds=rounds,
        connections=connections,
        contention=contention,
        starts=starts,
        memory=memory,
        seconds=time.monotonic() - started,
    )


def measure_starts(environment: dict[str, str]) -> list[float]:
    """Return the seconds in which this service starts on a migrated database, until /ping answers."""
    seconds = []
    for _ in range(STARTS + 1):
        with running(THIS_SERVICE, environment) as server:
            seconds.append(server.start_seconds)
    return seconds[1:]  # the first start collects static files


def say(text: str) -> None:
    print(text, flush=True)


def parse_options() -> argparse.Namespace:
    peers = [service.name for service in SERVICES if service is not THIS_SERVICE]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=4, help="duration of each measurement")
    parser.add_argument("--only", choices=peers, nargs="*", default=peers, help="peers to measure")
    parser.add_argument("--loads", choices=LOADS, nargs="+", default=LOADS)
    parser.add_argument("--redis", action="store_true", help="this service counts requests in Redis, not in SQLite")
    options = parser.parse_args()
    options.is_complete = len(options.only) == len(peers) and len(options.loads) == len(LOADS)
    return options


def main() -> None:
    options = parse_options()
    if options.only and not PEERS_PYTHON.exists():
        sys.exit("Error: The peers are not installed. Run `make bench`, which installs them.")
    require_program("wrk", "wrk")
    # Servers are stopped when the stack ends, which a signal would prevent.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        with ExitStack() as stack:
            results = run_benchmark(options, stack)
    except LoadError as error:
        sys.exit(f"Error: {error}")
    text = render(results)
    say(f"\n{text}")
    if options.is_complete:
        RESULTS.write_text(text)
        say(f"Written to {RESULTS.name}.")


if __name__ == "__main__":
    main()
