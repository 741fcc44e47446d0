"""The audit log records every change of every Record model, by every way of writing."""

import copy
import pickle
import uuid
from decimal import Decimal
from itertools import count

import orjson
import pytest
from django.apps import apps
from django.contrib import admin
from django.contrib.auth.models import Group
from django.core import serializers
from django.core.management import call_command
from django.db import DatabaseError, NotSupportedError, connection, models, transaction
from django.db.models import F
from django.forms import BooleanField, MultiWidget
from django.test import Client as Browser
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from records import context
from records.audit.models import AuditEntry
from records.models import Record, SoftDeletable
from records.models.querysets import BOOKKEEPING
from records.models.values import as_json, from_json
from records.tests.audit_trail import assert_replays, entries
from records.tests.factories import any_value, build_row, create_row
from stocks.models import Stock
from users.models import User

RECORDS = [model for model in apps.get_models() if issubclass(model, Record)]
SOFT = [model for model in RECORDS if issubclass(model, SoftDeletable)]

_numbers = count(1)


def changeable(model):
    """Return a column without further rules, preferably a short text."""
    columns = [
        field
        for field in model._meta.concrete_fields
        if field.editable and not (field.primary_key or field.attname in {*model.secret_fields, model.owned_by})
    ]
    texts = [field for field in columns if type(field) is models.CharField and not field.choices]
    return [*texts, *(field for field in columns if not field.is_relation), *columns][0]


def another(row):
    """A value that this column does not have."""
    field = changeable(type(row))
    present = getattr(row, field.attname)
    return next(value for value in iter(lambda: any_value(field), None) if value != present)


def actions(row):
    return [entry.action for entry in entries(row)]


def set_name(row):
    field = changeable(type(row))
    setattr(row, field.attname, another(row))
    return field.attname


# Every way of writing


def by_save(row):
    set_name(row)
    row.save()


def by_save_of_named_fields(row):
    row.save(update_fields=[set_name(row)])


def by_save_of_an_expression(row):
    row.created_at = F("updated_at")
    row.save()


def by_save_of_what_was_not_loaded(row):
    name = changeable(type(row)).attname
    partial = type(row).objects.only("pk").get(pk=row.pk)
    setattr(partial, name, another(row))
    partial.save()


def by_save_over_the_key(row):
    other = build_row(type(row))
    other.pk, other.created_at = row.pk, row.created_at
    setattr(other, changeable(type(row)).attname, another(row))
    other._state.adding = not row._meta.pk.has_default()  # Django takes what has one for new
    other.save()


def by_update(row):
    field = changeable(type(row))
    type(row).objects.filter(pk=row.pk).update(**{field.name: another(row)})


def by_update_of_an_expression(row):
    type(row).objects.filter(pk=row.pk).update(created_at=F("updated_at"))


def by_update_or_create(row):
    field = changeable(type(row))
    type(row).objects.update_or_create(pk=row.pk, defaults={field.attname: another(row)})


def by_bulk_update(row):
    type(row).objects.bulk_update([row], [set_name(row)])


def by_loaddata(row):
    set_name(row)
    for deserialized in serializers.deserialize("json", serializers.serialize("json", [row])):
        deserialized.save()


def by_admin(row):
    model = type(row)
    page = reverse_admin(model, "change", row.pk)
    browser = Browser()
    browser.force_login(User.objects.create_superuser(f"admin{next(_numbers)}"))
    set_name(row)
    form = browser.get(page).context["adminform"].form
    answer = browser.post(page, filled(form, {changeable(model).name: getattr(row, changeable(model).attname)}))
    assert answer.status_code == 302, answer.context["adminform"].form.errors


