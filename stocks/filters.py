from records.rest.filters import (
    AnyOfFilter,
    BooleanFilter,
    DecimalFilter,
    IntegerFilter,
    SoftDeletableFilterSet,
    TextFilter,
)


class StockFilterSet(SoftDeletableFilterSet):
    name = TextFilter(help_text="Exactly this symbol.")
    name__in = AnyOfFilter(field_name="name", lookup_expr="in", help_text="One of these symbols, comma-separated.")
    price = DecimalFilter(help_text="Exactly this price.")
    price__gt = DecimalFilter(field_name="price", lookup_expr="gt", help_text="A higher price.")
    price__gte = DecimalFilter(field_name="price", lookup_expr="gte", help_text="This price or a higher one.")
    price__lt = DecimalFilter(field_name="price", lookup_expr="lt", help_text="A lower price.")
    price__lte = DecimalFilter(field_name="price", lookup_expr="lte", help_text="This price or a lower one.")
    quantity = IntegerFilter(help_text="Exactly this quantity.")
    quantity__gt = IntegerFilter(field_name="quantity", lookup_expr="gt", help_text="A larger quantity.")
    quantity__gte = IntegerFilter(field_name="quantity", lookup_expr="gte", help_text="This quantity or a larger one.")
    quantity__lt = IntegerFilter(field_name="quantity", lookup_expr="lt", help_text="A smaller quantity.")
    quantity__lte = IntegerFilter(field_name="quantity", lookup_expr="lte", help_text="This quantity or a smaller one.")
    is_active = BooleanFilter(help_text="Whether the stock is tracked.")
    user_id = IntegerFilter(field_name="owner_id", help_text="Id of the user who holds it.")
