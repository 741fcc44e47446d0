"""The measured requests and their personas, for lists.py and explain.py."""

# ruff: noqa: E402 - models are imported after django.setup()

import os
import secrets
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
os.environ.setdefault("SECRET_KEY", secrets.token_urlsafe(64))
os.environ.setdefault("ALLOWED_HOSTS", "localhost,testserver")
os.environ |= {"THROTTLE_ANON": "1000000/min", "THROTTLE_USER": "1000000/min", "ACCESS_TOKEN_MINUTES": "600"}
os.environ.setdefault("LOG_LEVEL", "ERROR")

import django

django.setup()

from django.db.models import Count, Q
from django.urls import get_resolver
from rest_framework.test import APIClient

from stocks.models import Stock
from users.access_tokens import access_token
from users.models import Session, User
from users.models.session import Device

get_resolver().url_patterns  # noqa: B018 - import all views, as the server does before its first request

STOCK_FILTERS = {
    "name": "name=AAPL",
    "name, rare": "name={rare}",
    "name, none": "name=NOSUCH",
    "name__in": "name__in=AAPL,{rare},MSFT",
    "price": "price={price}",
    "price__gt": "price__gt=100",
    "price__gte, few": "price__gte=1500",
    "price__gte, none": "price__gte=99999999",
    "price__lt": "price__lt=20",
    "price__lte, few": "price__lte=1.5",
    "price range": "price__gte=100&price__lte=101",
    "quantity": "quantity=17",
    "quantity__gt": "quantity__gt=100",
    "quantity__gte, few": "quantity__gte=5000",
    "quantity__lt": "quantity__lt=3",
    "quantity__lte": "quantity__lte=1",
    "is_active=true": "is_active=true",
    "is_active=false": "is_active=false",
    "user_id": "user_id={holder}",
    "user_id, few": "user_id={small_holder}",
    "created_at__gte": "created_at__gte=2025-06-01T00:00:00Z",
    "created_at__lte": "created_at__lte=2024-01-02T00:00:00Z",
    "created_at__date": "created_at__date=2024-09-09",
    "search 1 letter": "search=a",
    "search 2 letters": "search=aa",
    "search 3 letters": "search=aap",
    "search 4 letters": "search=aapl",
    "search, none": "search=nosuch",
    "search 1, none": "search=7",
}
USER_FILTERS = {
    "username": "username={username}",
    "username, none": "username=nobody-here",
    "email": "email={email}",
    "gender": "gender=Male",
    "age": "age=42",
    "age, rare": "age=95",
    "age__gte": "age__gte=40",
    "age__gte, few": "age__gte=98",
    "age__lte": "age__lte=20",
    "age range": "age__gte=30&age__lte=32",
    "is_active=true": "is_active=true",
    "is_active=false": "is_active=false",
    "is_verified=true": "is_verified=true",
    "is_verified=false": "is_verified=false",
    "is_staff=true": "is_staff=true",
    "is_superuser=true": "is_superuser=true",
    "is_superuser=false": "is_superuser=false",
    "oauth_provider": "oauth_provider=google",
    "oauth_provider, rare": "oauth_provider=gitlab",
    "oauth_provider, none": "oauth_provider=nosuch",
    "created_at__gte": "created_at__gte=2025-06-01T00:00:00Z",
    "created_at__lte": "created_at__lte=2024-01-02T00:00:00Z",
    "created_at__date": "created_at__date=2024-09-09",
    "search 1 letter": "search=a",
    "search 2 letters": "search=al",
    "search 3 letters": "search=ali",
    "search 5 letters": "search=alice",
    "search, few": "search={username}",
    "search, none": "search=nosuchperson",
    "search 2, none": "search=qq",
}
STOCK_SORTS = ("id", "name", "price", "quantity", "created_at")
USER_SORTS = ("id", "username", "email", "name", "age", "created_at")
PAGING = {
    "count=exact": "count=exact",
    "count=estimated": "count=estimated",
    "count=none": "count=none",
    "size=200": "size=200",
    "cursor=": "cursor=",
    "page 1000": "page=1000",
    "deepest page": "skip=100000&limit=20",
    "fields": "fields=id,name",
    "two sorts": "sort_by=name,-created_at",
    "is_deleted": "is_deleted=true",
    "is_deleted, active": "is_deleted=true&is_active=false",
}


@dataclass(frozen=True)
class Case:
    name: str
    persona: str
    path: str


def _collection(prefix: str, persona: str, path: str, filters: dict[str, str], sorts: tuple[str, ...]) -> list[Case]:
    def case(name: str, query: str) -> Case:
        return Case(f"{prefix}: {name}", persona, f"{path}?{query}" if query else path)

    cases = [case("list", "")]
    cases += [case(f"sort {sort}", f"sort_by={sort}") for key in sorts for sort in (key, f"-{key}")]
    cases += [case(name, query) for name, query in filters.items()]
    return cases


