"""Sums, products and quotients of positive numbers with every digit, in both databases.

PostgreSQL's `numeric` has no limits. SQLite computes whole numbers in 64 bits and all others as doubles: there these
functions are written in Python. They pass numbers on as texts of equal length, so that sorting them sorts the numbers.
"""

from decimal import Decimal
from typing import Any

from django.db import models
from django.db.models import Aggregate, Func

#: Digits after the point, and in all.
SCALE, WIDTH = 12, 64
UNIT = 10**SCALE


def read(value: Any) -> int:
    """Return a number of SQLite, or a text of ours, as a multiple of 10^-12."""
    if isinstance(value, str):
        return int(value)
    # A double of up to 15 digits is the number that it prints.
    return value * UNIT if isinstance(value, int) else int(Decimal(repr(value)).scaleb(SCALE))


def _product(first: Any, second: Any) -> int:
    return read(first) * second if isinstance(second, int) else read(first) * read(second) // UNIT


def written(number: int) -> str:
    return f"{number:0{WIDTH}d}"


def _quotient(dividend: Any, divisor: Any, decimals: int) -> str | None:
    if dividend is None or divisor is None:
        return None
    dividend, divisor = read(dividend), read(divisor)
    # Half is rounded up, as PostgreSQL's round does.
    return written((2 * dividend * 10**decimals + divisor) // (2 * divisor) * 10 ** (SCALE - decimals))


class _Sum:
    """An aggregate, and window function, of sqlite3: of numbers, or of the products of two."""

    def __init__(self) -> None:
        self.total, self.count = 0, 0

    def step(self, value: Any, factor: Any = 1) -> None:
        if value is not None and factor is not None:
            self.total += _product(value, factor)
            self.count += 1

    def inverse(self, value: Any, factor: Any = 1) -> None:
        if value is not None and factor is not None:
            self.total -= _product(value, factor)
            self.count -= 1

    def value(self) -> str | None:
        return written(self.total) if self.count else None

    finalize = value


def register(connection: Any) -> None:
    """Give a connection to SQLite the functions that the expressions below call."""
    connection.create_function("EXACT_QUOTIENT", 3, _quotient, deterministic=True)
    connection.create_window_function("EXACT_SUM", 1, _Sum)
    connection.create_window_function("EXACT_SUM", 2, _Sum)


class ExactField(models.Field):
    """What the expressions below give: a decimal of any size."""

    def get_internal_type(self) -> str:
        return "ExactField"  # DecimalField is read as a double on SQLite

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        if not isinstance(value, str):
            return value
        return Decimal(f"{value[:-SCALE]}.{value[-SCALE:]}")


class ExactSum(Aggregate):
    """The sum of a column, or of the products of two."""

    function = "SUM"
    arg_joiner = " * "
    window_compatible = True
    output_field = ExactField()

    def as_sqlite(self, compiler: Any, connection: Any, **context: Any) -> Any:
        return self.as_sql(compiler, connection, function="EXACT_SUM", arg_joiner=", ", **context)


class ExactTotal(Func):
    """The sum of a group's sum over all groups, in a window."""

    function = "SUM"
    window_compatible = True
    output_field = ExactField()

    def as_sqlite(self, compiler: Any, connection: Any, **context: Any) -> Any:
        return self.as_sql(compiler, connection, function="EXACT_SUM", **context)


class ExactQuotient(Func):
    """A quotient, rounded once: PostgreSQL's `/` would round it before to digits of its own choice."""

    arity = 2
    output_field = ExactField()

    def __init__(self, dividend: Any, divisor: Any, decimals: int) -> None:
        super().__init__(dividend, divisor)
        self.decimals = decimals

    def as_sql(self, compiler: Any, connection: Any, **context: Any) -> Any:  # type: ignore[override]
        (dividend, params), (divisor, divisor_params) = map(compiler.compile, self.source_expressions)
        unit = f"{Decimal(1).scaleb(-self.decimals):f}"
        sql = f"DIV({dividend} * {2 * 10**self.decimals} + {divisor}, {divisor} * 2) * {unit}"
        return sql, [*params, *divisor_params, *divisor_params]

    def as_sqlite(self, compiler: Any, connection: Any, **context: Any) -> Any:
        return super().as_sql(
            compiler, connection, template=f"EXACT_QUOTIENT(%(expressions)s, {self.decimals})", **context
        )
