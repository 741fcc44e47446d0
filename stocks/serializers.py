from typing import Any

from django.core.exceptions import ValidationError as ModelValidationError
from rest_framework import serializers
from rest_framework.exceptions import ValidationError

from records.db.validators import GreaterThanValidator
from records.http.hints import excerpt
from records.rest.fields import BigIntegerField, DecimalField, DictField
from records.rest.serializers import OwnedSerializer, StrictSerializer, register
from stocks.models import PRICE_DECIMALS, PRICE_DIGITS, Stock

MAX_SYMBOLS = 1_000


@register
class StockSerializer(OwnedSerializer):
    class Meta:
        model = Stock
        fields = ["id", "name", "price", "quantity", "is_active", "user_id", "created_at", "updated_at", "version"]
        read_only_fields = ["id", "created_at", "updated_at", "version"]
        staff_fields = {"user_id"}
        examples = {"name": "AAPL", "price": 175.5, "quantity": 10}


class OwnedStockSerializer(StockSerializer):
    """A stock of the user in the path."""

    class Meta(StockSerializer.Meta):
        read_only_fields = [*StockSerializer.Meta.read_only_fields, "user_id"]
        staff_fields: set[str] = set()

    user_id = BigIntegerField(source="owner_id", read_only=True, help_text="Id of the user who holds it.")


class PricesSerializer(StrictSerializer):
    prices = DictField(
        max_length=MAX_SYMBOLS,
        child=DecimalField(PRICE_DIGITS, PRICE_DECIMALS, validators=[GreaterThanValidator(0)]),
        allow_empty=False,
        help_text=f"Symbol → new price, up to {MAX_SYMBOLS:,} symbols.",
    )

    def validate_prices(self, prices: dict[str, Any]) -> dict[str, Any]:
        for symbol in prices:
            try:
                Stock._meta.get_field("name").clean(symbol, None)
            except ModelValidationError as error:
                raise ValidationError({excerpt(symbol): error.messages}) from None
        by_symbol = {symbol.upper(): price for symbol, price in prices.items()}
        if len(by_symbol) < len(prices):
            raise ValidationError("A symbol is named twice, in upper and in lower case.")
        return by_symbol


class RepriceResultSerializer(serializers.Serializer[Any]):
    updated = serializers.DictField(
        child=serializers.IntegerField(), help_text="Symbol → how many active stocks have the new price."
    )
    unknown = serializers.ListField(child=serializers.CharField(), help_text="Symbols that no active stock has.")


class UserHoldingSerializer(serializers.Serializer[Any]):
    name = serializers.CharField(help_text="Symbol.")
    positions = serializers.IntegerField(help_text="Active stocks of this symbol.")
    quantity = serializers.IntegerField(help_text="Total quantity.")
    price = serializers.DecimalField(38, 4, help_text="Mean price, weighted by quantity.")
    value = serializers.DecimalField(38, 4, help_text="Quantity × price.")
    share = serializers.FloatField(help_text="Part of the portfolio's value, 0–1.")


class UserPortfolioSerializer(serializers.Serializer[Any]):
    user_id = serializers.IntegerField(help_text="Id of the user who holds the portfolio.")
    positions = serializers.IntegerField(help_text="Number of active stocks.")
    quantity = serializers.IntegerField(help_text="Total quantity.")
    value = serializers.DecimalField(38, 4, help_text="Total value.")
    by_symbol = UserHoldingSerializer(many=True, help_text="The largest value first.")
