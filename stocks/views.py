from typing import Any

from django.db.models import QuerySet
from django.utils.functional import cached_property
from drf_spectacular.utils import OpenApiExample, extend_schema
from rest_framework.decorators import action
from rest_framework.exceptions import PermissionDenied
from rest_framework.request import Request
from rest_framework.response import Response

from records.db.compiled import compiled_rows
from records.rest.views import SoftDeletableViewSet, StrictView, not_found, parse_id
from stocks.filters import StockFilterSet
from stocks.models import Stock
from stocks.serializers import (
    OwnedStockSerializer,
    PricesSerializer,
    RepriceResultSerializer,
    StockSerializer,
    UserPortfolioSerializer,
)
from users.models import User


class StockViewSet(SoftDeletableViewSet):
    queryset = Stock.objects.all()
    serializer_class = StockSerializer
    filterset_class = StockFilterSet
    search_fields = ("name",)
    repeating_search_field = "name"
    sort_fields = ("id", "name", "price", "quantity", "created_at")

    def required_verb(self) -> str | None:
        return "change" if self.action == "reprice" else super().required_verb()

    @extend_schema(
        request=PricesSerializer,
        responses=RepriceResultSerializer,
        examples=[
            OpenApiExample("prices", {"prices": {"AAPL": 190.25, "XYZ": 1}}, request_only=True),
            OpenApiExample("result", {"updated": {"AAPL": 12}, "unknown": ["XYZ"]}, response_only=True),
        ],
    )
    @action(detail=False, methods=["post"], serializer_class=PricesSerializer)
    def reprice(self, request: Request) -> Response:
        """Set the price of every active stock of the named symbols, all or none."""
        serializer = PricesSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        prices = serializer.validated_data["prices"]
        updated = Stock.objects.reprice(prices)
        return Response({"updated": updated, "unknown": [name for name in prices if name not in updated]})


def visible_user_id(request: Request, text: str) -> int:
    """Return the id in a path under /users/; raise NotFound if the user may not see that user."""
    user_id: int = parse_id(User, text)
    if (
        user_id != request.user.pk
        and not compiled_rows(User.objects).visible_to(request.user).filter(pk=user_id).exists()
    ):
        raise not_found(User, text)
    return user_id


class UserStocksViewSet(StockViewSet):
    """The stocks of the user in the path."""

    path_model = User
    serializer_class = OwnedStockSerializer

    @cached_property
    def user_id(self) -> int:
        return visible_user_id(self.request, self.kwargs["id"])

    def initial(self, request: Any, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        if self.action != "create":  # a creation that is repeated is answered even if the user is gone
            self.user_id  # noqa: B018 - raises NotFound

    def create(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        user: Any = request.user
        if self.user_id != user.pk and not user.may("add", Stock):
            raise PermissionDenied
        return super().create(request, *args, **kwargs)

    def get_queryset(self) -> QuerySet[Any]:
        queryset = super().get_queryset()
        return queryset if getattr(self, "swagger_fake_view", False) else queryset.filter(owner_id=self.user_id)

    def added_values(self, attrs: dict[str, Any]) -> dict[str, Any]:
        return {"owner_id": self.user_id}


class UserPortfolioView(StrictView):
    path_model = User

    @extend_schema(responses=UserPortfolioSerializer, operation_id="users_portfolio_retrieve")
    def get(self, request: Request, id: str) -> Response:  # noqa: A002 — the name in the path
        """Value the active stocks of a user, by symbol."""
        user_id = visible_user_id(request, id)
        symbols = list(Stock.objects.visible_to(request.user).filter(owner_id=user_id).active().worth())
        totals = {name: symbols[0][f"total_{name}"] if symbols else 0 for name in ("positions", "quantity", "value")}
        columns = ("name", "positions", "quantity", "price", "value", "share")
        by_symbol = [{name: row[name] for name in columns} for row in symbols]
        return Response({"user_id": user_id, **totals, "by_symbol": by_symbol})
