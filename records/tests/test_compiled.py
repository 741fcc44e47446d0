"""Statements that are compiled once return what Django's own statements return, and to the same callers only."""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import chain

import pytest
from django.core.exceptions import FieldError
from django.db import connection, transaction
from django.db.models import Count, DecimalField, Exists, F, FilteredRelation, OuterRef, Q, Value
from django.db.models.expressions import RawSQL
from django.db.models.functions import Cast
from django.db.transaction import TransactionManagementError
from django.utils import timezone

from records.db.compiled import compiled_rows, statements
from records.db.compiled.statements import StatementCache
from stocks.models import Stock
from users.models import Session, User

BEFORE, AFTER = datetime(2000, 1, 1, tzinfo=UTC), datetime(2999, 1, 1, tzinfo=UTC)


@pytest.fixture
def compilations(monkeypatch):
    """The shapes that are compiled during the test, in a cache of its own."""
    shapes = []
    monkeypatch.setattr(statements, "statements", StatementCache(size=100))
    compile_shape = statements.Statement.__init__

    def record(self, recording, using):
        shapes.append(recording.shape)
        compile_shape(self, recording, using)

    monkeypatch.setattr(statements.Statement, "__init__", record)
    monkeypatch.setattr("records.db.compiled.querysets.statements", statements.statements)
    return shapes


@pytest.fixture
def stocks(make_user, make_stock, compilations):
    Stock.all_objects.all().purge()
    for user in (make_user(), make_user(age=30)):
        make_stock(user, name="AAPL", price="1.5", quantity=1)
        make_stock(user, name="BRK.B", price="2.25", quantity=2**40, is_active=False)
        make_stock(user, name="^GSPC", price="99999999999.9999", quantity=3).delete()
    return compiled_rows(Stock.all_objects)


CONDITIONS = {
    "text": [{"name": "AAPL"}, {"name": "aapl"}, {"name": "NONE"}],
    "decimal": [{"price": Decimal("1.5")}, {"price": Decimal("2.250")}, {"price": Decimal("1e11")}],
    "decimal by an integer": [{"price__gt": 1}, {"price__gt": 2}, {"price__gt": 2**70}],
    "integer": [{"quantity": 1}, {"quantity": 2**40}, {"quantity": 2**63 - 1}],
    "integer beyond the column": [{"quantity": 2**63}, {"quantity": -(2**63) - 1}, {"quantity": 1}],
    "less than beyond the column": [{"quantity__lt": 2**70}, {"quantity__lt": 2}, {"quantity__lt": -(2**70)}],
    "integer by a fraction": [{"quantity__gte": 1.5}, {"quantity__gte": 1.0}, {"quantity__gte": 0.5}],
    "time": [{"created_at__gte": BEFORE}, {"created_at__gte": AFTER}],
    "time range": [{"created_at__gt": start, "updated_at__lt": AFTER} for start in (BEFORE, AFTER)],
    "foreign key": [{"owner_id": 10**6}, {"owner_id": 0}],
    "boolean": [{"is_active": True}, {"is_active": False}],
    "null": [{"deleted_at": None}, {"deleted_at__isnull": False}, {"deleted_at__isnull": True}],
    "list": [{"name__in": ["AAPL", "^GSPC"]}, {"name__in": ["x", "AAPL"]}, {"name__in": ["AAPL", "AAPL"]}],
    "list of numbers": [{"price__in": [Decimal("1.5"), 2]}, {"quantity__in": [1, 3]}],
    "list of times": [{"created_at__in": [BEFORE, AFTER]}],
    "list of booleans": [{"is_active__in": [True]}, {"is_active__in": [False]}],
    "empty list": [{"name__in": []}],
    "list with null": [{"name__in": ["AAPL", None]}, {"name__in": [None, "AAPL"]}, {"name__in": [None]}],
    "exact in any case": [{"name__iexact": "aapl"}, {"name__iexact": "BRK.B"}],
    "empty value": [{"name": ""}, {"name__gt": ""}],
    "relation": [{"owner__age": 30}, {"owner__age": 31}, {"owner__age__gte": 3}],
    "pattern": [{"name__icontains": "a"}, {"name__icontains": "%"}, {"name__startswith": "B"}],
    "transform": [{"name__lower": "aapl"}, {"name__lower": "x"}],
    "date": [{"created_at__date": BEFORE.date()}, {"created_at__year__gt": 2000}, {"created_at__year": 2000}],
    "column": [{"price__gt": F("quantity")}, {"price__lt": F("quantity")}],
}  # fmt: skip


