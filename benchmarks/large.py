"""Measure requests with 10,000, 1,000,000 and 10,000,000 stocks, and compare the largest table with the smallest.

    python benchmarks/large.py [--sizes 10000,1000000,10000000] [--rounds 3] [--output FILE]
    python benchmarks/large.py --databases URL,URL     # databases that load.py has filled, the smallest first

Each size has a database of its own in a temporary PostgreSQL server, with one user for ten stocks. 10,000,000 stocks
need 10 GB of disk space and about half an hour.
"""

import argparse
import json
import os
import secrets
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from operator import itemgetter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
#: The largest median may be this many times the smallest table's.
LIMIT = 1.3
#: Stocks of the user whose portfolio and stocks are read, at every size.
HOLDINGS = 60
REQUESTS = 15
MAX_SECONDS_PER_CASE = 3.0

CASES = {
    "first page": "/api/v1/stocks",
    "cursor page": "/api/v1/stocks?sort_by=price&cursor={cursor}",
    "filtered page": "/api/v1/stocks?name=MSFT",
    "search": "/api/v1/stocks?search=aapl",
    "user's stocks": "/api/v1/users/{owner}/stocks",
    "portfolio": "/api/v1/users/{owner}/portfolio",
    "create": "POST /api/v1/stocks",
    "count": "/api/v1/stocks?is_active=true&size=1",
    "search 1 letter, none": "/api/v1/stocks?search=7",
    "search 2 letters, few": "/api/v1/stocks?search=qq",
    "search 2 letters by price": "/api/v1/stocks?search=aa&sort_by=-price",
    "search by price": "/api/v1/stocks?search=aapl&sort_by=price",
    "symbol by price": "/api/v1/stocks?name=AAPL&sort_by=price",
    "two symbols by price": "/api/v1/stocks?name__in=AAPL,MSFT&sort_by=price",
    "recent by id": "/api/v1/stocks?created_at__gte=2025-06-01T00:00:00Z",
    "old by id, last first": "/api/v1/stocks?created_at__lte=2024-06-01T00:00:00Z&sort_by=-id",
    "users: search, none": "/api/v1/users?search=qq",
    "users: recent by id": "/api/v1/users?created_at__gte=2025-06-01T00:00:00Z",
    "admin by is_active": "/admin/stocks/stock/?o=5",
    "admin search, none": "/admin/stocks/stock/?q=7",
    "admin, last page": "/admin/stocks/stock/?p={page}",
}