def filled(form, given):
    """What a browser sends of a form with these values in place of its own."""
    data = {}
    for name, field in form.fields.items():
        value = given.get(name, form.initial.get(name))
        if isinstance(field.widget, MultiWidget):
            data |= {f"{name}_{index}": part for index, part in enumerate(field.widget.decompress(value))}
        elif not isinstance(field, BooleanField):
            data[name] = field.prepare_value(value)
        elif value:
            data[name] = "on"
    return {name: value for name, value in data.items() if value is not None}


def reverse_admin(model, page, *args):
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_{page}", args=args)


CHANGES = [
    by_save, by_save_of_named_fields, by_save_of_an_expression, by_save_of_what_was_not_loaded, by_save_over_the_key,
    by_update, by_update_of_an_expression, by_update_or_create, by_bulk_update, by_loaddata, by_admin,
]  # fmt: skip


@pytest.mark.django_db
@pytest.mark.parametrize("model", RECORDS)
@pytest.mark.parametrize("change", CHANGES)
def test_every_change_is_told_once(model, change):
    row = model.objects.get(pk=create_row(model).pk)
    change(row)
    assert actions(row) in (["create", "update"], ["create", "password_change"])
    assert model.objects.get(pk=row.pk).version == 2
    assert_replays(row)


def insert_by_save(model):
    return [create_row(model)]


def insert_by_create(model):
    row = build_row(model)
    columns = [field.attname for field in model._meta.concrete_fields if not field.primary_key]
    return [model.objects.create(**{name: getattr(row, name) for name in columns})]


def insert_by_bulk_create(model):
    return model.objects.bulk_create([build_row(model), build_row(model)])


def insert_by_loaddata(model):
    row = build_row(model)
    row.created_at = row.updated_at = timezone.now()
    if isinstance(model._meta.pk, models.AutoField):
        row.pk = 1_000_000 + next(_numbers)
    for deserialized in serializers.deserialize("json", serializers.serialize("json", [row])):
        deserialized.save()
    return [row]


@pytest.mark.django_db
@pytest.mark.parametrize("model", RECORDS)
@pytest.mark.parametrize("insert", [insert_by_save, insert_by_create, insert_by_bulk_create, insert_by_loaddata])
def test_every_creation_is_told_once(model, insert):
    for row in insert(model):
        assert actions(row) == ["create"]
        assert_replays(row)


def delete_row(row):
    row.delete()


def delete_rows(row):
    type(row).objects.filter(pk=row.pk).delete()


def delete_in_admin(row):
    browser = Browser()
    browser.force_login(User.objects.create_superuser(f"admin{next(_numbers)}"))
    selected = {"action": "delete_selected", "_selected_action": row.pk, "post": "yes"}
    assert browser.post(reverse_admin(type(row), "changelist"), selected).status_code == 302


@pytest.mark.django_db
@pytest.mark.parametrize("model", RECORDS)
@pytest.mark.parametrize("delete", [delete_row, delete_rows, delete_in_admin])
def test_every_deletion_is_told_once(model, delete):
    row = create_row(model)
    delete(row)
    assert actions(row) == ["create", "delete"]
    assert not model.objects.filter(pk=row.pk).exists()


@pytest.mark.django_db
@pytest.mark.parametrize("model", SOFT)
def test_restoring_is_told_once(model):
    row = create_row(model)
    row.delete()
    row.restore()
    assert actions(row) == ["create", "delete", "restore"]
    assert_replays(row)


@pytest.mark.django_db
@pytest.mark.parametrize("model", RECORDS)
def test_purging_is_told_without_a_value(model):
    row = create_row(model)
    model.all_objects.filter(pk=row.pk).purge()
    assert [(entry.action, entry.changes) for entry in entries(row)] == [("create", {}), ("purge", {})]


@pytest.mark.parametrize("model", RECORDS)
def test_every_record_is_managed_in_the_admin(model):
    assert admin.site.is_registered(model)


# The bulk forms


BULK = {
    "update": lambda rows: rows.update(created_at=timezone.now()),
    "expression": lambda rows: rows.update(created_at=F("updated_at")),
    "delete": lambda rows: rows.delete(),
    "purge": lambda rows: rows.purge(),
}


