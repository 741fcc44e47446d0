"""Fill the configured, migrated database with reproducible random users and stocks.

    python benchmarks/load.py [--users 100000] [--stocks 1000000]

The same numbers produce the same rows, except for their ids if the database was not empty.
"""

# ruff: noqa: E402 - models are imported after django.setup()

import argparse
import csv
import io
import itertools
import os
import random
import secrets
import string
import sys
import time
import uuid
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
os.environ.setdefault("SECRET_KEY", secrets.token_urlsafe(64))
# One statement checks the foreign keys of all rows.
os.environ["STATEMENT_TIMEOUT"] = "0"

import django

django.setup()

from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.db.models import Max, Model

from stocks.models import Stock
from users.models import User

SEED = 20_260_101
MAX_EXISTING_USERS = 100
FIRST_DAY = datetime(2024, 1, 1, tzinfo=UTC)
PERIOD = timedelta(days=730)
BATCH_SIZE = 50_000

FIRST_NAMES = """
    Alice Bob Carol David Emma Frank Grace Hans Ida Jonas Karl Lena Maria Nina Oscar Paula Quentin Rosa Stefan
    Tina Ulrich Vera Walter Xenia Yusuf Zoe Élodie Øyvind Ana Ben Clara Dario Elif Felix Greta Hugo Ines Jan Kai
    Lucia
""".split()  # noqa: SIM905 - shorter than a list with one name per line
LAST_NAMES = """
    Smith Jones Miller Garcia Meyer Rossi Novak Kowalski Silva Dubois Jensen Larsen Nguyen Kim Tanaka Singh Patel
    Khan Ivanova Petrov Andersson Costa Moreau Weber Fischer Wagner Becker Hoffmann Schulz Koch Bauer Richter
    Klein
""".split()  # noqa: SIM905 - shorter than a list with one name per line
EMAIL_DOMAINS = ("example.com", "example.org", "example.net", "mail.example.com", "post.example.org")
PROVIDERS = (None, "google", "github", "gitlab")
PROVIDER_WEIGHTS = (80, 15, 4.9, 0.1)


def symbols(rng: random.Random, number: int = 500) -> list[str]:
    common_symbols = ["AAPL", "GOOG", "MSFT", "AMZN", "TSLA", "BRK.B", "BF-B"]
    names: dict[str, None] = dict.fromkeys(common_symbols)
    while len(names) < number:
        names["".join(rng.choices(string.ascii_uppercase, k=rng.choice((3, 4, 4, 4, 5))))] = None
    return list(names)


def random_times(rng: random.Random, position: float) -> dict[str, object]:
    """Return times that roughly follow the position. A third of the rows has been updated later."""
    created = FIRST_DAY + PERIOD * position + timedelta(seconds=rng.uniform(0, 86_400))
    changed = rng.random() < 0.33
    updated = created + timedelta(seconds=rng.uniform(1, 8_000_000)) if changed else created
    return {"created_at": created, "updated_at": updated, "version": 2 if changed else 1}


def random_deletion(rng: random.Random, at: object) -> dict[str, object]:
    return {
        "deleted_at": at,
        "deleted_by": None,
        "deletion_reason": rng.choice(("", "on request", "duplicate")),
        "deletion": uuid.UUID(int=rng.getrandbits(128), version=4),
    }


def users(first_id: int, number: int) -> Iterator[dict[str, object]]:
    rng = random.Random(SEED)
    for index in range(number):
        first, last = rng.choice(FIRST_NAMES), rng.choice(LAST_NAMES)
        handle = f"{first}.{last}{index}".lower().replace("é", "e").replace("ø", "o")
        row = {
            "id": first_id + index,
            "username": handle,
            "email": f"{handle}@{rng.choice(EMAIL_DOMAINS)}",
            "password": "!",
            "name": f"{first} {last}" if rng.random() < 0.9 else None,
            "gender": rng.choices(("Male", "Female", None), (45, 45, 10))[0],
            "age": min(99, max(16, int(rng.gauss(42, 15)))) if rng.random() < 0.85 else None,
            "bio": f"Holds stocks since {rng.randint(1990, 2025)}." if rng.random() < 0.2 else None,
            "phone_number": f"+49 30 {rng.randint(100000, 999999)}" if rng.random() < 0.3 else None,
            "is_active": rng.random() >= 0.02,
            "is_verified": rng.random() < 0.7,
            "is_staff": rng.random() < 0.0005,
            "oauth_provider": rng.choices(PROVIDERS, PROVIDER_WEIGHTS)[0],
            **random_times(rng, index / number),
        }
        row["is_superuser"] = bool(row["is_staff"]) and rng.random() < 0.1
        if rng.random() < 0.01:
            row |= random_deletion(rng, row["updated_at"])
        yield row


