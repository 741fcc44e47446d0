"""Undoing one entry, or every change of a request."""

from datetime import timedelta
from decimal import Decimal

import pytest
from django.contrib.auth.models import Group
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from records.audit import undo as engine
from records.audit.models import AuditEntry
from stocks.models import Stock
from users.models import User

LOG = "/api/v1/admin/audit-logs"
UNDO = f"{LOG}/undo"


@pytest.fixture
def stock(owner, make_stock):
    return make_stock(owner.user)


def last_entry(row):
    return AuditEntry.objects.of_row(type(row), row.pk).latest("id")


def undo(client, row):
    """Undo the last entry of the row."""
    return client.post(f"{LOG}/{last_entry(row).pk}/undo")


def undo_request(client, answer):
    return client.post(UNDO, {"request_id": answer.headers["X-Request-ID"]})


def stored(row):
    return type(row).all_objects.get(pk=row.pk)


# One entry


def test_undo_of_an_update_is_logged_as_a_new_change(superuser, owner, stock):
    owner.patch(f"/api/v1/stocks/{stock.pk}", {"price": 190.25, "quantity": 3})
    answer = undo(superuser, stock)
    assert (answer.status_code, answer.json()["undone"]) == (200, 1)
    assert (stored(stock).price, stored(stock).quantity, stored(stock).version) == (Decimal("175.5"), 10, 3)
    entry = last_entry(stock)
    assert (entry.action, entry.changes) == ("undo", {"price": [190.25, 175.5], "quantity": [3, 10]})
    assert (entry.user_id, entry.request_id) == (superuser.user.pk, answer.json()["request_id"])


def test_undo_of_an_undo_restores_the_change(superuser, owner, stock):
    owner.patch(f"/api/v1/stocks/{stock.pk}", {"price": 190.25})
    for price in ("175.5", "190.25", "175.5"):
        assert undo(superuser, stock).status_code == 200
        assert stored(stock).price == Decimal(price)


def test_undo_restores_nulls(superuser, owner):
    owner.patch("/api/v1/users/me", {"age": 36})
    undo(superuser, owner.user)
    assert stored(owner.user).age is None


def test_undo_of_a_creation_deletes_the_row(superuser, owner, stock):
    assert undo(superuser, stock).status_code == 200
    assert (stored(stock).is_deleted, last_entry(stock).action) == (True, "undo")
    assert undo(superuser, stock).status_code == 200
    assert not stored(stock).is_deleted


def test_undo_of_a_deletion_restores_the_row(superuser, owner, stock):
    owner.delete(f"/api/v1/stocks/{stock.pk}?reason=sold")
    assert undo(superuser, stock).status_code == 200
    assert owner.get(f"/api/v1/stocks/{stock.pk}").status_code == 200


def test_undo_of_a_restore_keeps_the_deletion_details(superuser, owner, stock):
    owner.delete(f"/api/v1/stocks/{stock.pk}?reason=sold")
    before = stored(stock)
    superuser.post(f"/api/v1/stocks/{stock.pk}/restore")
    assert undo(superuser, stock).status_code == 200
    after = stored(stock)
    names = ("deleted_at", "deleted_by", "deletion_reason", "deletion")
    assert [getattr(after, name) for name in names] == [getattr(before, name) for name in names]


def test_undo_of_a_user_deletion_restores_rows_deleted_with_it(superuser, owner, make_stock):
    before, with_them = make_stock(owner.user), make_stock(owner.user)
    before.delete()
    superuser.delete(f"/api/v1/users/{owner.user.pk}")
    assert undo(superuser, owner.user).status_code == 200
    assert (stored(before).is_deleted, stored(with_them).is_deleted) == (True, False)
    assert undo(superuser, owner.user).status_code == 200
    assert stored(with_them).is_deleted
    superuser.post(f"/api/v1/users/{owner.user.pk}/restore")
    assert (stored(before).is_deleted, stored(with_them).is_deleted) == (True, False)


def test_undo_restores_groups(superuser, owner):
    [first, second] = [Group.objects.create(name=name) for name in ("first", "second")]
    owner.user.groups.set([first])
    owner.user.groups.add(second)
    assert undo(superuser, owner.user).status_code == 200
    assert list(owner.user.groups.all()) == [first]


