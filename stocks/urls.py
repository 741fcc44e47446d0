from django.urls import path

from records.rest.routers import RecordRouter
from stocks import views

router = RecordRouter()
router.register("stocks", views.StockViewSet)

urlpatterns = [
    path(
        "users/<str:id>/stocks",
        views.UserStocksViewSet.as_view({"get": "list", "post": "create"}, detail=False),
        name="user-stocks",
    ),
    path("users/<str:id>/portfolio", views.UserPortfolioView.as_view(), name="user-portfolio"),
]
