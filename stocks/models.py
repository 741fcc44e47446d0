"""Stocks that users hold."""

from collections import Counter
from datetime import timedelta
from decimal import Decimal
from typing import Any, ClassVar, Self

from django.core.validators import RegexValidator
from django.db import models, transaction
from django.db.models import Count, F, Func, Q, Window
from django.utils.dateparse import parse_datetime

from records.db.constraints import SearchIndex, day_index, deleted_index, live_index
from records.db.exact import ExactQuotient, ExactSum, ExactTotal
from records.db.expressions import Mapped
from records.db.validators import BIGINT_MAX, GreaterThanValidator
from records.models.soft_deletion import LiveManager, SoftDeletable, SoftDeletableQuerySet
from records.serialization import occurrence
from users.models import User

PRICE_DIGITS, PRICE_DECIMALS = 15, 4
SHARE_DECIMALS = 6
#: Signs in the symbols of indices (^GSPC), currencies (EURUSD=X), companies (M&M) and exchanges (NYSE:GE), in an
#: order that is valid in a bracket expression.
SYMBOL_SIGNS = ".^=&/:_-"
SYMBOL_MESSAGE = "Use letters, digits and the characters . - ^ = & / : _ only."


class SymbolField(models.CharField):  # type: ignore[type-arg]
    """A ticker symbol, in upper case: `aapl` is stored and looked up as `AAPL`."""

    def get_prep_value(self, value: Any) -> Any:
        value = super().get_prep_value(value)
        # ASCII only: the upper case of ß is SS, which could be a symbol.
        return value.upper() if isinstance(value, str) and value.isascii() else value


class GrandTotal(Func):
    """The sum of an aggregate over all groups."""

    function = "SUM"
    window_compatible = True


class StockQuerySet(SoftDeletableQuerySet):
    def active(self) -> Self:
        return self.filter(is_active=True)

    def worth(self) -> Any:
        """Return name, positions, quantity, value, price (quantity-weighted mean), share (0–1) and totals by symbol.

        Takes one query. The largest value comes first.
        """
        value = ExactSum("price", "quantity")
        return (
            self.order_by()
            .values("name")
            # `value` first, because "quantity" means the sum afterwards.
            .annotate(value=value, positions=Count("id"), quantity=ExactSum("quantity"))
            .annotate(
                price=ExactQuotient("value", "quantity", PRICE_DECIMALS),
                total_positions=Window(GrandTotal(F("positions"), output_field=models.BigIntegerField())),
                total_quantity=Window(ExactTotal("quantity")),
                total_value=Window(ExactTotal("value")),
            )
            .annotate(share=ExactQuotient("value", "total_value", SHARE_DECIMALS))
            .order_by("-value", "name")
        )

    def reprice(self, prices: dict[str, Decimal]) -> dict[str, int]:
        """Set the price of the active stocks of these symbols; return the number of stocks by symbol."""
        stocks = self.active().filter(name__in=prices)
        with transaction.atomic(using=self._write_alias()):
            # In the order of ids, so that concurrent calls wait instead of deadlocking.
            locked = stocks.order_by("id").select_for_update(no_key=True)
            counts = Counter(locked.values_list("name", flat=True))
            stocks.update(price=Mapped("name", prices, Stock._meta.get_field("price")))
        return dict(counts)

    reprice.alters_data = True  # type: ignore[attr-defined]


class StockManager(LiveManager.from_queryset(StockQuerySet)):  # type: ignore[misc]
    def get_by_natural_key(self, username: str, name: str, created_at: str, position: int = 0) -> "Stock":
        """Return the stock with a natural key, deleted or not. `position` distinguishes stocks with the same key."""
        moment = parse_datetime(created_at)
        if moment is None:
            raise self.model.DoesNotExist
        of_owner = self.model.all_objects.using(self.db).filter(owner__username=username, name=name)
        stocks = list(of_owner.filter(created_at=moment).order_by("id"))
        if position >= len(stocks) and moment.microsecond % 1000 == 0:
            # Older fixtures have times in milliseconds.
            end = moment + timedelta(milliseconds=1)
            stocks += of_owner.filter(created_at__gt=moment, created_at__lt=end).order_by("id")
        if position >= len(stocks):
            raise self.model.DoesNotExist
        stock: Stock = stocks[position]
        return stock


class Stock(SoftDeletable):
    owned_by = "owner_id"

    id = models.BigAutoField(primary_key=True, help_text="Number of the stock.")
    owner = models.ForeignKey(
        User, on_delete=models.CASCADE, related_name="stocks", db_index=False, help_text="The user who holds it."
    )
    name = SymbolField(
        max_length=10,
        validators=[RegexValidator(rf"^[A-Za-z0-9{SYMBOL_SIGNS}]+\Z", SYMBOL_MESSAGE)],
        help_text="Symbol: 1–10 upper case letters, digits or `. - ^ = & / : _`; lower case is raised.",
    )
    price = models.DecimalField(
        max_digits=PRICE_DIGITS,
        decimal_places=PRICE_DECIMALS,
        validators=[GreaterThanValidator(0)],
        help_text="Price of one, more than 0, up to 4 digits after the point.",
    )
    quantity = models.BigIntegerField(
        validators=[GreaterThanValidator(0)], help_text=f"How many are held: a whole number from 1 to {BIGINT_MAX}."
    )
    is_active = models.BooleanField(default=True, help_text="Whether the stock is tracked: repriced and valued.")

    objects: ClassVar[Any] = StockManager()
    all_objects: ClassVar[Any] = StockQuerySet.as_manager()

    class Meta:
        db_table = "stocks"
        constraints = [
            models.CheckConstraint(
                condition=Q(price__gt=0),
                name="stocks_price_check",
                violation_error_message="Ensure this value is greater than 0.",
            ),
            models.CheckConstraint(
                condition=Q(quantity__gt=0),
                name="stocks_quantity_check",
                violation_error_message="Ensure this value is greater than 0.",
            ),
            models.CheckConstraint(
                condition=Q(name__regex=rf"^[A-Z0-9{SYMBOL_SIGNS}]{{1,10}}\Z"),
                name="stocks_name_check",
                violation_error_message=SYMBOL_MESSAGE,
            ),
        ]
        indexes = [
            models.Index(fields=["owner", "id"], name="stocks_owner"),
            *(
                live_index(field, name=f"stocks_{field}")
                for field in ("name", "price", "quantity", "is_active", "created_at")
            ),
            # The rows of a symbol have similar prices. In the index of prices, the planner expects them anywhere.
            *(live_index("name", field, name=f"stocks_name_{field}") for field in ("price", "quantity", "created_at")),
            day_index("stocks_day"),
            deleted_index("stocks_deleted"),
            SearchIndex(fields=["name"], name="stocks_search"),
        ]

    def __str__(self) -> str:
        return f"{self.quantity} {self.name}"

    def natural_key(self) -> tuple[str | int, ...]:
        """Return owner, symbol and time, and the position among the stocks with the same three unless it is 0."""
        key = (self.owner.username, self.name.upper(), self.created_at.isoformat())
        if self.pk is None:
            position = occurrence((Stock, key))
        else:
            same_key = Stock.all_objects.using(self._state.db).filter(owner_id=self.owner_id, name=self.name)
            position = same_key.filter(created_at=self.created_at, pk__lt=self.pk).count()
        return (*key, position) if position else key

    natural_key.dependencies = ["users.user"]  # type: ignore[attr-defined]