def test_deactivation_by_undo_ends_sessions(superuser, owner):
    superuser.patch(f"/api/v1/users/{owner.user.pk}", {"is_active": False})
    superuser.patch(f"/api/v1/users/{owner.user.pk}", {"is_active": True})
    fresh = type(owner)(stored(owner.user))
    assert fresh.get("/api/v1/users/me").status_code == 200
    entry = AuditEntry.objects.of_row(User, owner.user.pk).filter(action="update").latest("id")
    assert superuser.post(f"{LOG}/{entry.pk}/undo").status_code == 200
    assert fresh.get("/api/v1/users/me").status_code == 401


# Conflicts


def test_later_change_is_409_with_both_values(superuser, owner, stock):
    owner.patch(f"/api/v1/stocks/{stock.pk}", {"price": 190.25, "quantity": 3})
    entry = last_entry(stock)
    owner.patch(f"/api/v1/stocks/{stock.pk}", {"price": 200})
    answer = superuser.post(f"{LOG}/{entry.pk}/undo")
    assert (answer.status_code, answer.headers["Content-Type"]) == (409, "application/problem+json")
    assert answer.json()["errors"] == {"price": ["It was 190.25 then and is 200 now."]}
    assert answer.json()["detail"] == f"Stock {stock.pk} has changed since. Nothing was undone."
    assert (stored(stock).price, stored(stock).quantity) == (200, 3)


def test_second_undo_is_a_conflict(superuser, owner, stock):
    owner.patch(f"/api/v1/stocks/{stock.pk}", {"price": 190.25})
    entry = last_entry(stock)
    assert superuser.post(f"{LOG}/{entry.pk}/undo").status_code == 200
    assert superuser.post(f"{LOG}/{entry.pk}/undo").status_code == 409


def test_later_change_of_another_field_is_no_conflict(superuser, owner, stock):
    owner.patch(f"/api/v1/stocks/{stock.pk}", {"price": 190.25})
    entry = last_entry(stock)
    owner.patch(f"/api/v1/stocks/{stock.pk}", {"quantity": 3})
    assert superuser.post(f"{LOG}/{entry.pk}/undo").status_code == 200
    assert (stored(stock).price, stored(stock).quantity) == (Decimal("175.5"), 3)


def test_creation_of_a_changed_row_is_not_undone(superuser, owner):
    created = AuditEntry.objects.of_row(User, owner.user.pk).get(action="create")
    owner.patch("/api/v1/users/me", {"bio": "Mathematician"})
    answer = superuser.post(f"{LOG}/{created.pk}/undo")
    assert (answer.status_code, answer.json()["errors"]) == (
        409, {"bio": ["It was empty then and is Mathematician now."]},
    )  # fmt: skip


def test_taken_old_value_is_a_conflict(superuser, owner, make_user):
    former = owner.user.username
    owner.patch("/api/v1/users/me", {"username": "renamed"})
    entry = last_entry(owner.user)
    make_user(username=former.upper())
    answer = superuser.post(f"{LOG}/{entry.pk}/undo")
    assert (answer.status_code, answer.json()["errors"]) == (409, {"username": ["Username already in use"]})
    assert stored(owner.user).username == "renamed"


def test_stock_of_a_deleted_user_is_not_restored(superuser, owner, stock):
    owner.delete(f"/api/v1/stocks/{stock.pk}")
    entry = last_entry(stock)
    owner.user.delete()
    answer = superuser.post(f"{LOG}/{entry.pk}/undo")
    assert (answer.status_code, "restore the owner first" in answer.json()["detail"]) == (409, True)


def test_creation_of_the_last_active_superuser_is_not_undone(superuser):
    User.objects.superusers().exclude(pk=superuser.user.pk).update(is_superuser=False)
    User.objects.filter(pk=superuser.user.pk).update(is_staff=True)
    superuser.user.refresh_from_db()
    created = AuditEntry.objects.of_row(User, superuser.user.pk).get(action="create")
    answer = superuser.post(f"{LOG}/{created.pk}/undo")
    assert (answer.status_code, "last active superuser" in answer.json()["detail"]) == (409, True)


def not_undoable(owner, make_stock):
    purged, user = make_stock(owner.user), owner.user
    Stock.all_objects.filter(pk=purged.pk).purge()
    user.set_password("another-horse-8-battery")
    user.save()
    log = AuditEntry.objects
    return {
        "purge": log.of_row(Stock, purged.pk).get(action="purge"),
        "creation of what was purged": log.of_row(Stock, purged.pk).get(action="create"),
        "password": log.of_row(User, user.pk).get(action="password_change"),
        "login": log.of_row(User, user.pk).filter(action="login").earliest("id"),
    }