def measure() -> dict[str, dict[str, float]]:
    """Return the medians of total, CPU and database milliseconds of each case, in the configured database."""
    import cases  # noqa: F401 - sets up Django
    from django.db.models import Count, Q
    from django.test import Client
    from lists import recorded_statements
    from rest_framework.test import APIClient

    from records.rest.pagination.counting import recent_estimates
    from stocks.models import Stock
    from users.access_tokens import access_token
    from users.models import Session, User
    from users.models.session import Device

    admin = User.objects.filter(username="bench-admin").first()
    admin = admin or User.objects.create_superuser("bench-admin", "bench-admin@example.com")
    holders = User.objects.active().annotate(live=Count("stocks", filter=Q(stocks__deleted_at=None)))
    owner = holders.filter(live=HOLDINGS, is_staff=False).order_by("id").first() or admin
    api, browser = APIClient(), Client()
    api.credentials(HTTP_AUTHORIZATION=f"Bearer {access_token(Session.objects.start(admin, Device(None, '')))}")
    browser.force_login(admin)
    following = api.get("/api/v1/stocks?sort_by=price&cursor=").json()["links"]["next"]
    values = {
        "owner": owner.pk,
        "cursor": following.split("cursor=")[1].split("&")[0],
        "page": min(2_000, max(1, Stock.objects.count() // 50)),
    }

    def request(path: str) -> Any:
        if path.startswith("POST "):
            return api.post(path.removeprefix("POST "), {"name": "AAPL", "price": 175.5, "quantity": 10}, format="json")
        return (browser if path.startswith("/admin") else api).get(path)

    results = {}
    for name, template in CASES.items():
        path = template.format(**values)
        samples: list[tuple[float, float, float]] = []
        started = time.perf_counter()
        for _ in range(3):
            response = request(path)
        if response.status_code >= 300:
            sys.exit(f"Error: {path} answered {response.status_code}: {response.content[:200]!r}")
        while len(samples) < REQUESTS and (len(samples) < 3 or time.perf_counter() - started < MAX_SECONDS_PER_CASE):
            if name == "count":
                recent_estimates.clear()  # which are kept for five seconds
            samples.append(_sample(lambda path=path: request(path), recorded_statements))
        total, cpu, database = (statistics.median(times) for times in zip(*samples, strict=True))
        results[name] = {"total": total, "cpu": cpu, "database": database}
    return results


def _sample(call: Callable[[], Any], recorded_statements: Any) -> tuple[float, float, float]:
    with recorded_statements() as recorder:
        start, cpu = time.perf_counter(), time.process_time()
        call()
        cpu_seconds, seconds = time.process_time() - cpu, time.perf_counter() - start
    return seconds * 1000, cpu_seconds * 1000, recorder.seconds * 1000


def load(url: str, stocks: int) -> None:
    for command in (
        ["manage.py", "migrate", "-v", "0"],
        ["benchmarks/load.py", "--stocks", str(stocks), "--users", str(stocks // 10)],
    ):
        subprocess.run([sys.executable, *command], cwd=ROOT, env=_environment(url), check=True)


def measure_in_process(url: str) -> dict[str, dict[str, float]]:
    command = [sys.executable, __file__, "--measure"]
    output = subprocess.run(command, cwd=ROOT, env=_environment(url), check=True, stdout=subprocess.PIPE).stdout
    results: dict[str, dict[str, float]] = json.loads(output)
    return results


def _environment(url: str) -> dict[str, str]:
    # A limit would end the statements whose time is measured.
    limits = {"STATEMENT_TIMEOUT": "0", "THROTTLE_USER": "1000000/min", "LOG_LEVEL": "ERROR"}
    return os.environ | limits | {"DATABASE_URL": url, "SECRET_KEY": secrets.token_urlsafe(64)}


def fastest(results: Iterable[dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Return the medians of each case in the round in which it took the least time."""
    rounds = list(results)
    return {case: min((result[case] for result in rounds), key=itemgetter("total")) for case in CASES}


def table(names: list[str], results: list[dict[str, dict[str, float]]]) -> str:
    """Return a Markdown table: for each size the total time and, in parentheses, process CPU + database."""
    lines = [f"| ms, median: total (process CPU + database) | {' | '.join(names)} | largest / smallest |"]
    lines.append("|---" * (len(names) + 2) + "|")
    for case in CASES:
        medians = [result[case] for result in results]
        cells = [f"{item['total']:.1f} ({item['cpu']:.1f} + {item['database']:.1f})" for item in medians]
        ratio = medians[-1]["total"] / medians[0]["total"]
        lines.append(f"| {case} | {' | '.join(cells)} | {ratio:.2f}{' (!)' if ratio > LIMIT else ''} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="10000,1000000,10000000", help="numbers of stocks, the smallest first")
    parser.add_argument("--databases", help="measure these databases instead, the smallest first")
    # The fastest round counts, because others may use the machine too.
    parser.add_argument("--rounds", type=int, default=3, help="times that all databases are measured in turn")
    parser.add_argument("--output", type=Path, help="write the table to this file too")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure()))
        return
    with ExitStack() as stack:
        if options.databases:
            urls = {url.rpartition("/")[2]: url for url in options.databases.split(",")}
        else:
            from postgres import temporary_server

            server = stack.enter_context(temporary_server())
            sizes = [int(size) for size in options.sizes.split(",")]
            urls = {f"{size:,}": server.create_database(f"stocks_{size}") for size in sizes}
            for size, url in zip(sizes, urls.values(), strict=True):
                load(url, size)
        rounds = [[measure_in_process(url) for url in urls.values()] for _ in range(options.rounds)]
        text = table(list(urls), [fastest(results) for results in zip(*rounds, strict=True)])
    print(text)
    if options.output:
        options.output.write_text(f"{text}\n")


if __name__ == "__main__":
    main()