def _all_rows(prefix: str, path: str, filters: dict[str, str], sorts: tuple[str, ...], rare: list[str]) -> list[Case]:
    """Return the cases of a superuser: every filter and sort, and expensive combinations of both."""
    cases = _collection(prefix, "superuser", path, filters, sorts)
    for name, query in PAGING.items():
        cases.append(Case(f"{prefix}: {name}", "superuser", f"{path}?{query}"))
    for sort in sorts:
        for order in (sort, f"-{sort}"):
            cases.append(
                Case(f"{prefix}: is_deleted sort {order}", "superuser", f"{path}?is_deleted=true&sort_by={order}")
            )
    for name in rare:
        for sort in sorts[1:]:
            cases.append(Case(f"{prefix}: {name} sort {sort}", "superuser", f"{path}?{filters[name]}&sort_by={sort}"))
    cases.append(Case(f"{prefix}: search deleted", "superuser", f"{path}?is_deleted=true&search=aap"))
    return cases


def all_cases() -> list[Case]:
    rare_stocks = [
        "name, rare", "price__gte, few", "price range", "is_active=false", "created_at__date", "user_id",
        "search 1 letter", "search 4 letters", "search, none",
    ]  # fmt: skip
    rare_users = [
        "gender", "age, rare", "is_active=false", "is_superuser=true", "oauth_provider, rare", "created_at__date",
        "search 1 letter", "search 5 letters", "search, none",
    ]  # fmt: skip
    user_path = "/api/v1/users/{holder}"
    filters = {name: query for name, query in STOCK_FILTERS.items() if not name.startswith("user_id")}
    return [
        *_all_rows("stocks", "/api/v1/stocks", STOCK_FILTERS, STOCK_SORTS, rare_stocks),
        *_all_rows("users", "/api/v1/users", USER_FILTERS, USER_SORTS, rare_users),
        *_collection("own stocks", "owner", "/api/v1/stocks", filters, STOCK_SORTS),
        Case("own stocks: cursor=", "owner", "/api/v1/stocks?cursor="),
        Case("own stocks: price range by name", "owner", "/api/v1/stocks?price__gte=50&price__lte=60&sort_by=name"),
        *_collection("user's stocks", "superuser", f"{user_path}/stocks", {"search": "search=aap"}, STOCK_SORTS),
        Case("user's stocks: is_deleted", "superuser", f"{user_path}/stocks?is_deleted=true"),
        Case("own users: list", "owner", "/api/v1/users"),
        Case("own users: search", "owner", "/api/v1/users?search=a"),
        Case("own users: search, none", "owner", "/api/v1/users?search=nosuch"),
        Case("detail: stock", "superuser", "/api/v1/stocks/{stock}"),
        Case("detail: own stock", "owner", "/api/v1/stocks/{stock}"),
        Case("detail: user", "superuser", f"{user_path}"),
        Case("detail: own user", "owner", f"{user_path}"),
        Case("detail: me", "owner", "/api/v1/users/me"),
        Case("portfolio", "superuser", f"{user_path}/portfolio"),
        Case("portfolio: own", "owner", f"{user_path}/portfolio"),
    ]


class Personas:
    """A superuser and the regular user with the most stocks, and the values of placeholders in paths."""

    def __init__(self) -> None:
        if Stock.objects.count() < 1_000:
            sys.exit("The database has too few stocks: run `python benchmarks/load.py` first.")
        admin = User.objects.filter(username="bench-admin").first()
        self.superuser = admin or User.objects.create_superuser("bench-admin", "bench-admin@example.com")
        holders = User.objects.active().filter(is_staff=False).order_by("id").values_list("pk", flat=True)[:50]
        live = Count("stocks", filter=Q(stocks__deleted_at=None))
        self.owner = User.objects.filter(pk__in=list(holders)).annotate(live=live).order_by("-live").first()
        stock = Stock.objects.filter(owner_id=self.owner.pk).order_by("id")[100]
        other_user = User.objects.order_by("-id").filter(is_staff=False, is_superuser=False)[1_000]
        by_size = Stock.objects.order_by().values("name").annotate(rows=Count("id")).order_by("rows")
        self.values = {
            "holder": self.owner.pk,
            "small_holder": other_user.pk,
            "stock": stock.pk,
            "price": stock.price,
            "rare": by_size[0]["name"],
            "username": other_user.username,
            "email": other_user.email,
        }

    def client(self, persona: str) -> APIClient:
        session = Session.objects.start(getattr(self, persona), Device(None, ""))
        client = APIClient()
        client.credentials(HTTP_AUTHORIZATION=f"Bearer {access_token(session)}")
        return client

    def path(self, case: Case) -> str:
        return case.path.format(**self.values)
