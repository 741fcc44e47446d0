"""Actions on more rows than a form can list: confirmed by their count, all or nothing, in a page of bounded size."""

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client

from records.audit.models import AuditEntry
from records.tests.browser import filled_form
from stocks.models import Stock
from users.models import Session, User

STOCKS, USERS, SESSIONS = "/admin/stocks/stock/", "/admin/users/user/", "/admin/users/session/"
EVER = "2999-01-01T00:00:00Z"
MANY = 1_100


@pytest.fixture
def boss(make_user):
    client = Client(raise_request_exception=False)
    client.user = make_user(is_staff=True, is_superuser=True)
    client.force_login(client.user)
    return client


@pytest.fixture
def many(owner):
    stocks = Stock.objects.bulk_create(
        [Stock(owner=owner.user, name="MANY", price="1.5", quantity=number + 1) for number in range(MANY)]
    )
    return Stock.all_objects.filter(pk__in=[stock.pk for stock in stocks])


def select_all(client, path, action):
    """Select every row of the page and "Select all", as a browser does."""
    page = client.get(path)
    keys = [str(row.pk) for row in page.context["cl"].result_list]
    return client.post(path, {"action": action, "index": "0", "select_across": "1", "_selected_action": keys})


def confirm(client, path, page, **typed):
    return client.post(path, filled_form(page.content.decode()) | typed, follow=True)


@pytest.mark.parametrize("query", ["", "?name__exact=MANY", "?q=many&o=-2"])
def test_all_rows_of_a_list_are_deleted(boss, many, make_stock, query):
    other = make_stock(boss.user)
    path = f"{STOCKS}{query or '?owner__id__exact=' + str(many[0].owner_id)}"
    page = select_all(boss, path, "delete_selected")
    assert "Delete 1,100 stocks?" in page.content.decode()
    assert "Successfully deleted 1,100 stocks." in confirm(boss, path, page).content.decode()
    assert (many.live().count(), many.deleted().count()) == (0, MANY)
    assert Stock.objects.filter(pk=other.pk).exists()
    assert AuditEntry.objects.filter(action="delete", object_type="stocks").count() == MANY
    assert LogEntry.objects.get().object_repr == "1,100 stocks"


def test_page_size_and_number_of_queries_are_constant(boss, many, django_assert_max_num_queries):
    path = f"{STOCKS}?name__exact=MANY"
    with django_assert_max_num_queries(12):
        page = select_all(boss, path, "delete_selected")
    assert len(page.content) < 20_000
    assert page.content.decode().count("_selected_action") == 1
    assert "… and 1,000 more" in page.content.decode()
    with django_assert_max_num_queries(25):
        boss.post(path, filled_form(page.content.decode()))
    assert not many.live().exists()


def test_selection_is_deleted_and_restored_in_batches(boss, many, monkeypatch):
    monkeypatch.setattr("records.admin.selections.BATCH_SIZE", 300)
    path = f"{STOCKS}?name__exact=MANY"
    confirm(boss, path, select_all(boss, path, "delete_selected"))
    assert not many.live().exists()
    select_all(boss, f"{path}&deleted=1", "restore_selected")
    assert many.live().count() == MANY


def test_changed_selection_is_confirmed_again(boss, many, make_stock):
    path = f"{STOCKS}?name__exact=MANY"
    page = select_all(boss, path, "delete_selected")
    late = make_stock(boss.user, name="MANY")
    again = confirm(boss, path, page)
    assert "Delete 1,101 stocks?" in again.content.decode()
    assert many.live().count() == MANY
    confirm(boss, path, again)
    assert not Stock.objects.filter(name="MANY", pk=late.pk).exists()


def test_only_selected_rows_are_deleted(boss, many):
    keys = [str(stock.pk) for stock in many.order_by("pk")[:3]]
    page = boss.post(STOCKS, {"action": "delete_selected", "index": "0", "_selected_action": keys})
    assert filled_form(page.content.decode())["_selected_action"] == keys
    confirm(boss, STOCKS, page)
    assert sorted(many.deleted().values_list("pk", flat=True)) == sorted(map(int, keys))
    assert LogEntry.objects.count() == 3


def test_users_are_deleted_with_their_stocks(boss, many):
    people = User.objects.bulk_create([User(username=f"many{number}", password="!") for number in range(MANY)])
    many.update(owner=people[0])
    path = f"{USERS}?q=many"
    page = select_all(boss, path, "delete_selected")
    assert "Stocks: 1100" in page.content.decode()
    assert "Successfully deleted 1,100 users." in confirm(boss, path, page).content.decode()
    assert not User.objects.filter(username__startswith="many").exists()
    assert not many.live().exists()


def test_last_superuser_is_not_deleted_with_all_users(boss, many):
    page = select_all(boss, USERS, "delete_selected")
    assert "last active superuser" in page.content.decode()
    selected = {"action": "delete_selected", "select_across": "1", "_selected_action": "1", "post": "yes"}
    assert boss.post(USERS, selected).status_code == 200
    assert User.objects.filter(pk=boss.user.pk).exists()


def test_all_deleted_rows_are_restored(boss, many, django_assert_max_num_queries):
    many.delete()
    path = f"{STOCKS}?deleted=1&name__exact=MANY"
    with django_assert_max_num_queries(40):
        select_all(boss, path, "restore_selected")
    assert many.live().count() == MANY
    assert AuditEntry.objects.filter(action="restore", object_type="stocks").count() == MANY


def test_all_changes_are_undone(boss, many, django_assert_max_num_queries):
    many.delete()
    path = "/admin/records/auditentry/?action__exact=delete"
    with django_assert_max_num_queries(40):
        select_all(boss, path, "undo_entries")
    assert many.live().count() == MANY


@pytest.mark.parametrize("action", ["end", "delete_selected"])
def test_all_devices_are_signed_out(boss, owner, action, django_assert_max_num_queries):
    sessions = Session.objects.bulk_create(
        [Session(user=owner.user, expires_at=EVER, ip="192.0.2.1") for _ in range(MANY)]
    )
    path = f"{SESSIONS}?ip__exact=192.0.2.1"
    with django_assert_max_num_queries(60):
        page = select_all(boss, path, action)
        if action == "delete_selected":
            confirm(boss, path, page)
    alive = Session.objects.filter(pk__in=[session.pk for session in sessions], revoked_at=None)
    assert not alive.exists()
    assert AuditEntry.objects.filter(action="logout", user_id=boss.user.pk).count() == MANY
    assert Session.objects.filter(pk__in=[session.pk for session in sessions]).exists() == (action == "end")


@pytest.mark.parametrize("action", ["delete_selected", "restore_selected"])
def test_selection_over_the_limit_is_refused(boss, many, monkeypatch, action):
    monkeypatch.setattr("records.admin.selections.MAX_SELECTION", 1_000)
    path = f"{STOCKS}?name__exact=MANY"
    select_all(boss, path, action)
    assert "At most 1,000 rows can be selected at once" in boss.get(path).content.decode()
