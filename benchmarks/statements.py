"""Measure what compiling statements once saves: the same requests with and without it, alternating, in this process.

python benchmarks/statements.py [--rounds 15] [--requests 40]
"""

import argparse
import gc
import statistics
import time
from contextlib import contextmanager
from itertools import count
from unittest.mock import patch

from cases import Personas

from records.db.compiled.statements import StatementCache
from users.models import User

BODY = {"name": "AAPL", "price": 175.5, "quantity": 10}


@contextmanager
def uncompiled():
    """Let Django build and compile every query."""
    with patch.object(StatementCache, "get", lambda *arguments: None):
        yield


def milliseconds(request, times: int) -> float:
    """Return the CPU time of this process for one request. The database's own time is not part of it."""
    started = time.process_time()
    for _ in range(times):
        assert request().status_code < 300
    return (time.process_time() - started) * 1000 / times


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--requests", type=int, default=40)
    options = parser.parse_args()
    personas = Personas()
    client = personas.client("superuser")
    user = User.objects.filter(stocks__isnull=False).order_by("id")[100]
    stock = client.post("/api/v1/stocks", BODY, format="json").json()["id"]
    prices = count(1)
    requests = {
        "ping": lambda: client.get("/ping"),
        "one stock": lambda: client.get(f"/api/v1/stocks/{stock}"),
        "list of 100, no count": lambda: client.get("/api/v1/stocks?size=100&count=none"),
        "list of 100": lambda: client.get("/api/v1/stocks?size=100"),
        "cursor page of 100": lambda: client.get("/api/v1/stocks?size=100&cursor=&sort_by=price"),
        "a user with stocks": lambda: client.get(f"/api/v1/users/{user.pk}"),
        "a user's stocks": lambda: client.get(f"/api/v1/users/{user.pk}/stocks"),
        "create a stock": lambda: client.post("/api/v1/stocks", BODY, format="json"),
        "change a stock": lambda: client.patch(f"/api/v1/stocks/{stock}", {"price": next(prices)}, format="json"),
    }
    gc.collect()
    gc.freeze()
    print(f"{'request':24}{'uncompiled, ms':>16}{'compiled, ms':>16}{'ratio':>8}")
    for name, request in requests.items():
        times: dict[bool, list[float]] = {False: [], True: []}
        milliseconds(request, 5)
        for _ in range(options.rounds):
            times[True].append(milliseconds(request, options.requests))
            with uncompiled():
                times[False].append(milliseconds(request, options.requests))
        before, after = (statistics.median(times[is_compiled]) for is_compiled in (False, True))
        print(f"{name:24}{before:16.2f}{after:16.2f}{after / before:8.2f}")


if __name__ == "__main__":
    main()
