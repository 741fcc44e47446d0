"""Dry runs: the same answer as the write, and nothing left behind."""

import pytest
from django.core import mail
from django.db import connection, models, transaction

from conftest import PASSWORD, Client
from records.audit.models import AuditEntry
from records.models import IdempotencyKey
from records.rest.views import RecordViewSet
from stocks.models import Stock
from users.delivery import courier, deliver_due
from users.models import QueuedMail, RateLimit, User

STOCKS = "/api/v1/stocks"
USERS = "/api/v1/users"
STOCK = {"name": "AAPL", "price": 1, "quantity": 1}
#: Fields that differ between two writes of the same row.
CHANGING = {"id", "created_at", "updated_at", "request_id"}


@pytest.fixture
def stock(owner, make_stock):
    return make_stock(owner.user)


def contents():
    """Return every row that a write could leave behind."""
    tables: list[type[models.Model]] = [User, Stock, AuditEntry, IdempotencyKey, QueuedMail, RateLimit]
    return {
        table.__name__: sorted(map(repr, getattr(table, "all_objects", table._default_manager).values()))
        for table in tables
    }


def dry(send, path, body=None, **options):
    return send(f"{path}{'&' if '?' in path else '?'}dry_run=true", body, **options)


def comparable(answer):
    body = answer.json() if answer.content else None
    if isinstance(body, dict):
        body = {name: value for name, value in body.items() if name not in CHANGING}
    return answer.status_code, body


def assert_dry_run_equals_write(send, path, body=None, **options):
    before = contents()
    rehearsed = dry(send, path, body, **options)
    assert contents() == before
    assert rehearsed.headers["X-Dry-Run"] == "true"
    written = send(path, body, **options)
    assert "X-Dry-Run" not in written.headers
    assert comparable(rehearsed) == comparable(written)
    return rehearsed


def test_creation(owner):
    answer = assert_dry_run_equals_write(owner.post, STOCKS, STOCK)
    assert answer.status_code == 201
    assert answer.headers["ETag"].startswith('"1-')


def test_creation_under_a_user(staff, owner):
    assert_dry_run_equals_write(staff.post, f"{USERS}/{owner.user.pk}/stocks", STOCK)


def test_creation_of_a_user(staff):
    body = {"username": "new-person", "email": "new@example.com", "password": "glacier-Tango-41-velvet"}
    assert_dry_run_equals_write(staff.post, USERS, body)
    assert not mail.outbox


def test_change(owner, stock):
    answer = assert_dry_run_equals_write(owner.patch, f"{STOCKS}/{stock.pk}", {"price": 2})
    assert answer.json()["version"] == 2


def test_replacement(owner, stock):
    assert_dry_run_equals_write(owner.put, f"{STOCKS}/{stock.pk}", STOCK)


def test_own_profile(owner):
    assert_dry_run_equals_write(owner.patch, f"{USERS}/me", {"age": 30})


def test_deletion(owner, stock):
    assert_dry_run_equals_write(owner.delete, f"{STOCKS}/{stock.pk}")


def test_deletion_with_a_reason(owner, stock):
    assert_dry_run_equals_write(owner.delete, f"{STOCKS}/{stock.pk}?reason=Sold")


def test_permanent_deletion(superuser, owner, stock):
    assert_dry_run_equals_write(superuser.delete, f"{USERS}/{owner.user.pk}?permanent=true")


def test_restoration(staff, stock):
    stock.delete()
    assert_dry_run_equals_write(staff.post, f"{STOCKS}/{stock.pk}/restore")


def test_repricing(staff, stock):
    assert_dry_run_equals_write(staff.post, f"{STOCKS}/reprice", {"prices": {"AAPL": 5, "XYZ": 1}})


def test_undo(superuser, stock):
    entry = AuditEntry.objects.of_row(Stock, stock.pk).get()
    assert_dry_run_equals_write(superuser.post, f"/api/v1/admin/audit-logs/{entry.pk}/undo")


def test_undo_of_a_request(superuser, owner, stock):
    owner.patch(f"{STOCKS}/{stock.pk}", {"price": 2}, HTTP_X_REQUEST_ID="one-request")
    path = "/api/v1/admin/audit-logs/undo"
    assert_dry_run_equals_write(superuser.post, path, {"request_id": "one-request"})


@pytest.mark.parametrize("body", [{}, {**STOCK, "price": 0}, {**STOCK, "id": 1}])
def test_invalid_body(owner, body):
    assert assert_dry_run_equals_write(owner.post, STOCKS, body).status_code == 400