@pytest.mark.parametrize("kind", CONDITIONS)
@pytest.mark.parametrize("method", ["filter", "exclude"])
def test_condition_returns_what_django_returns(stocks, kind, method):
    for condition in [*CONDITIONS[kind], *CONDITIONS[kind]]:
        rows = getattr(stocks, method)(**condition).order_by("id")
        expected = getattr(Stock.all_objects, method)(**condition).order_by("id")
        assert list(rows.values("id", "price", "created_at")) == list(expected.values("id", "price", "created_at"))


@pytest.mark.parametrize(
    "derive",
    [
        lambda rows, value: rows.filter(Q(name=value) | Q(quantity=1) & ~Q(price=2)).order_by("-price", "id"),
        lambda rows, value: rows.exclude(name=value).select_related("owner").order_by(F("id").desc()),
        lambda rows, value: rows.order_by("id")[1:3],
        lambda rows, value: rows.order_by("id")[:2],
        lambda rows, value: rows.order_by("id")[2:],
        lambda rows, value: rows.filter(name=value).order_by("id")[:5][1:],
        lambda rows, value: rows.filter(name=value)[5:5],
        lambda rows, value: rows.filter(name=value).annotate(twice=F("price") * 2).order_by("twice", "id"),
        lambda rows, value: rows.filter(Exists(User.objects.filter(pk=OuterRef("owner_id"), age=30))).order_by("id"),
        lambda rows, value: rows.filter(name=value).values_list("id", flat=True).order_by("id"),
        lambda rows, value: rows.filter(name=value).distinct().order_by("id"),
        lambda rows, value: rows.filter(name=value).union(rows.filter(quantity=1)).order_by("id"),
        lambda rows, value: rows.filter(name=value).none(),
        lambda rows, value: rows.filter(name=value).only("id").order_by("id"),
    ],
)  # fmt: skip
def test_operation_returns_what_django_returns(stocks, derive):
    for value in ("AAPL", "BRK.B", "^GSPC", "NONE", "AAPL"):
        assert list(derive(stocks, value)) == list(derive(Stock.all_objects.all(), value))


@pytest.mark.parametrize("limit", [None, 1])
def test_count_is_of_the_rows_that_match(stocks, limit):
    for name in ("AAPL", "BRK.B", "NONE", "AAPL"):
        rows = stocks.filter(name=name).with_count("total", limit).order_by("id").values("id", "total")[:1]
        assert [row["total"] for row in rows] == [limit or 2] * (name != "NONE")


@pytest.mark.parametrize("read", ["first", "exists", "count", "delete"])
def test_single_results_are_those_of_django(stocks, read):
    for name in ("AAPL", "NONE", "BRK.B"):
        expected = getattr(Stock.all_objects.filter(name=name, quantity=1), read)
        with transaction.atomic():
            result = getattr(stocks.filter(name=name, quantity=1), read)()
            transaction.set_rollback(True)
        assert result == expected()


def test_values_share_a_statement_and_shapes_do_not(stocks, compilations):
    for name, price in (("AAPL", 1), ("BRK.B", Decimal(2)), ("AAPL", 3)):
        list(stocks.filter(name=name, price__gt=price)[:1])
    assert len(compilations) == 2  # for an integer and for a decimal
    for condition in (
        {"is_active": True},
        {"is_active": False},
        {"deleted_at": None},
        {"name": "A"},
        {"name__gt": "A"},
    ):
        list(stocks.filter(**condition))
    assert len(compilations) == len(set(compilations)) == 7


def test_expressions_that_django_calls_equal_are_not_confused(stocks):
    for expressions in (
        [F("quantity") / 2, F("quantity") / 2.0],
        [Value(1), Value(True), Value(1.0)],
        [Cast("price", DecimalField(max_digits=15, decimal_places=n)) for n in (0, 2)],
        [F("name")[0:1], F("name")[0:4]],
        [RawSQL("1", ()), RawSQL("2", ())],
    ):
        for expression in expressions:
            rows = stocks.annotate(answer=expression).order_by("id").values_list("answer", flat=True)
            plain = Stock.all_objects.annotate(answer=expression).order_by("id").values_list("answer", flat=True)
            assert list(map(repr, rows)) == list(map(repr, plain))
    order = F("id").asc()
    first, last = stocks.order_by(order).first(), stocks.order_by("id").last()
    order.reverse_ordering()
    assert (first, last) == (stocks.order_by("id").first(), stocks.order_by(order).first())