@pytest.mark.parametrize("kind", ["purge", "creation of what was purged", "password", "login"])
def test_irreversible_entry_is_409(superuser, owner, make_stock, kind):
    entry = not_undoable(owner, make_stock)[kind]
    before = AuditEntry.objects.count()
    assert superuser.post(f"{LOG}/{entry.pk}/undo").status_code == 409
    assert AuditEntry.objects.count() == before


def test_missing_entry_is_404(superuser):
    assert superuser.post(f"{LOG}/99999999/undo").status_code == 404


def test_unknown_field_in_the_body_is_400(superuser, owner, stock):
    assert superuser.post(f"{LOG}/{last_entry(stock).pk}/undo", {"force": True}).status_code == 400
    assert not stored(stock).is_deleted


# Requests


def test_whole_request_is_undone(superuser, owner, stranger, make_stock):
    holders = ((owner, 1), (owner, 2), (stranger, 3))
    prices = {make_stock(holder.user, name="OWN", price=price).pk: price for holder, price in holders}
    answer = superuser.post("/api/v1/stocks/reprice", {"prices": {"OWN": 190.25}})
    undone = undo_request(superuser, answer)
    assert (undone.status_code, undone.json()["undone"]) == (200, 3)
    assert {pk: Stock.objects.get(pk=pk).price for pk in prices} == prices
    again = undo_request(superuser, undone)
    assert (again.status_code, set(Stock.objects.filter(pk__in=prices).values_list("price", flat=True))) == (
        200, {Decimal("190.25")},
    )  # fmt: skip


def test_request_with_one_conflict_undoes_nothing(superuser, owner, make_stock):
    first, second = make_stock(owner.user, price=1), make_stock(owner.user, price=2)
    answer = superuser.post("/api/v1/stocks/reprice", {"prices": {"AAPL": 190.25}})
    owner.patch(f"/api/v1/stocks/{second.pk}", {"price": 7.5})
    undone = undo_request(superuser, answer)
    assert undone.status_code == 409
    [(name, [text])] = undone.json()["errors"].items()
    assert name == f"stocks.{second.pk}.price"
    assert text.startswith("It was 190.25 then and is 7.5")
    assert (stored(first).price, stored(second).price) == (Decimal("190.25"), Decimal("7.5"))


def test_request_with_a_purged_row_undoes_nothing(superuser, owner, make_stock):
    first, second = make_stock(owner.user, price=1), make_stock(owner.user, price=2)
    answer = superuser.post("/api/v1/stocks/reprice", {"prices": {"AAPL": 190.25}})
    Stock.all_objects.filter(pk=second.pk).purge()
    undone = undo_request(superuser, answer)
    assert (undone.status_code, f"stocks {second.pk} cannot be undone" in undone.json()["detail"]) == (409, True)
    assert stored(first).price == Decimal("190.25")


def test_conflicts_are_counted_and_the_first_20_listed(superuser, owner, make_stock):
    rows = [make_stock(owner.user, price=1) for _ in range(30)]
    answer = superuser.post("/api/v1/stocks/reprice", {"prices": {"AAPL": 2}})
    Stock.objects.filter(pk__in=[row.pk for row in rows]).update(price=3)
    undone = undo_request(superuser, answer).json()
    assert (len(undone["errors"]), "So have 29 others." in undone["detail"]) == (20, True)


def test_bulk_deletion_in_the_admin_is_undone(client, superuser, owner, make_stock):
    rows = [make_stock(owner.user) for _ in range(3)]
    client.force_login(superuser.user)
    selected = {"action": "delete_selected", "_selected_action": [row.pk for row in rows], "post": "yes"}
    answer = client.post("/admin/stocks/stock/", selected)
    assert not Stock.objects.filter(owner=owner.user).exists()
    assert undo_request(superuser, answer).json()["undone"] == 3
    assert Stock.objects.filter(owner=owner.user).count() == 3


def test_user_deletion_is_undone_with_their_stocks(superuser, owner, stock):
    answer = superuser.delete(f"/api/v1/users/{owner.user.pk}")
    assert undo_request(superuser, answer).json()["undone"] == 2
    assert (stored(stock).is_deleted, stored(owner.user).is_deleted) == (False, False)


def test_several_changes_of_one_row_are_undone_together(superuser, owner, stock):
    for price in (2, 3):
        owner.patch(f"/api/v1/stocks/{stock.pk}", {"price": price}, HTTP_X_REQUEST_ID="batch")
    assert superuser.post(UNDO, {"request_id": "batch"}).json()["undone"] == 1
    assert (stored(stock).price, last_entry(stock).changes) == (Decimal("175.5"), {"price": [3, 175.5]})


