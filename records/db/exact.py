"""Exact sums, products and quotients of positive numbers on both databases.

PostgreSQL's `numeric` is exact. SQLite computes with 64-bit integers and doubles: there these functions run in Python.
They return numbers as texts of equal length, so that sorting the texts sorts the numbers.
"""

from decimal import Decimal
from typing import Any

from django.db import models
from django.db.models import Aggregate, Func

#: Digits after the decimal point, and the total number of digits.
SCALE, WIDTH = 12, 64
UNIT: int = 10**SCALE


def to_units(value: Any) -> int:
    """Return a number from SQLite, or a text from `to_text`, as a multiple of 10^-12."""
    if isinstance(value, str):
        return int(value)
    if isinstance(value, int):
        return value * UNIT
    # The repr of a double is exact up to 15 digits.
    return int(Decimal(repr(value)).scaleb(SCALE))


def _product(first: Any, second: Any) -> int:
    if isinstance(second, int):
        return to_units(first) * second
    return to_units(first) * to_units(second) // UNIT


def to_text(number: int) -> str:
    return f"{number:0{WIDTH}d}"


def _quotient(dividend: Any, divisor: Any, decimals: int) -> str | None:
    if dividend is None or divisor is None:
        return None
    dividend, divisor = to_units(dividend), to_units(divisor)
    # Round half up, as PostgreSQL's round() does.
    return to_text((2 * dividend * 10**decimals + divisor) // (2 * divisor) * 10 ** (SCALE - decimals))


class _Sum:
    """Aggregate and window function for sqlite3: the sum of a column, or of the products of two columns."""

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
        return to_text(self.total) if self.count else None

    finalize = value


def register(connection: Any) -> None:
    """Register the functions that the expressions below call on an SQLite connection."""
    connection.create_function("EXACT_QUOTIENT", 3, _quotient, deterministic=True)
    connection.create_window_function("EXACT_SUM", 1, _Sum)
    connection.create_window_function("EXACT_SUM", 2, _Sum)


class ExactField(models.Field):  # type: ignore[type-arg]
    """The output field of the expressions below: a decimal of any size."""

    def get_internal_type(self) -> str:
        return "ExactField"  # SQLite returns a DecimalField as a double

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        if not isinstance(value, str):
            return value
        return Decimal(f"{value[:-SCALE]}.{value[-SCALE:]}")


class ExactSum(Aggregate):
    """The sum of a column, or of the products of two columns."""

    function = "SUM"
    arg_joiner = " * "
    window_compatible = True
    output_field = ExactField()

    def as_sqlite(self, compiler: Any, connection: Any, **context: Any) -> Any:
        return self.as_sql(compiler, connection, function="EXACT_SUM", arg_joiner=", ", **context)


class ExactTotal(Func):
    """The total of an aggregated sum over all groups, as a window function."""

    function = "SUM"
    window_compatible = True
    output_field = ExactField()

    def as_sqlite(self, compiler: Any, connection: Any, **context: Any) -> Any:
        return self.as_sql(compiler, connection, function="EXACT_SUM", **context)


class ExactQuotient(Func):
    """A quotient that is rounded once. PostgreSQL's `/` rounds to a number of digits that it chooses itself."""

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
