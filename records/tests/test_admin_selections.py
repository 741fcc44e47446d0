"""Admin actions on more rows than a form can list: confirmed by count, atomic, with a page of limited size."""

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client

from records.audit.models import AuditEntry
from records.tests.browser import filled_form
from stocks.models import Stock
from users.models import Session, User

STOCKS, USERS, SESSIONS = "/admin/stocks/stock/", "/admin/users/user/", "/admin/users/session/"
FAR_FUTURE = "2999-01-01T00:00:00Z"
ROW_COUNT = 1_100


@pytest.fixture
def superuser_client(make_user):
    client = Client(raise_request_exception=False)
    client.user = make_user(is_staff=True, is_superuser=True)
    client.force_login(client.user)
    return client


@pytest.fixture
def many_stocks(owner):
    stocks = Stock.objects.bulk_create(
        [Stock(owner=owner.user, name="MANY", price="1.5", quantity=number + 1) for number in range(ROW_COUNT)]
    )
    return Stock.all_objects.filter(pk__in=[stock.pk for stock in stocks])


def select_all(client, path, action):
    """Select every row of the page and "Select all", as a browser does."""
    page = client.get(path)
    keys = [str(row.pk) for row in page.context["cl"].result_list]
    return client.post(path, {"action": action, "index": "0", "select_across": "1", "_selected_action": keys})


def confirm(client, path, page, **changes):
    return client.post(path, filled_form(page.content.decode()) | changes, follow=True)


@pytest.mark.parametrize("query", ["", "?name__exact=MANY", "?q=many&o=-2"])
def test_all_rows_of_a_list_are_deleted(superuser_client, many_stocks, make_stock, query):
    other = make_stock(superuser_client.user)
    path = f"{STOCKS}{query or '?owner__id__exact=' + str(many_stocks[0].owner_id)}"
    page = select_all(superuser_client, path, "delete_selected")
    assert "Delete 1,100 stocks?" in page.content.decode()
    assert "Successfully deleted 1,100 stocks." in confirm(superuser_client, path, page).content.decode()
    assert (many_stocks.live().count(), many_stocks.deleted().count()) == (0, ROW_COUNT)
    assert Stock.objects.filter(pk=other.pk).exists()
    assert AuditEntry.objects.filter(action="delete", object_type="stocks").count() == ROW_COUNT
    assert LogEntry.objects.get().object_repr == "1,100 stocks"


def test_page_size_and_number_of_queries_are_constant(superuser_client, many_stocks, django_assert_max_num_queries):
    path = f"{STOCKS}?name__exact=MANY"
    with django_assert_max_num_queries(12):
        page = select_all(superuser_client, path, "delete_selected")
    assert len(page.content) < 20_000
    assert page.content.decode().count("_selected_action") == 1
    assert "… and 1,000 more" in page.content.decode()
    with django_assert_max_num_queries(25):
        superuser_client.post(path, filled_form(page.content.decode()))
    assert not many_stocks.live().exists()


def test_selection_is_deleted_and_restored_in_batches(superuser_client, many_stocks, monkeypatch):
    monkeypatch.setattr("records.admin.selections.BATCH_SIZE", 300)
    path = f"{STOCKS}?name__exact=MANY"
    confirm(superuser_client, path, select_all(superuser_client, path, "delete_selected"))
    assert not many_stocks.live().exists()
    select_all(superuser_client, f"{path}&deleted=1", "restore_selected")
    assert many_stocks.live().count() == ROW_COUNT


def test_changed_selection_is_confirmed_again(superuser_client, many_stocks, make_stock):
    path = f"{STOCKS}?name__exact=MANY"
    page = select_all(superuser_client, path, "delete_selected")
    added_stock = make_stock(superuser_client.user, name="MANY")
    second_page = confirm(superuser_client, path, page)
    assert "Delete 1,101 stocks?" in second_page.content.decode()
    assert many_stocks.live().count() == ROW_COUNT
    confirm(superuser_client, path, second_page)
    assert not Stock.objects.filter(name="MANY", pk=added_stock.pk).exists()