@pytest.mark.django_db
@pytest.mark.parametrize("model", RECORDS)
@pytest.mark.parametrize("form", BULK)
def test_bulk_forms_take_a_constant_number_of_statements(model, form):
    counts = []
    for number in (1, 2, 40):  # the first time something may be read that is then remembered
        rows = model.objects.bulk_create([build_row(model) for _ in range(number)])
        with CaptureQueriesContext(connection) as queries:
            BULK[form](model.objects.filter(pk__in=[row.pk for row in rows]))
        assert AuditEntry.objects.of_row(model, rows[-1].pk).count() == 2
        counts.append(len(queries))
    assert counts[1] == counts[2] <= 13 * len(RECORDS)


@pytest.mark.django_db
@pytest.mark.parametrize("model", RECORDS)
def test_many_creations_take_one_statement_of_the_log(model):
    rows = [build_row(model) for _ in range(200)]
    with CaptureQueriesContext(connection) as queries:
        model.objects.bulk_create(rows)
    assert sum("INSERT INTO audit_log" in query["sql"] for query in queries) == 1
    assert AuditEntry.objects.filter(action="create", object_id__in=[str(row.pk) for row in rows]).count() >= 200


@pytest.mark.django_db
@pytest.mark.parametrize("how", [{"ignore_conflicts": True}, {"update_conflicts": True, "update_fields": ["price"]}])
def test_insert_that_does_not_tell_what_it_did_is_refused(owner, how):
    with pytest.raises(NotSupportedError):
        Stock.objects.bulk_create([Stock(owner=owner.user, name="A", price=1, quantity=1)], **how)


# Recorded values


@pytest.fixture
def stock(owner, make_stock):
    return Stock.objects.get(pk=make_stock(owner.user).pk)


def last(row):
    return entries(row)[-1]


def test_entry_has_old_and_new_values_of_changed_fields_only(stock):
    Stock.objects.filter(pk=stock.pk).update(price=Decimal("190.25"), quantity=stock.quantity)
    assert last(stock).changes == {"price": [175.5, 190.25]}


@pytest.mark.parametrize(
    "nothing",
    [
        lambda stock: stock.save(),
        lambda stock: Stock.objects.filter(pk=stock.pk).update(price="175.50", name="aapl"),
        lambda stock: Stock.objects.filter(pk=stock.pk).update(price=F("price")),
        lambda stock: Stock.objects.bulk_update([stock], ["price"]),
        lambda stock: Stock.objects.filter(pk=-1).update(price=1),
        lambda stock: Stock.objects.deleted().filter(pk=stock.pk).restore(),
        lambda stock: Stock.objects.reprice({"AAPL": Decimal("175.5")}),
        lambda stock: stock.owner.groups.clear(),
    ],
)
def test_what_changes_nothing_writes_nothing(stock, nothing):
    before = AuditEntry.objects.count()
    nothing(stock)
    assert (Stock.objects.get(pk=stock.pk).version, AuditEntry.objects.count()) == (1, before)


def test_old_value_is_what_the_row_had_not_what_was_read(stock):
    Stock.objects.filter(pk=stock.pk).update(price=2)
    stock.price = Decimal(3)
    stock.save()
    assert (last(stock).changes, stock.version) == ({"price": [2, 3]}, 3)


def test_save_of_what_somebody_else_saved_already_tells_nothing(stock):
    Stock.objects.filter(pk=stock.pk).update(price=2)
    stock.price = Decimal(2)
    stock.save()
    assert (len(entries(stock)), stock.version) == (2, 2)


def test_version_read_alone_makes_no_old_values_true(stock):
    Stock.objects.filter(pk=stock.pk).update(price=2)
    stock.refresh_from_db(fields=["version"])
    stock.price = Decimal(3)
    stock.save()
    assert last(stock).changes == {"price": [2, 3]}


