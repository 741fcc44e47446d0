"""Change forms of the admin whose row has changed since they were opened."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from threading import Barrier

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group, Permission
from django.db import connection, connections
from django.test import Client
from django.utils import timezone

from records import context
from records.audit.models import AuditEntry
from records.tests.browser import filled_form, opened_form
from stocks.models import Stock
from users.models import User


@pytest.fixture
def browser(make_user) -> Client:
    client = Client(raise_request_exception=False)
    client.user = make_user(username="ada", is_staff=True, is_superuser=True)
    client.force_login(client.user)
    return client


@pytest.fixture
def stock(browser, make_stock) -> Stock:
    return make_stock(browser.user, price="146.78")


def page_of(row) -> str:
    return f"/admin/{row._meta.app_label}/{row._meta.model_name}/{row.pk}/change/"


def columns(row) -> dict:
    return type(row)._base_manager.filter(pk=row.pk).values().get()


def change(browser, row, **changes):
    """Change the row in another tab."""
    answer = browser.post(page_of(row), opened_form(browser, page_of(row)) | changes)
    assert answer.status_code == 302, answer.context["adminform"].form.errors


def conflict_page(browser, row, form) -> str:
    """Submit the form, and return the page which says that nothing was saved."""
    before, entries, logged = columns(row), AuditEntry.objects.count(), LogEntry.objects.count()
    answer = browser.post(page_of(row), form)
    assert answer.status_code == 200
    assert (columns(row), AuditEntry.objects.count(), LogEntry.objects.count()) == (before, entries, logged)
    page = answer.content.decode()
    assert "Nothing was saved" in page
    return page


def test_second_of_two_tabs_overwrites_nothing(browser, stock):
    form = opened_form(browser, page_of(stock))
    change(browser, stock, price="11")
    page = conflict_page(browser, stock, form | {"price": "12"})
    assert "Changed by ada just now: price 146.78 → 11" in page
    assert "Stored now: 11" in page
    assert filled_form(page)["price"] == ["12"]


def test_age_of_the_change_is_in_words(browser, stock, monkeypatch):
    form = opened_form(browser, page_of(stock))
    change(browser, stock, price="11")
    now = timezone.now() + timedelta(minutes=2, seconds=5)
    monkeypatch.setattr("django.contrib.humanize.templatetags.humanize.datetime", _Clock(now))
    assert "Changed by ada 2 minutes ago" in conflict_page(browser, stock, form | {"price": "12"})


class _Clock:
    def __init__(self, now):
        self.now = lambda zone=None: now


def test_untouched_fields_take_what_others_stored(browser, stock):
    form = opened_form(browser, page_of(stock))
    change(browser, stock, price="11")
    shown = filled_form(conflict_page(browser, stock, form | {"quantity": "7"}))
    assert (shown["price"], shown["quantity"]) == (["11.0000"], ["7"])
    assert browser.post(page_of(stock), shown).status_code == 302
    stored = columns(stock)
    assert (stored["price"], stored["quantity"], stored["version"]) == (11, 7, 3)


def test_stale_form_without_edits_is_a_conflict(browser, stock):
    form = opened_form(browser, page_of(stock))
    change(browser, stock, price="11")
    assert filled_form(conflict_page(browser, stock, form))["price"] == ["11.0000"]


def test_second_save_overwrites_deliberately(browser, stock):
    form = opened_form(browser, page_of(stock))
    change(browser, stock, price="11")
    shown = filled_form(conflict_page(browser, stock, form | {"price": "12"}))
    assert browser.post(page_of(stock), shown).status_code == 302
    assert columns(stock)["price"] == 12


def test_third_change_between_the_saves_is_a_conflict_again(browser, stock):
    form = opened_form(browser, page_of(stock))
    change(browser, stock, price="11")
    shown = filled_form(conflict_page(browser, stock, form | {"price": "12"}))
    change(browser, stock, price="13")
    page = conflict_page(browser, stock, shown)
    assert "price 11 → 13" in page
    assert "146.78" not in page


def test_same_change_by_both_leaves_nothing_to_decide(browser, stock):
    form = opened_form(browser, page_of(stock))
    change(browser, stock, price="11")
    page = conflict_page(browser, stock, form | {"price": "11"})
    assert "Stored now" not in page


def test_input_can_be_discarded(browser, stock):
    form = opened_form(browser, page_of(stock))
    change(browser, stock, price="11")
    page = conflict_page(browser, stock, form | {"price": "12"})
    assert f'href="{page_of(stock)}">Discard your input</a>' in page
    assert opened_form(browser, page_of(stock))["price"] == ["11.0000"]


def test_invalid_input_is_kept_too(browser, stock):
    form = opened_form(browser, page_of(stock))
    change(browser, stock, price="11")
    assert filled_form(conflict_page(browser, stock, form | {"price": "abc"}))["price"] == ["abc"]


def test_invalid_input_without_a_conflict_keeps_the_version(browser, stock):
    form = opened_form(browser, page_of(stock)) | {"price": "abc"}
    shown = filled_form(browser.post(page_of(stock), form).content.decode())
    assert browser.post(page_of(stock), shown | {"price": "5"}).status_code == 302
    assert columns(stock)["price"] == 5


def test_change_of_the_api_is_a_conflict(browser, stock, superuser):
    form = opened_form(browser, page_of(stock))
    superuser.patch(f"/api/v1/stocks/{stock.pk}", {"is_active": False})
    page = conflict_page(browser, stock, form | {"price": "12"})
    assert f"Changed by {superuser.user.username} just now: is active yes → no" in page
    assert "is_active" not in filled_form(page)


def test_change_of_a_command_is_named_so(browser, stock):
    form = opened_form(browser, page_of(stock))
    token = context._request_id.set("reprice-7")
    Stock.objects.filter(pk=stock.pk).update(price=11)
    context._request_id.reset(token)
    assert "Changed by a command just now: price" in conflict_page(browser, stock, form)


def test_change_that_no_entry_describes_is_a_conflict(browser, stock):
    form = opened_form(browser, page_of(stock))
    with connection.cursor() as cursor:
        cursor.execute("UPDATE stocks SET price = 11 WHERE id = %s", [stock.pk])
    page = conflict_page(browser, stock, form | {"price": "12"})
    assert "Changed by somebody" in page
    assert "Stored now: 11" in page


def test_new_owner_is_named(browser, stock, make_user):
    form = opened_form(browser, page_of(stock))
    owner, other = make_user(username="grace"), make_user(username="edith")
    Stock.objects.filter(pk=stock.pk).update(owner=owner)
    page = conflict_page(browser, stock, form | {"owner": other.pk})
    assert "owner ada → grace" in page
    assert "Stored now: grace" in page
    assert filled_form(page)["owner"] == [str(other.pk)]


def test_many_changes_are_cut_to_ten(browser, stock):
    form = opened_form(browser, page_of(stock))
    for price in range(1, 14):
        Stock.objects.filter(pk=stock.pk).update(price=price)
    page = conflict_page(browser, stock, form)
    assert page.count("Changed by") == 10
    assert "and 3 more" in page


def test_long_values_are_cut_and_escaped(browser, make_user):
    user = make_user(bio="<b>")
    form = opened_form(browser, page_of(user))
    User.objects.filter(pk=user.pk).update(bio="<i>" + "x" * 1000)
    page = conflict_page(browser, user, form | {"bio": "mine"})
    assert "bio &lt;b&gt; → &lt;i&gt;xxx" in page
    assert "x" * 100 not in page


def test_new_password_is_a_conflict_without_a_value(browser, make_user):
    user = make_user()
    form = opened_form(browser, page_of(user))
    user.set_password("other-battery-9")
    user.save()
    page = conflict_page(browser, user, form | {"name": "Ada"})
    assert "Password changed by somebody just now" in page
    assert user.password not in page


def test_changed_groups_are_a_conflict(browser, make_user):
    user, clerks, bosses = make_user(), Group.objects.create(name="Clerks"), Group.objects.create(name="Bosses")
    form = opened_form(browser, page_of(user))
    change(browser, user, groups=[clerks.pk])
    page = conflict_page(browser, user, form | {"groups": [bosses.pk]})
    assert "groups (empty) → Clerks" in page
    assert filled_form(page)["groups"] == [str(bosses.pk)]


def test_untouched_groups_are_not_reverted(browser, make_user):
    user, clerks = make_user(), Group.objects.create(name="Clerks")
    form = opened_form(browser, page_of(user))
    change(browser, user, groups=[clerks.pk])
    shown = filled_form(conflict_page(browser, user, form | {"phone_number": "+49 30 1234"}))
    assert browser.post(page_of(user), shown).status_code == 302
    assert list(user.groups.all()) == [clerks]


def test_group_is_protected_too(browser, db):
    group = Group.objects.create(name="Clerks")
    permissions = [str(permission.pk) for permission in Permission.objects.all()[:2]]
    form = opened_form(browser, page_of(group))
    change(browser, group, permissions=permissions)
    page = conflict_page(browser, group, form | {"name": "Bosses"})
    assert sorted(filled_form(page)["permissions"]) == sorted(permissions)


# Deletion


def test_deleted_row_is_a_conflict(browser, stock):
    form = opened_form(browser, page_of(stock))
    browser.post(f"/admin/stocks/stock/{stock.pk}/delete/", {"post": "yes"})
    page = conflict_page(browser, stock, form | {"price": "12"})
    assert "this stock was deleted after the form was opened" in page
    assert "Deleted by ada just now" in page
    assert "The stock stays deleted either way." in page


def test_restored_row_is_a_conflict(browser, stock):
    stock.delete()
    form = opened_form(browser, page_of(stock))
    Stock.all_objects.filter(pk=stock.pk).restore()
    page = conflict_page(browser, stock, form | {"price": "12"})
    assert "this stock was restored after the form was opened" in page


def test_row_that_is_gone_has_the_usual_message(browser, stock):
    form = opened_form(browser, page_of(stock))
    Stock.objects.filter(pk=stock.pk).purge()
    answer = browser.post(page_of(stock), form | {"price": "12"}, follow=True)
    assert "Perhaps it was deleted?" in answer.content.decode()


# The hidden field


def test_form_without_a_version_saves_nothing(browser, stock):
    form = opened_form(browser, page_of(stock)) | {"price": "12"}
    del form["opened_version"]
    page = conflict_page(browser, stock, form)
    assert "does not say which version" in page
    assert "Stored now: 146.78" in page


@pytest.mark.parametrize("version", ["", "1", "x:y:z", "\x00", "é"])
def test_tampered_version_saves_nothing(browser, stock, version):
    form = opened_form(browser, page_of(stock)) | {"price": "12", "opened_version": version}
    conflict_page(browser, stock, form)


def test_version_of_another_row_saves_nothing(browser, stock, make_stock):
    other = opened_form(browser, page_of(make_stock(browser.user)))
    form = opened_form(browser, page_of(stock)) | {"price": "12", "opened_version": other["opened_version"]}
    conflict_page(browser, stock, form)


def test_version_signed_with_the_previous_key_is_accepted(browser, stock, settings):
    form = opened_form(browser, page_of(stock)) | {"price": "12"}
    settings.SECRET_KEY_FALLBACKS, settings.SECRET_KEY = [settings.SECRET_KEY], "n" * 50
    browser.force_login(browser.user)
    assert browser.post(page_of(stock), form).status_code == 302


def test_reader_cannot_save(browser, stock, staff_with):
    reader = Client(raise_request_exception=False)
    reader.force_login(staff_with("view_stock").user)
    assert reader.post(page_of(stock), opened_form(browser, page_of(stock))).status_code == 403


# Races


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("field", ["price", "quantity"])
def test_one_of_many_simultaneous_saves_wins(browser, stock, field):
    forms = []
    for number in range(1, 9):
        client = Client(raise_request_exception=False)
        client.force_login(browser.user)
        forms.append((client, opened_form(client, page_of(stock)) | {field: str(number)}))
    answers = submit_together(page_of(stock), forms)
    assert sorted(answer.status_code for answer in answers) == [200] * 7 + [302]
    assert all("Nothing was saved" in answer.content.decode() for answer in answers if answer.status_code == 200)
    assert (columns(stock)["version"], LogEntry.objects.count()) == (2, 1)


@pytest.mark.django_db(transaction=True)
def test_one_of_many_simultaneous_changes_of_groups_wins(browser, make_user):
    user = make_user()
    groups = [Group.objects.create(name=f"group {number}") for number in range(4)]
    forms = []
    for group in groups:
        client = Client(raise_request_exception=False)
        client.force_login(browser.user)
        forms.append((client, opened_form(client, page_of(user)) | {"groups": [str(group.pk)]}))
    answers = submit_together(page_of(user), forms)
    assert sorted(answer.status_code for answer in answers) == [200] * 3 + [302]
    assert user.groups.count() == 1


@pytest.mark.django_db(transaction=True)
def test_concurrent_increments_lose_nothing(browser, stock):
    clients = [Client(raise_request_exception=False) for _ in range(4)]
    for client in clients:
        client.force_login(browser.user)

    def increment(client):
        for _ in range(5):
            status = 200
            while status == 200:
                form = opened_form(client, page_of(stock))
                quantity = str(int(form["quantity"][0]) + 1)
                status = client.post(page_of(stock), form | {"quantity": quantity}).status_code
            assert status == 302

    run_together([partial(increment, client) for client in clients])
    assert (columns(stock)["quantity"], columns(stock)["version"]) == (30, 21)


def submit_together(path, forms) -> list:
    return run_together([partial(client.post, path, form) for client, form in forms])


def run_together(operations) -> list:
    """Run the functions in parallel threads, each with its own connection, and return their results."""
    barrier = Barrier(len(operations))

    def run(operation):
        try:
            barrier.wait()
            return operation()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(len(operations)) as pool:
        return list(pool.map(run, operations))
