"""Measure every list, filter, sort and search of the application, in this process.

python benchmarks/lists.py [--only stocks] [--times 7] [--slow 20]
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

from cases import Case, Personas, all_cases
from django.db import connection
from rest_framework import serializers
from rest_framework.renderers import JSONRenderer

from records.rest.columns import select_columns
from records.rest.pagination.keyset import Position, sort_keys
from records.rest.renderers import ORJSONRenderer
from stocks.models import Stock
from stocks.serializers import StockSerializer
from stocks.views import StockViewSet
from users.models import User
from users.views.users import UserViewSet

MAX_SECONDS_PER_CASE = 3.0


class StatementRecorder:
    """Record the statements of a block and their total time."""

    def __init__(self) -> None:
        self.seconds, self.statements = 0.0, []

    def __call__(self, execute: Callable, sql: str, params: Any, many: bool, context: dict) -> Any:
        started = time.perf_counter()
        try:
            return execute(sql, params, many, context)
        finally:
            self.seconds += time.perf_counter() - started
            self.statements.append((sql, params))


@contextmanager
def recorded_statements():
    recorder = StatementRecorder()
    with connection.execute_wrapper(recorder):
        yield recorder


def measure(client: Any, path: str, times: int) -> dict[str, Any]:
    response = client.get(path)  # warm up
    total_times, database_times, started = [], [], time.perf_counter()
    while len(total_times) < times and (len(total_times) < 2 or time.perf_counter() - started < MAX_SECONDS_PER_CASE):
        with recorded_statements() as recorder:
            start = time.perf_counter()
            response = client.get(path)
            total_times.append((time.perf_counter() - start) * 1000)
        database_times.append(recorder.seconds * 1000)
    body = json.loads(response.content)
    return {
        "status": response.status_code,
        "queries": len(recorder.statements),
        "ms": statistics.median(total_times),
        "db": statistics.median(database_times),
        "rows": len(body.get("items", body.get("by_symbol", [body]))),
        "total": f"{'~' if body.get('total_is_estimate') else ''}{body.get('total', '')}",
        "body": body,
    }


def print_table(cases: list[Case], personas: Personas, times: int, slow: float) -> None:
    clients = {persona: personas.client(persona) for persona in ("superuser", "owner")}
    print(f"{'case':44} {'status':>6} {'SQL':>3} {'ms':>8} {'db ms':>8} {'rows':>4} {'total':>9}")
    for case in cases:
        result = measure(clients[case.persona], personas.path(case), times)
        marker = " <<<" if result["db"] > slow else ""
        print(
            f"{case.name:44} {result['status']:6} {result['queries']:3} {result['ms']:8.1f} {result['db']:8.1f} "
            f"{result['rows']:4} {result['total']:>9}{marker}",
            flush=True,
        )


def print_cursor_depth(personas: Personas, times: int) -> None:
    """Measure cursor pages near the start and near the end of the list, in both directions."""
    client = personas.client("superuser")
    print(f"\n{'cursor':34} {'shallow ms':>10} {'deep ms':>8} {'deep/shallow':>12}  (time in the database)")
    for model, view, path, sorts in (
        (
            Stock,
            StockViewSet,
            "/api/v1/stocks",
            ("id", "price", "-price", "name", "-name", "created_at", "-created_at"),
        ),
        (User, UserViewSet, "/api/v1/users", ("id", "age", "-age", "name", "-name")),
    ):
        number = model.objects.count()
        for sort in sorts:
            keys = sort_keys(model, view.sort_fields, sort, "asc")
            ordered = model.objects.order_by(*(key.ordering() for key in keys)).values_list(*(key.name for key in keys))
            offsets = {"shallow": 10, "deep": number * 9 // 10, "middle": number // 20}
            cursor_values = {label: ordered[index] for label, index in offsets.items()}
            for backwards in (False, True):
                milliseconds = {}
                for label, values in cursor_values.items():
                    token = Position(list(values), backwards).token(keys, f"cursor.{model._meta.label_lower}")
                    milliseconds[label] = measure(client, f"{path}?sort_by={sort}&cursor={token}", times)["db"]
                # The tenth row has few predecessors: backwards, compare with a page in the middle.
                shallow = milliseconds["middle" if backwards else "shallow"]
                name = f"{model._meta.db_table} by {sort}, {'backwards' if backwards else 'forwards'}"
                print(
                    f"{name:34} {shallow:10.2f} {milliseconds['deep']:8.2f} {milliseconds['deep'] / shallow:12.2f}",
                    flush=True,
                )


def print_serializer_comparison(personas: Personas) -> None:
    """Compare the CPU time of the list endpoint with that of DRF's defaults for 100 rows."""

    class PlainSerializer(serializers.ModelSerializer):
        user_id = serializers.IntegerField(source="owner_id")

        class Meta:
            model = Stock
            fields = StockSerializer.Meta.fields

    client = personas.client("superuser")
    first = Stock.objects.order_by("id")[:100]

    def plain() -> bytes:
        return JSONRenderer().render(PlainSerializer(first.all(), many=True).data)

    def columns() -> bytes:
        return ORJSONRenderer().render(list(select_columns(first.all(), StockSerializer)))

    def endpoint() -> bytes:
        return client.get("/api/v1/stocks?size=100&count=none").content

    results = [json.loads(plain()), json.loads(columns()), json.loads(endpoint())["items"]]
    cpu_times = {name: cpu(call) for name, call in (("plain", plain), ("columns", columns), ("endpoint", endpoint))}
    is_same = [row["id"] for row in results[0]] == [row["id"] for row in results[2]]
    print(f"\n100 stocks (same rows: {is_same}), CPU ms, median:")
    print(f"  ModelSerializer and JSONRenderer, alone            {cpu_times['plain']:6.2f}")
    print(f"  columns and orjson, alone                          {cpu_times['columns']:6.2f}")
    print(f"  the endpoint: middleware, token, session query, page    {cpu_times['endpoint']:6.2f}")
    print(f"  ratio plain / columns                                   {cpu_times['plain'] / cpu_times['columns']:6.1f}")


def cpu(call: Callable[[], Any], times: int = 60) -> float:
    milliseconds = []
    for _ in range(times):
        started = time.process_time()
        call()
        milliseconds.append((time.process_time() - started) * 1000)
    return statistics.median(milliseconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--only", default="", help="measure only cases whose name contains this, without depth and comparison"
    )
    parser.add_argument("--times", type=int, default=7, help="measurements per case; the median is printed")
    parser.add_argument("--slow", type=float, default=20, help="mark cases that take more ms in the database")
    options = parser.parse_args()
    personas = Personas()
    cases = [case for case in all_cases() if options.only in case.name]
    print(f"{connection.vendor}: {User.objects.count():,} users, {Stock.objects.count():,} stocks")
    print_table(cases, personas, options.times, options.slow)
    if not options.only:
        print_cursor_depth(personas, options.times)
        print_serializer_comparison(personas)


if __name__ == "__main__":
    main()