def test_save_costs_an_update_and_an_entry(stock):
    stock.price = Decimal(2)
    with CaptureQueriesContext(connection) as queries:
        stock.save()
    assert [query["sql"].split()[0] for query in queries] == ["UPDATE", "INSERT"]


def test_change_that_is_taken_back_leaves_no_entry(stock):
    before = AuditEntry.objects.count()
    with transaction.atomic():
        Stock.objects.filter(pk=stock.pk).update(price=2)
        transaction.set_rollback(True)
    assert AuditEntry.objects.count() == before


@pytest.mark.django_db(transaction=True)
def test_entry_that_cannot_be_written_takes_the_change_back(stock, monkeypatch):
    monkeypatch.setattr("records.audit.models.AuditEntryQuerySet.INSERT", "INSERT INTO nowhere")
    stock.price = Decimal(2)
    with pytest.raises(DatabaseError):
        stock.save()
    assert Stock.objects.get(pk=stock.pk).price == Decimal("175.5")


def test_repricing_tells_each_row_its_own(owner, make_stock):
    first, second, same = (make_stock(owner.user, price=price) for price in (1, 2, 190))
    Stock.objects.reprice({"AAPL": Decimal(190)})
    assert [last(row).changes for row in (first, second)] == [{"price": [1, 190]}, {"price": [2, 190]}]
    assert actions(same) == ["create"]


def test_stocks_that_go_with_their_user_are_told_of(owner, stock):
    owner.user.delete()
    assert (actions(stock)[-1], actions(owner.user)[-1]) == ("delete", "delete")
    assert last(stock).changes["deletion"] == last(owner.user).changes["deletion"]


def test_groups_of_a_person_are_told_like_a_column(owner):
    [first, second] = [Group.objects.create(name=name) for name in ("first", "second")]
    owner.user.groups.add(first)
    owner.user.groups.set([second])
    second.user_set.remove(owner.user)
    recorded = [entry.changes["groups"] for entry in entries(owner.user) if "groups" in entry.changes]
    assert recorded == [[[], [first.pk]], [[first.pk], []], [[], [second.pk]], [[second.pk], []]]
    second.user_set.add(owner.user)
    owner.user.groups.clear()
    assert last(owner.user).changes == {"groups": [[second.pk], []]}


def test_password_is_never_told(make_user):
    user = make_user(password="correct-horse-7-battery")
    user.set_password("another-horse-8-battery")
    user.save()
    User.objects.filter(pk=user.pk).update(password="!x", name="Ada")
    assert [(entry.action, entry.changes) for entry in entries(user)[1:]] == [
        ("password_change", {}),
        ("password_change", {"name": [None, "Ada"]}),
    ]
    assert "password" not in entries(user)[0].changes


def test_command_acts_under_an_id_of_its_own(db, monkeypatch):
    monkeypatch.setattr(context, "_request_id", type(context._request_id)("test", default=None))
    context.activate_command("loaddata")
    call_command("loaddata", "demo", verbosity=0)
    ids = set(AuditEntry.objects.filter(object_type="stocks").values_list("request_id", flat=True))
    assert len(ids) == 1
    assert ids.pop().startswith("loaddata-")


def test_entry_says_who_and_from_where(owner):
    answer = owner.post("/api/v1/stocks", {"name": "AAPL", "price": 1, "quantity": 1})
    [entry] = AuditEntry.objects.of_row(Stock, answer.json()["id"])
    assert (entry.user_id, entry.owner_id, entry.ip, entry.request_id, entry.outcome) == (
        owner.user.pk, owner.user.pk, "127.0.0.1", answer.headers["X-Request-ID"], "success",
    )  # fmt: skip


def test_owner_of_an_entry_is_whose_row_it_is_afterwards(stock, stranger):
    before = stock.owner_id
    Stock.objects.filter(pk=stock.pk).update(owner=stranger.user)
    assert (last(stock).owner_id, last(stock).changes) == (stranger.user.pk, {"owner_id": [before, stranger.user.pk]})