def stocks(first_id: int, number: int, owners: list[int], deletions: dict[int, dict]) -> Iterator[dict[str, object]]:
    """Yield stocks. A few symbols and a few owners have most of them, the first owner a few thousand."""
    rng = random.Random(SEED + 1)
    names = symbols(rng)
    weights = list(itertools.accumulate(1 / rank for rank in range(1, len(names) + 1)))
    usual_prices = {name: rng.lognormvariate(4, 1.2) for name in names}
    for index in range(number):
        name = rng.choices(names, cum_weights=weights)[0]
        owner = owners[int(len(owners) * rng.random() ** 2)]
        row = {
            "id": first_id + index,
            "owner_id": owner,
            "name": name,
            "price": Decimal(max(1, int(usual_prices[name] * rng.uniform(0.7, 1.3) * 10_000))).scaleb(-4),
            "quantity": int(rng.lognormvariate(3, 1.5)) + 1,
            "is_active": rng.random() >= 0.02,
            **random_times(rng, index / number),
        }
        if owner in deletions:
            row |= deletions[owner]
        elif rng.random() < 0.01:
            row |= random_deletion(rng, row["updated_at"])
        yield row


def insert(model: type[Model], rows: Iterable[dict[str, object]], number: int) -> None:
    fields = model._meta.concrete_fields
    defaults = {field.attname: field.get_default() for field in fields}
    tuples = (tuple((defaults | row).values()) for row in rows)
    write_batch = _copy if connection.vendor == "postgresql" else _execute
    started, inserted = time.perf_counter(), 0
    while batch := list(itertools.islice(tuples, BATCH_SIZE)):
        write_batch(model, fields, batch)
        inserted += len(batch)
        rate = inserted / (time.perf_counter() - started)
        report(f"\r  {model._meta.db_table}: {inserted:,} of {number:,} ({rate:,.0f} rows a second)", end="")
    report("")


def _copy(model: type[Model], fields: list, batch: list[tuple]) -> None:
    text = io.StringIO()
    csv.writer(text).writerows(batch)
    text.seek(0)
    columns = ", ".join(connection.ops.quote_name(field.column) for field in fields)
    # CSV cannot distinguish null from an empty text: the column decides.
    texts = ", ".join(connection.ops.quote_name(field.column) for field in fields if not field.null)
    with connection.cursor() as cursor:
        cursor.copy_expert(
            f"COPY {model._meta.db_table} ({columns}) FROM STDIN WITH (FORMAT csv, FORCE_NOT_NULL ({texts}))", text
        )


def _execute(model: type[Model], fields: list, batch: list[tuple]) -> None:
    columns = ", ".join(connection.ops.quote_name(field.column) for field in fields)
    placeholders = ", ".join(["%s"] * len(fields))
    rows = [
        tuple(field.get_db_prep_save(value, connection) for field, value in zip(fields, row, strict=True))
        for row in batch
    ]
    with connection.cursor() as cursor:
        cursor.executemany(f"INSERT INTO {model._meta.db_table} ({columns}) VALUES ({placeholders})", rows)


def next_id(model: type[Model]) -> int:
    return (model._base_manager.aggregate(last=Max("id"))["last"] or 0) + 1


def load(number_of_users: int, number_of_stocks: int) -> None:
    first = next_id(User)
    deletions: dict[int, dict] = {}

    def users_with_deletions() -> Iterator[dict[str, object]]:
        for row in users(first, number_of_users):
            if "deleted_at" in row:
                deletions[row["id"]] = {
                    key: row[key] for key in ("deleted_at", "deleted_by", "deletion_reason", "deletion")
                }
            yield row

    # One transaction: all or nothing. Indexes are built once at the end instead of row by row.
    with connection.schema_editor() as editor:
        for model in (User, Stock):
            for index in model._meta.indexes:
                editor.remove_index(model, index)
        insert(User, users_with_deletions(), number_of_users)
        owners = list(range(first, first + number_of_users))
        insert(Stock, stocks(next_id(Stock), number_of_stocks, owners, deletions), number_of_stocks)
        if connection.vendor == "postgresql":
            for model in (User, Stock):
                editor.execute(
                    f"SELECT setval(pg_get_serial_sequence('{model._meta.db_table}', 'id'), max(id)) "
                    f"FROM {model._meta.db_table}",
                    None,
                )
        # PostgreSQL creates no index while deferred foreign keys are pending.
        connection.check_constraints()
        for model in (User, Stock):
            for index in model._meta.indexes:
                report(f"  index {index.name}")
                editor.add_index(model, index)
    report("  statistics")
    with connection.cursor() as cursor:
        # VACUUM updates PostgreSQL's visibility map, as autovacuum would later.
        cursor.execute("VACUUM ANALYZE" if connection.vendor == "postgresql" else "ANALYZE")


def report(text: str, end: str = "\n") -> None:
    print(text, end=end, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--stocks", type=int, default=1_000_000)
    options = parser.parse_args()
    if options.users < 1 or options.stocks < 0:
        sys.exit("--users must be at least 1, --stocks at least 0.")
    if MigrationExecutor(connection).migration_plan(MigrationExecutor(connection).loader.graph.leaf_nodes()):
        sys.exit("The database is not migrated: run `python manage.py migrate` first.")
    if User.all_objects.count() > MAX_EXISTING_USERS:
        sys.exit(f"Expected a database with at most {MAX_EXISTING_USERS:,} users. Use a separate one for benchmarks.")
    started = time.perf_counter()
    report(f"Loading {options.users:,} users and {options.stocks:,} stocks ({connection.vendor}) …")
    load(options.users, options.stocks)
    report(f"Done in {time.perf_counter() - started:.0f} s.")


if __name__ == "__main__":
    main()