def test_time_zone_of_the_first_query_is_not_kept(stocks):
    Stock.all_objects.update(created_at=datetime(2024, 2, 29, 23, tzinfo=UTC))
    for zone, day in (("UTC", 29), ("Asia/Tokyo", 1), ("UTC", 29)):
        with timezone.override(zone):
            assert len(stocks.filter(created_at__day=day)) == 6


def test_list_that_changes_after_the_filter_spoils_no_statement(stocks):
    names = ["AAPL"]
    for make in (lambda: stocks.filter(name__in=names), lambda: stocks.filter(Q(name__in=names))):
        for change in ("BRK.B", None):
            names[:] = ["AAPL"]
            rows = make()
            names.append(change)
            list(rows)
            assert {stock.name for stock in stocks.filter(name__in=["BRK.B"])} == {"BRK.B"}
            assert {stock.name for stock in stocks.filter(Q(name__in=["^GSPC"]))} == {"^GSPC"}


@pytest.mark.parametrize(
    "derive",
    [
        lambda rows: rows.filter(("name", "AAPL"), ("price", Decimal("1.5"))).order_by("id"),
        lambda rows: rows.values("owner_id").annotate(held=Count("id")).filter(held__gte=3).order_by("owner_id"),
        lambda rows: rows.select_for_update(of=["self"]).order_by("id"),
        lambda rows: rows.annotate(holder=FilteredRelation("owner")).filter(holder__age=30).order_by("id"),
        lambda rows: rows.order_by("-id").order_by().order_by("id"),
        lambda rows: rows.select_for_update(False, False, ("self",)).order_by("id"),
        lambda rows: rows.order_by("id")[:4].all()[1:3],
    ],
)
def test_unusual_operation_returns_what_django_returns(stocks, derive):
    with transaction.atomic():
        assert list(derive(stocks)) == list(derive(stocks)) == list(derive(Stock.all_objects.all()))


def test_slice_is_not_recorded_twice(stocks):
    assert len(Stock.all_objects.order_by("id")[:2].compiled()[:1]) == 1


def test_first_without_an_order_is_first_by_key(stocks):
    assert stocks.order_by("-name").order_by().first() == Stock.all_objects.order_by("id").first()


def test_copies_are_independent_of_the_shared_rows(stocks):
    matching = stocks.filter(name="AAPL")
    for copied in (copy.deepcopy(matching), pickle.loads(pickle.dumps(matching))):
        assert [list(copied), copied.count(), copied.filter(quantity=7).count()] == [list(matching), 2, 0]
    assert len(compiled_rows(Stock.all_objects)) == 6


def test_pages_share_a_statement(stocks, compilations):
    assert [len(stocks.order_by("id")[start : start + 2]) for start in (0, 2, 4, 6)] == [2, 2, 2, 0]
    assert len(compilations) == 1


def test_unrecorded_operation_leaves_its_source_unchanged(stocks):
    assert not stocks.none()
    assert not stocks.filter(name="AAPL").none()
    assert len(stocks) == len(stocks.all()) == 6
    matching = stocks.filter(name="AAPL")
    assert matching.count() == len(matching) == 2


def test_invalid_operation_raises_its_error_when_rows_are_read(stocks):
    rows = stocks.filter(nonsense=1)
    for _ in range(2):
        with pytest.raises(FieldError):
            list(rows)
    with pytest.raises(TypeError):
        stocks[:1].filter(name="A")


def test_cache_keeps_the_statements_that_were_used_last(stocks, compilations, monkeypatch):
    cache = StatementCache(size=2)
    monkeypatch.setattr("records.db.compiled.querysets.statements", cache)
    for name in ("name", "price", "name", "quantity", "name", "price"):
        list(stocks.filter(**{name: 1}))
    assert len(cache) == 2
    [condition] = {shape[0][0] for shape in compilations}
    assert (condition, [shape[0][1][2][0] for shape in compilations]) == (
        "filter",
        ["name", "price", "quantity", "price"],
    )


def test_lock_outside_a_transaction_is_refused_each_time(transactional_db, make_user, make_stock):
    if connection.vendor == "sqlite":
        pytest.skip("SQLite has no row locks.")
    stock = make_stock(make_user())
    locked = compiled_rows(Stock.objects).select_for_update(of=("self",), no_key=True).filter(pk=stock.pk)
    with transaction.atomic():
        assert locked.first() == stock
    with pytest.raises(TransactionManagementError):
        locked.first()