EXACT = [
    (models.DecimalField(max_digits=30, decimal_places=10), Decimal("12345678901234567890.1234567891")),
    (models.DecimalField(max_digits=15, decimal_places=4), Decimal("99999999999.9999")),
    (models.DecimalField(max_digits=15, decimal_places=4), Decimal("0.0001")),
    (models.DecimalField(max_digits=15, decimal_places=4), Decimal("2")),
    (models.FloatField(), 0.1 + 0.2),
    (models.BigIntegerField(), 2**63 - 1),
    (models.BooleanField(), False),
    (models.DateTimeField(), timezone.now()),
    (models.DateField(), timezone.now().date()),
    (models.UUIDField(), uuid.uuid4()),
    (models.JSONField(), {"a": [1, None, {"b": "c"}]}),
    (models.TextField(), "ä\n\"'"),
    (models.DurationField(), timezone.timedelta(days=1, microseconds=1)),
]


@pytest.mark.parametrize(("field", "value"), EXACT)
def test_value_comes_back_from_json_exactly(field, value):
    back = from_json(field, orjson.loads(orjson.dumps(as_json(value))))
    assert (back, type(back)) == (value, type(value))


def test_bookkeeping_is_in_no_entry(stock):
    by_save(stock)
    assert not BOOKKEEPING & {name for entry in entries(stock) for name in entry.changes}


# What instances know


def chain(row):
    """Each change of a column starts where the one before it ended."""
    values = {}
    for entry in entries(row):
        for name, (old, new) in entry.changes.items():
            assert name not in values or values[name] == old
            values[name] = new
    return values


@pytest.mark.parametrize(
    "relate", [lambda user, stock: user.stocks.add(stock), lambda user, stock: user.stocks.set([stock])]
)
def test_row_given_to_another_by_the_relation_is_told_of(stock, stranger, relate):
    relate(stranger.user, stock)
    assert (Stock.objects.get(pk=stock.pk).version, last(stock).changes["owner_id"][1]) == (2, stranger.user.pk)


def test_column_that_was_not_written_is_not_believed_after_somebody_elses_change(make_user):
    user = make_user(bio="a")
    mine = User.objects.get(pk=user.pk)
    User.objects.filter(pk=user.pk).update(bio="b")
    mine.age = 36
    mine.save()
    mine.bio = "c"
    mine.save()
    assert last(user).changes == {"bio": ["b", "c"]}
    assert mine.version == User.objects.get(pk=user.pk).version == 4


@pytest.mark.django_db(transaction=True)
def test_save_that_was_rolled_back_is_forgotten(stock):
    stock.price = Decimal(30)
    with transaction.atomic():
        stock.save()
        transaction.set_rollback(True)
    Stock.objects.filter(pk=stock.pk).update(price=40)
    stock.price = Decimal(31)
    stock.save()
    assert last(stock).changes == {"price": [40, 31]}


@pytest.mark.django_db(transaction=True)
def test_save_that_was_rolled_back_can_be_repeated(stock):
    stock.price = Decimal(30)
    with transaction.atomic():
        stock.quantity = 7
        stock.save()
        with transaction.atomic():
            stock.price = Decimal(31)
            stock.save()
            transaction.set_rollback(True)
        transaction.set_rollback(True)
    stock.save()
    stored = Stock.objects.get(pk=stock.pk)
    assert (stored.price, stored.quantity, stored.version) == (31, 7, 2)


@pytest.mark.django_db(transaction=True)
def test_creation_that_was_rolled_back_can_be_repeated(owner):
    stock = Stock(owner=owner.user, name="A", price=1, quantity=1)
    with transaction.atomic():
        stock.save()
        stock.price = 2
        stock.save()
        transaction.set_rollback(True)
    stock.save()
    assert (Stock.objects.get(pk=stock.pk).price, stock.version, actions(stock)) == (2, 1, ["create"])


