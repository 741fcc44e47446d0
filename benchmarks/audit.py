"""Measure the audit log: a single change, repricing 100,000 stocks, undoing it, and reading ten million entries.

    python benchmarks/audit.py [--entries 10000000]

Changes alternate between runs with and without the INSERT into the audit log, in one process. CPU time includes the
database process if it runs on this machine. Needs PostgreSQL, filled by load.py.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

import django

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
django.setup()

from cases import Personas  # noqa: E402
from django.db import connection  # noqa: E402
from django.db.models import Count  # noqa: E402
from django.test.utils import CaptureQueriesContext, setup_test_environment  # noqa: E402

from records.audit.models import AuditEntry, AuditEntryQuerySet  # noqa: E402
from stocks.models import Stock  # noqa: E402

AUDIT_LOG = "/api/v1/admin/audit-logs"
SINGLE_TIMES, REPRICE_TIMES = 400, 5
REPRICED_STOCKS = 100_000


class Cost(NamedTuple):
    statements: int
    milliseconds: float
    cpu: float


def database_cpu() -> float:
    """Return the CPU seconds of the connection's server process, or 0 if it runs on another machine."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        path = Path(f"/proc/{cursor.fetchone()[0]}/stat")
    if not path.exists():
        return 0.0
    fields = path.read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(action: Callable[[], object], times: int) -> Cost:
    """Return the statements, median time and mean CPU time of an action, in milliseconds."""
    with CaptureQueriesContext(connection) as queries:
        action()
    control = ("BEGIN", "COMMIT", "SAVEPOINT", "RELEASE")
    statements = sum(not query["sql"].startswith(control) for query in queries)
    seconds = []
    cpu = time.process_time() + database_cpu()
    for _ in range(times):
        started = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - started)
    cpu = time.process_time() + database_cpu() - cpu
    return Cost(statements, statistics.median(seconds) * 1000, cpu / times * 1000)


def without_audit_log(action: Callable[[], object]) -> Callable[[], object]:
    def unaudited() -> None:
        record = AuditEntryQuerySet.record
        AuditEntryQuerySet.record = lambda *args, **kwargs: None
        try:
            action()
        finally:
            AuditEntryQuerySet.record = record

    return unaudited


def compare(name: str, action: Callable[[], object], times: int) -> None:
    # Alternate, so that other load on the machine affects both alike.
    rounds = [(measure(action, times), measure(without_audit_log(action), times)) for _ in range(3)]
    audited, unaudited = (min(costs, key=lambda cost: cost.cpu) for costs in zip(*rounds, strict=True))
    print(f"{name}")
    for label, cost in (("audited", audited), ("unaudited", unaudited)):
        print(f"  {label:10} {cost.statements} statements  {cost.milliseconds:9.2f} ms  {cost.cpu:9.2f} ms CPU")
    ratio = audited.cpu / unaudited.cpu
    print(f"  ratio      {audited.milliseconds / unaudited.milliseconds:.2f} of the time, {ratio:.2f} of the CPU")


def common_symbols(rows: int) -> list[str]:
    """Return symbols that together have at most `rows` active stocks."""
    selected, total = [], 0
    for name, count in Stock.objects.active().values_list("name").annotate(rows=Count("id")).order_by("rows"):
        if total + count <= rows:
            selected.append(name)
            total += count
    return selected


def fill(entries: int) -> None:
    current = AuditEntry.objects.count()
    if current >= entries:
        return
    print(f"filling the audit log to {entries:,} entries …", flush=True)
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO audit_log
                (at, action, outcome, user_id, object_type, object_id, owner_id, changes, ip, request_id)
            SELECT now() - (%s - n) * interval '3 seconds',
                CASE WHEN n %% 1000 = 0 THEN 'purge' WHEN n %% 20 = 0 THEN 'login' ELSE 'update' END,
                CASE WHEN n %% 5000 = 0 THEN 'failure' ELSE 'success' END,
                n %% 100000, CASE WHEN n %% 20 = 0 THEN 'users' ELSE 'stocks' END, (n %% 1000000)::text, n %% 100000,
                '{"price": [175.5, 190.25]}', '192.0.2.7', 'fill-' || n / 10
            FROM generate_series(1, %s) n
            """,
            [entries - current, entries - current],
        )
        cursor.execute("VACUUM ANALYZE audit_log")


QUERIES = [
    "", "page=500&size=200", "user_id=7", "action=purge", "action=update", "outcome=failure", "object_type=users",
    "object_type=stocks&object_id=4242", "object_id=4242", "owner_id=7", "request_id=fill-4242",
    "at__gte=2026-11-01T00:00:00Z", "at__lte=2026-01-01T00:00:00Z", "user_id=7&action=login", "cursor=&action=login",
]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--entries", type=int, default=10_000_000)
    options = parser.parse_args()
    setup_test_environment()
    personas = Personas()
    client, path = personas.client("superuser"), f"/api/v1/stocks/{personas.values['stock']}"
    prices = (Decimal(number) / 4 + 1 for number in range(10**9))

    def save() -> None:
        stock = Stock.objects.get(pk=personas.values["stock"])
        stock.price = next(prices)
        stock.save()

    def patch() -> None:
        assert client.patch(path, {"price": float(next(prices))}, format="json").status_code == 200

    symbols = common_symbols(REPRICED_STOCKS)
    rows = Stock.objects.active().filter(name__in=symbols).count()

    def reprice() -> None:
        Stock.objects.reprice(dict.fromkeys(symbols, next(prices)))

    compare("get and save() of one stock", save, SINGLE_TIMES)
    compare("PATCH of one stock", patch, SINGLE_TIMES)
    compare(f"reprice of {rows:,} stocks, {len(symbols)} symbols", reprice, REPRICE_TIMES)

    body = {"prices": dict.fromkeys(symbols, 7.25)}
    started = time.perf_counter()
    response = client.post("/api/v1/stocks/reprice", body, format="json")
    reprice_seconds = time.perf_counter() - started
    undo_response = client.post(f"{AUDIT_LOG}/undo", {"request_id": response.headers["X-Request-ID"]}, format="json")
    undo_seconds = time.perf_counter() - started - reprice_seconds
    print(f"POST /stocks/reprice {reprice_seconds:.2f} s; undo {undo_seconds:.2f} s: {undo_response.json()}")

    fill(options.entries)
    print(f"pages of {AuditEntry.objects.count():,} entries")
    for query in QUERIES:
        cost = measure(lambda query=query: client.get(f"{AUDIT_LOG}?{query}"), 20)
        print(f"  {query or '(all)':36} {cost.statements} statements  {cost.milliseconds:8.2f} ms")


main()