@pytest.mark.django_db(transaction=True)
def test_threads_share_statements(make_user, make_stock):
    owners = [make_user() for _ in range(8)]
    for owner in owners:
        make_stock(owner)

    def read(owner):
        try:
            return [compiled_rows(Stock.objects).filter(owner_id=owner.pk).first().owner_id for _ in range(50)]
        finally:
            connection.close()

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(read, owners)) == [[owner.pk] * 50 for owner in owners]


# Through the API

URLS = [
    "users/me", "users/{owner}", "users/{owner}/stocks", "users/{owner}/portfolio", "users/{owner}/history", "users",
    "users?age=30", "users?is_verified=false&sort_by=-name", "users?username=PERSON1", "users?email=x@example.com",
    "users?search=person", "stocks", "stocks/{stock}", "stocks/{stock}/history", "stocks?page=2&size=1",
    "stocks?page=9", "stocks?skip=1&limit=2", "stocks?count=none", "stocks?count=exact&size=1", "stocks?fields=user_id",
    "stocks?name=aapl", "stocks?name__in=AAPL,MSFT", "stocks?price__gte=2&price__lt=3", "stocks?is_active=true",
    "stocks?search=a", "stocks?user_id={owner}", "stocks?user_id={stranger}", "stocks?created_at__date=2024-02-29",
    "stocks?created_at__gte=2024-02-29T00:00:00Z", "stocks?sort_by=price,-name&cursor=&size=1",
    "stocks?is_deleted=true", "stocks?quantity=9223372036854775807", "admin/audit-logs?size=3",
    "admin/audit-logs?object_type=stocks&cursor=",
]  # fmt: skip


@pytest.fixture
def bodies(owner, stranger, make_stock):
    """Return a function that requests every URL twice as one client and returns the bodies, without request ids."""
    held = [make_stock(owner.user, name=name, price=price) for name, price in (("AAPL", "1.5"), ("MSFT", "2.5"))]
    make_stock(stranger.user, name="AAPL").delete()
    ids = {"owner": owner.user.pk, "stranger": stranger.user.pk, "stock": held[0].pk}

    def request(client) -> list:
        urls = [f"/api/v1/{url.format(**ids)}" for url in [*URLS, *URLS]]
        responses = [client.get(url) for url in urls]
        following = [client.get(link) for link in (_next_link(response) for response in responses) if link]
        return [response.json() | {"request_id": None} for response in [*responses, *following]]

    return request


def _next_link(response) -> str | None:
    return (response.json().get("links") or {}).get("next")


@pytest.mark.parametrize("persona", ["owner", "stranger", "staff", "superuser"])
def test_responses_are_those_of_django(request, bodies, monkeypatch, persona):
    client = request.getfixturevalue(persona)
    compiled = bodies(client)
    monkeypatch.setattr(StatementCache, "get", lambda *arguments: None)
    assert compiled == bodies(client)


def test_rights_decide_which_rows_a_shared_url_returns(owner, stranger, staff, make_stock, compilations):
    held = {client: [make_stock(client.user).pk for _ in range(2)] for client in (owner, stranger)}
    everything = sorted(chain.from_iterable(held.values()))
    Stock.objects.exclude(pk__in=everything).delete()
    for _ in range(3):
        for client, expected in ((staff, everything), *held.items()):
            items = client.get("/api/v1/stocks").json()["items"]
            assert [item["id"] for item in items] == expected
            statuses = [client.get(f"/api/v1/stocks/{key}").status_code for key in everything]
            assert statuses == [200 if key in expected else 404 for key in everything]


def test_permission_that_ends_takes_effect_on_the_next_request(staff, owner, make_stock):
    stock = make_stock(owner.user)
    assert staff.get("/api/v1/stocks").json()["items"]
    staff.user.user_permissions.clear()
    assert staff.get("/api/v1/stocks").json()["items"] == []
    assert staff.get(f"/api/v1/stocks/{stock.pk}").status_code == 404


def test_session_that_ends_is_refused_by_the_shared_statement(owner, stranger):
    assert [client.get("/api/v1/users/me").status_code for client in (owner, stranger)] == [200, 200]
    Session.objects.filter(user=owner.user).end()
    assert [client.get("/api/v1/users/me").status_code for client in (owner, stranger)] == [401, 200]
    Session.objects.filter(user=stranger.user).update(expires_at=datetime.now(UTC) - timedelta(seconds=1))
    assert stranger.get("/api/v1/users/me").status_code == 401
