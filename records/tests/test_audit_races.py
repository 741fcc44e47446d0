"""Concurrent writers: each entry of the audit log starts from the values that the one before it left."""

from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import pytest
from django.db import connection

from records.audit.models import AuditEntry
from records.tests.audit_trail import assert_replays
from stocks.models import Stock

pytestmark = pytest.mark.django_db(transaction=True)


def at_once(*acts):
    def run(act):
        try:
            return act()
        finally:
            connection.close()

    with ThreadPoolExecutor(len(acts)) as pool:
        return [future.result() for future in [pool.submit(run, act) for act in acts]]


@pytest.fixture
def stock(owner, make_stock):
    return make_stock(owner.user)


def saver(stock, price):
    """Has read the row long ago, as a form in the admin."""
    mine = Stock.objects.get(pk=stock.pk)
    mine.price = Decimal(price)
    return mine.save


def test_saves_updates_and_repricings_at_once_are_told_in_one_line(stock):
    acts = [saver(stock, price) for price in (1, 2, 3)]
    acts += [lambda price=price: Stock.objects.filter(pk=stock.pk).update(price=price) for price in (4, 5, 6)]
    acts += [lambda price=price: Stock.objects.reprice({"AAPL": Decimal(price)}) for price in (7, 8, 9)]
    at_once(*acts)
    assert_replays(stock)
    assert Stock.objects.get(pk=stock.pk).version == AuditEntry.objects.of_row(Stock, stock.pk).count() == 10


def test_of_several_undoings_at_once_one_wins(superuser, owner, stock):
    owner.patch(f"/api/v1/stocks/{stock.pk}", {"price": 2})
    path = f"/api/v1/admin/audit-logs/{AuditEntry.objects.of_row(Stock, stock.pk).latest('id').pk}/undo"
    codes = at_once(*[lambda: superuser.post(path).status_code] * 4)
    assert sorted(codes) == [200, 409, 409, 409]
    assert_replays(stock)


def test_deletions_at_once_are_told_once(stock):
    at_once(*[lambda: Stock.objects.filter(pk=stock.pk).delete()] * 4)
    actions = AuditEntry.objects.of_row(Stock, stock.pk).values_list("action", flat=True)
    assert sorted(actions) == ["create", "delete"]


def test_purges_at_once_are_told_once(stock):
    rows = Stock.all_objects.filter(pk=stock.pk)
    at_once(*[lambda: list(rows.all().purge_in_batches())] * 4)
    actions = AuditEntry.objects.of_row(Stock, stock.pk).values_list("action", flat=True)
    assert sorted(actions) == ["create", "purge"]