def test_values_are_told_as_the_database_has_them(owner):
    stock = Stock.objects.create(owner=owner.user, name="aapl", price="175.50", quantity="7")
    stock.name, stock.price, stock.quantity = "b", "2.0", "8"
    stock.save()
    assert last(stock).changes == {"name": ["AAPL", "B"], "price": [175.5, 2], "quantity": [7, 8]}


def test_named_columns_of_an_instance_by_its_key_are_written_alone(make_user):
    user = make_user(bio="a")
    User(pk=user.pk, age=36).save(update_fields=["age"])
    stored = User.objects.get(pk=user.pk)
    assert (stored.username, stored.bio, stored.age, stored.password) == (user.username, "a", 36, user.password)
    assert last(user).changes == {"age": [None, 36]}


def test_update_of_what_is_not_there_is_an_error(owner):
    ghost = Stock(pk=10**9, owner=owner.user, name="A", price=1, quantity=1)
    with pytest.raises(DatabaseError), transaction.atomic():
        ghost.save(force_update=True)
    assert not Stock.objects.filter(pk=ghost.pk).exists()


def test_instance_by_its_key_may_be_saved_again(stock):
    mine = Stock(pk=stock.pk, owner=stock.owner, name="B", price=1, quantity=1)
    mine.save()
    mine.price = 2
    mine.save()
    assert (last(stock).changes, mine.version, mine.created_at) == ({"price": [1, 2]}, 3, stock.created_at)


def test_row_is_copied_by_forgetting_its_key(stock):
    stock.price = 3
    stock.save()
    stock.pk = None
    stock.save()
    assert (stock.version, actions(stock), Stock.objects.filter(name="AAPL", price=3).count()) == (1, ["create"], 2)


def test_unknown_column_to_save_is_an_error(stock):
    with pytest.raises(ValueError, match="nonexistent"):
        stock.save(update_fields=["nonexistent"])


def test_update_of_nothing_changes_nothing(stock):
    assert Stock.objects.filter(pk=stock.pk).update() == 1
    assert Stock.objects.get(pk=stock.pk).version == 1


def test_deletion_of_a_group_is_told_to_its_members(owner):
    group = Group.objects.create(name="first")
    owner.user.groups.add(group)
    key = group.pk
    group.delete()
    assert last(owner.user).changes == {"groups": [[key], []]}
    Group.objects.create(name="second").user_set.add(owner.user)
    Group.objects.all().delete()
    assert last(owner.user).changes["groups"][1] == []


def test_repricing_takes_any_case(owner, make_stock):
    stock = make_stock(owner.user)
    Stock.objects.reprice({"aapl": Decimal(2)})
    assert last(stock).changes == {"price": [175.5, 2]}


@pytest.mark.django_db(transaction=True)
def test_change_back_after_the_commit_is_written(stock):
    def back():
        stock.price = 1
        stock.save()

    with transaction.atomic():
        transaction.on_commit(back)
        stock.price = 2
        stock.save()
    assert (last(stock).changes, Stock.objects.get(pk=stock.pk).price) == ({"price": [2, 1]}, 1)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda row: pickle.loads(pickle.dumps(row))])
def test_copy_of_an_instance_goes_its_own_way(stock, copied):
    stock.price = 2
    stock.save()
    other = copied(stock)
    other.price = 1
    other.save()
    assert last(stock).changes == {"price": [2, 1]}
    stock.price = 3
    stock.save()
    assert last(stock).changes == {"price": [1, 3]}


def test_password_of_a_new_user_is_not_taken_for_changed(make_user, owner):
    user = make_user()
    client = type(owner)(user)
    user.name = "Ada"
    user.save()
    assert (last(user).changes, client.get("/api/v1/users/me").status_code) == ({"name": [None, "Ada"]}, 200)