def test_change_by_another_request_in_between_is_a_conflict(superuser, owner, stock):
    for price, request in ((2, "batch"), (5, "other"), (3, "batch")):
        owner.patch(f"/api/v1/stocks/{stock.pk}", {"price": price}, HTTP_X_REQUEST_ID=request)
    answer = superuser.post(UNDO, {"request_id": "batch"})
    assert (answer.status_code, answer.json()["errors"]) == (
        409, {f"stocks.{stock.pk}.price": ["It was 2 then and is 5 now."]},
    )  # fmt: skip


def test_row_created_and_changed_in_one_request_is_deleted(superuser, owner):
    created = owner.post("/api/v1/stocks", {"name": "A", "price": 1, "quantity": 1}, HTTP_X_REQUEST_ID="batch").json()
    owner.patch(f"/api/v1/stocks/{created['id']}", {"price": 2}, HTTP_X_REQUEST_ID="batch")
    assert superuser.post(UNDO, {"request_id": "batch"}).status_code == 200
    assert Stock.all_objects.get(pk=created["id"]).is_deleted


def test_undo_statement_count_is_constant(superuser, owner, make_stock):
    counts = []
    for number in (2, 30):
        Stock.objects.bulk_create(
            [Stock(owner=owner.user, name="MANY", price=price + 1, quantity=1) for price in range(number)]
        )
        answer = superuser.post("/api/v1/stocks/reprice", {"prices": {"MANY": 1000}})
        with CaptureQueriesContext(connection) as queries:
            assert undo_request(superuser, answer).json()["undone"] >= number
        counts.append(len(queries))
    assert counts[0] == counts[1]


def test_ten_thousand_rows_are_undone(superuser, owner):
    rows = [Stock(owner=owner.user, name="MANY", price=number + 1, quantity=1) for number in range(10_000)]
    Stock.objects.bulk_create(rows)
    answer = superuser.post("/api/v1/stocks/reprice", {"prices": {"MANY": 99999}})
    assert undo_request(superuser, answer).json()["undone"] == 10_000
    prices = Stock.objects.filter(name="MANY").order_by("id").values_list("price", flat=True)
    assert list(prices) == [row.price for row in rows]


@pytest.mark.parametrize(
    ("body", "name"), [({}, "request_id"), ({"request_id": "nosuch"}, "request_id"), ({"request": "x"}, "request")]
)
def test_unknown_request_id_is_400(superuser, body, name):
    answer = superuser.post(UNDO, body)
    assert (answer.status_code, name in answer.json()["errors"]) == (400, True)


# Permissions


def test_undo_requires_change_permission(staff_with, owner, stock):
    owner.patch(f"/api/v1/stocks/{stock.pk}", {"price": 2})
    entry = last_entry(stock)
    lacking = [("view_auditentry", "change_stock"), ("change_auditentry",), ("change_auditentry", "delete_stock")]
    for permissions in lacking:
        assert staff_with(*permissions).post(f"{LOG}/{entry.pk}/undo").status_code == 403
    assert staff_with("change_auditentry", "change_stock").post(f"{LOG}/{entry.pk}/undo").status_code == 200


def test_undo_of_a_creation_requires_delete_permission(staff_with, stock):
    entry = last_entry(stock)
    assert staff_with("change_auditentry", "change_stock").post(f"{LOG}/{entry.pk}/undo").status_code == 403
    assert staff_with("change_auditentry", "delete_stock").post(f"{LOG}/{entry.pk}/undo").status_code == 200


@pytest.mark.parametrize("grant", ["is_superuser", "groups"])
def test_staff_cannot_regain_permissions_by_undo(staff_with, grant):
    staff = staff_with("change_auditentry", "change_user")
    group = Group.objects.create(name="admins")
    if grant == "groups":
        staff.user.groups.set([group])
        staff.user.groups.clear()
    else:
        staff.user.is_superuser = True
        staff.user.save()
        User.objects.create_superuser("another", "another@example.com")
        User.objects.filter(pk=staff.user.pk).update(is_superuser=False)
    assert undo(staff, staff.user).status_code == 403
    fresh = stored(staff.user)
    assert (fresh.is_superuser, fresh.groups.exists()) == (False, False)


def test_staff_cannot_undo_changes_of_a_superuser(staff_with, superuser):
    superuser.patch("/api/v1/users/me", {"name": "Ada"})
    assert undo(staff_with("change_auditentry", "change_user"), superuser.user).status_code == 403


