"""Concurrent writers: the old values of each audit entry are the new values of the previous one."""

from decimal import Decimal

import pytest

from records.audit.models import AuditEntry
from records.tests.audit_trail import assert_replays
from stocks.models import Stock

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def stock(owner, make_stock):
    return make_stock(owner.user)


def stale_save(stock, price):
    """Load the row now; return a function that saves it with this price later, as an admin form does."""
    instance = Stock.objects.get(pk=stock.pk)
    instance.price = Decimal(price)
    return instance.save


def test_concurrent_saves_updates_and_repricings_are_logged_in_order(stock, run_concurrently):
    operations = [stale_save(stock, price) for price in (1, 2, 3)]
    operations += [lambda price=price: Stock.objects.filter(pk=stock.pk).update(price=price) for price in (4, 5, 6)]
    operations += [lambda price=price: Stock.objects.reprice({"AAPL": Decimal(price)}) for price in (7, 8, 9)]
    run_concurrently(*operations)
    assert_replays(stock)
    assert Stock.objects.get(pk=stock.pk).version == AuditEntry.objects.of_row(Stock, stock.pk).count() == 10


def test_one_of_several_concurrent_undos_succeeds(superuser, owner, stock, run_concurrently):
    owner.patch(f"/api/v1/stocks/{stock.pk}", {"price": 2})
    path = f"/api/v1/admin/audit-logs/{AuditEntry.objects.of_row(Stock, stock.pk).latest('id').pk}/undo"
    codes = run_concurrently(*[lambda: superuser.post(path).status_code] * 4)
    assert sorted(codes) == [200, 409, 409, 409]
    assert_replays(stock)


def test_concurrent_deletions_are_logged_once(stock, run_concurrently):
    run_concurrently(*[lambda: Stock.objects.filter(pk=stock.pk).delete()] * 4)
    actions = AuditEntry.objects.of_row(Stock, stock.pk).values_list("action", flat=True)
    assert sorted(actions) == ["create", "delete"]


def test_concurrent_purges_are_logged_once(stock, run_concurrently):
    rows = Stock.all_objects.filter(pk=stock.pk)
    run_concurrently(*[lambda: list(rows.all().purge_in_batches())] * 4)
    actions = AuditEntry.objects.of_row(Stock, stock.pk).values_list("action", flat=True)
    assert sorted(actions) == ["create", "purge"]