def test_only_selected_rows_are_deleted(superuser_client, many_stocks):
    keys = [str(stock.pk) for stock in many_stocks.order_by("pk")[:3]]
    page = superuser_client.post(STOCKS, {"action": "delete_selected", "index": "0", "_selected_action": keys})
    assert filled_form(page.content.decode())["_selected_action"] == keys
    confirm(superuser_client, STOCKS, page)
    assert sorted(many_stocks.deleted().values_list("pk", flat=True)) == sorted(map(int, keys))
    assert LogEntry.objects.count() == 3


def test_users_are_deleted_with_their_stocks(superuser_client, many_stocks):
    people = User.objects.bulk_create([User(username=f"many{number}", password="!") for number in range(ROW_COUNT)])
    many_stocks.update(owner=people[0])
    path = f"{USERS}?q=many"
    page = select_all(superuser_client, path, "delete_selected")
    assert "Stocks: 1100" in page.content.decode()
    assert "Successfully deleted 1,100 users." in confirm(superuser_client, path, page).content.decode()
    assert not User.objects.filter(username__startswith="many").exists()
    assert not many_stocks.live().exists()


def test_last_superuser_is_not_deleted_with_all_users(superuser_client, many_stocks):
    page = select_all(superuser_client, USERS, "delete_selected")
    assert "last active superuser" in page.content.decode()
    selected = {"action": "delete_selected", "select_across": "1", "_selected_action": "1", "post": "yes"}
    assert superuser_client.post(USERS, selected).status_code == 200
    assert User.objects.filter(pk=superuser_client.user.pk).exists()


def test_all_deleted_rows_are_restored(superuser_client, many_stocks, django_assert_max_num_queries):
    many_stocks.delete()
    path = f"{STOCKS}?deleted=1&name__exact=MANY"
    with django_assert_max_num_queries(40):
        select_all(superuser_client, path, "restore_selected")
    assert many_stocks.live().count() == ROW_COUNT
    assert AuditEntry.objects.filter(action="restore", object_type="stocks").count() == ROW_COUNT


def test_all_changes_are_undone(superuser_client, many_stocks, django_assert_max_num_queries):
    many_stocks.delete()
    path = "/admin/records/auditentry/?action__exact=delete"
    with django_assert_max_num_queries(40):
        select_all(superuser_client, path, "undo_entries")
    assert many_stocks.live().count() == ROW_COUNT


@pytest.mark.parametrize("action", ["end", "delete_selected"])
def test_all_sessions_are_ended(superuser_client, owner, action, django_assert_max_num_queries):
    sessions = Session.objects.bulk_create(
        [Session(user=owner.user, expires_at=FAR_FUTURE, ip="192.0.2.1") for _ in range(ROW_COUNT)]
    )
    path = f"{SESSIONS}?ip__exact=192.0.2.1"
    with django_assert_max_num_queries(60):
        page = select_all(superuser_client, path, action)
        if action == "delete_selected":
            confirm(superuser_client, path, page)
    alive = Session.objects.filter(pk__in=[session.pk for session in sessions], revoked_at=None)
    assert not alive.exists()
    assert AuditEntry.objects.filter(action="logout", user_id=superuser_client.user.pk).count() == ROW_COUNT
    assert Session.objects.filter(pk__in=[session.pk for session in sessions]).exists() == (action == "end")


@pytest.mark.parametrize("action", ["delete_selected", "restore_selected"])
def test_selection_over_the_limit_is_refused(superuser_client, many_stocks, monkeypatch, action):
    monkeypatch.setattr("records.admin.selections.MAX_SELECTION", 1_000)
    path = f"{STOCKS}?name__exact=MANY"
    select_all(superuser_client, path, action)
    assert "At most 1,000 rows can be selected at once" in superuser_client.get(path).content.decode()