def test_staff_can_undo_the_creation_of_a_user(staff_with, make_user):
    user = make_user()
    assert undo(staff_with("change_auditentry", "delete_user"), user).status_code == 200
    assert stored(user).is_deleted


# Request ids chosen by callers


def test_request_id_of_several_users_requires_a_user_id(superuser, owner, stranger, make_stock):
    rows = {client: make_stock(client.user) for client in (owner, stranger)}
    for client, row in rows.items():
        client.patch(f"/api/v1/stocks/{row.pk}", {"price": 2}, HTTP_X_REQUEST_ID="1")
    answer = superuser.post(UNDO, {"request_id": "1"})
    assert (answer.status_code, "by user_id" in answer.json()["detail"]) == (409, True)
    assert superuser.post(UNDO, {"request_id": "1", "user_id": owner.user.pk}).json()["undone"] == 1
    assert [stored(row).price for row in rows.values()] == [Decimal("175.5"), 2]


def test_request_id_shared_with_a_password_change_requires_a_user_id(superuser, owner, stranger, stock, monkeypatch):
    owner.patch(f"/api/v1/stocks/{stock.pk}", {"price": 2}, HTTP_X_REQUEST_ID="1")
    monkeypatch.setattr("records.context.request_id", lambda: "1")
    stranger.user.set_password("another-horse-8-battery")
    stranger.user.save()
    monkeypatch.undo()
    answer = superuser.post(UNDO, {"request_id": "1"})
    assert (answer.status_code, "by user_id" in answer.json()["detail"]) == (409, True)


def test_changes_of_a_command_are_undone_with_user_id_null(superuser, stock, monkeypatch):
    monkeypatch.setattr("records.context.request_id", lambda: "loaddata-1")
    Stock.objects.filter(pk=stock.pk).update(price=2)
    monkeypatch.undo()
    assert superuser.post(UNDO, {"request_id": "loaddata-1", "user_id": None}).json()["undone"] == 1


# Related state


def test_transfer_is_not_undone_to_a_deleted_user(superuser, owner, stranger, stock):
    superuser.patch(f"/api/v1/stocks/{stock.pk}", {"user_id": stranger.user.pk})
    entry = last_entry(stock)
    owner.user.delete()
    answer = superuser.post(f"{LOG}/{entry.pk}/undo")
    assert (answer.status_code, stored(stock).owner_id) == (409, stranger.user.pk)


def test_restored_unverified_address_stays_unverified(superuser, owner):
    before = owner.user.email
    superuser.patch(f"/api/v1/users/{owner.user.pk}", {"email": "other@example.com"})
    entry = last_entry(owner.user)
    User.objects.filter(pk=owner.user.pk).update(is_verified=True)
    assert superuser.post(f"{LOG}/{entry.pk}/undo").status_code == 200
    assert (stored(owner.user).email, stored(owner.user).is_verified) == (before, False)


def test_restored_verified_address_is_verified(superuser, make_user):
    user = make_user(is_verified=True)
    superuser.patch(f"/api/v1/users/{user.pk}", {"email": "other@example.com"})
    assert not stored(user).is_verified
    assert undo(superuser, user).status_code == 200
    assert stored(user).is_verified


def test_times_are_restored_to_the_microsecond(superuser, make_user):
    users = [make_user() for _ in range(2)]
    moments = [timezone.now() - timedelta(microseconds=n) for n in (1, 2)]
    for user, moment in zip(users, moments, strict=True):
        User.objects.filter(pk=user.pk).update(deletion_at=moment)
    ids = [last_entry(user).pk for user in users]
    User.objects.filter(pk__in=[user.pk for user in users]).update(deletion_at=None)
    entries = AuditEntry.objects.filter(object_type="users", action="update").order_by("-id")[:2]
    assert engine.undo(AuditEntry.objects.filter(pk__in=[entry.pk for entry in entries]), superuser.user) == 2
    assert [stored(user).deletion_at for user in users] == moments
    assert ids


def test_creation_and_change_in_one_request_are_no_conflict(superuser, owner, monkeypatch):
    monkeypatch.setattr("records.context.request_id", lambda: "command-1")
    stock = Stock.objects.create(owner=owner.user, name="a", price="175.50", quantity="1")
    stock.price = "3"
    stock.save()
    monkeypatch.undo()
    assert superuser.post(UNDO, {"request_id": "command-1"}).status_code == 200
    assert stored(stock).is_deleted