def test_row_of_somebody_else(stranger, stock):
    assert assert_dry_run_equals_write(stranger.patch, f"{STOCKS}/{stock.pk}", {"price": 2}).status_code == 404


def test_refusal_leaves_no_entry(staff_with, stock):
    client = staff_with("view_stock")
    before = contents()
    answer = dry(client.patch, f"{STOCKS}/{stock.pk}", {"price": 2})
    assert (answer.status_code, answer.headers["X-Dry-Run"]) == (403, "true")
    assert contents() == before


def test_stale_tag(owner, stock):
    path = f"{STOCKS}/{stock.pk}"
    assert assert_dry_run_equals_write(owner.patch, path, {"price": 2}, HTTP_IF_MATCH='"99"').status_code == 412


def test_change_of_address_sends_no_mail(make_user, monkeypatch, django_capture_on_commit_callbacks):
    monkeypatch.setattr(courier, "notify", lambda: transaction.on_commit(deliver_due))
    owner = Client(make_user(password=PASSWORD))
    body = {"email": "other@example.com", "current_password": PASSWORD}
    before = contents()
    with django_capture_on_commit_callbacks(execute=True):
        assert dry(owner.patch, f"{USERS}/me", body).status_code == 200
    assert contents() == before
    assert not mail.outbox


@pytest.mark.parametrize("path", ["me", "{id}"])
def test_wrong_password_is_counted(make_user, path):
    owner = Client(make_user(password=PASSWORD))
    body = {"email": "other@example.com", "current_password": "wrong"}
    codes = [dry(owner.patch, f"{USERS}/{path.format(id=owner.user.pk)}", body).status_code for _ in range(11)]
    assert codes == [400] * 10 + [429]


# The parameter


@pytest.mark.parametrize("value", ["", "yes", "1", "truefalse"])
def test_other_values_are_400(owner, value):
    answer = owner.post(f"{STOCKS}?dry_run={value}", STOCK)
    assert answer.status_code == 400
    assert "dry_run" in answer.json()["errors"]
    assert not Stock.objects.filter(owner=owner.user).exists()


def test_false_writes(owner):
    answer = owner.post(f"{STOCKS}?dry_run=false", STOCK)
    assert "X-Dry-Run" not in answer.headers
    assert Stock.objects.filter(owner=owner.user).count() == 1


def test_reads_do_not_know_it(owner, stock):
    for path in (STOCKS, f"{STOCKS}/{stock.pk}"):
        assert owner.get(f"{path}?dry_run=true").status_code == 400


def test_accounts_do_not_know_it(owner):
    for path in ("sessions", "sessions/1"):
        assert owner.delete(f"/api/v1/auth/{path}?dry_run=true").status_code == 400


# With keys


def test_dry_run_leaves_no_key(owner):
    dry(owner.post, STOCKS, STOCK, HTTP_IDEMPOTENCY_KEY="k")
    assert not IdempotencyKey.objects.exists()
    assert owner.post(STOCKS, STOCK, HTTP_IDEMPOTENCY_KEY="k").status_code == 201


def test_dry_run_of_a_repeated_request_is_a_replay(owner):
    first = owner.post(STOCKS, STOCK, HTTP_IDEMPOTENCY_KEY="k")
    again = dry(owner.post, STOCKS, STOCK, HTTP_IDEMPOTENCY_KEY="k")
    assert again.content == first.content
    assert (again.headers["Idempotent-Replayed"], again.headers["X-Dry-Run"]) == ("true", "true")
    assert dry(owner.post, STOCKS, {**STOCK, "price": 2}, HTTP_IDEMPOTENCY_KEY="k").status_code == 422


# Readers


@pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite's tests share one database in memory")
@pytest.mark.django_db(transaction=True)
def test_readers_see_nothing_of_it(owner, stock, run_concurrently, monkeypatch):
    path = f"{STOCKS}/{stock.pk}"
    seen, written_row = [], RecordViewSet.written_row

    def read_meanwhile(view, instance):
        run_concurrently(lambda: seen.append(Client(owner.user).get(path).json()["price"]))
        return written_row(view, instance)

    monkeypatch.setattr(RecordViewSet, "written_row", read_meanwhile)
    assert dry(owner.patch, path, {"price": 2}).json()["price"] == 2
    assert seen == [175.5]
