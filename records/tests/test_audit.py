"""The audit log records every change of every Record model, whichever API of Django writes it."""

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
from django.utils.functional import Promise

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


def different_value(row):
    """Return a value that differs from the current value of the column."""
    field = changeable(type(row))
    current = getattr(row, field.attname)
    return next(value for value in iter(lambda: any_value(field), None) if value != current)


def actions(row):
    return [entry.action for entry in entries(row)]


def set_name(row):
    field = changeable(type(row))
    setattr(row, field.attname, different_value(row))
    return field.attname


# Ways of writing a row


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
    setattr(partial, name, different_value(row))
    partial.save()


def by_save_over_the_key(row):
    other = build_row(type(row))
    other.pk, other.created_at = row.pk, row.created_at
    setattr(other, changeable(type(row)).attname, different_value(row))
    other._state.adding = not row._meta.pk.has_default()  # Django treats an instance with a default key as new
    other.save()


def by_update(row):
    field = changeable(type(row))
    type(row).objects.filter(pk=row.pk).update(**{field.name: different_value(row)})


def by_update_of_an_expression(row):
    type(row).objects.filter(pk=row.pk).update(created_at=F("updated_at"))


def by_update_or_create(row):
    field = changeable(type(row))
    type(row).objects.update_or_create(pk=row.pk, defaults={field.attname: different_value(row)})


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


def filled(form, values):
    """Return what a browser submits for a form with some values replaced."""
    data = {}
    for name, field in form.fields.items():
        value = values.get(name, form.get_initial_for_field(field, name))
        value = str(value) if isinstance(value, Promise) else value  # the test client would send each letter
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
def test_every_update_is_logged_once(model, change):
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
def test_every_creation_is_logged_once(model, insert):
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
def test_every_deletion_is_logged_once(model, delete):
    row = create_row(model)
    delete(row)
    assert actions(row) == ["create", "delete"]
    assert not model.objects.filter(pk=row.pk).exists()


@pytest.mark.django_db
@pytest.mark.parametrize("model", SOFT)
def test_restore_is_logged_once(model):
    row = create_row(model)
    row.delete()
    row.restore()
    assert actions(row) == ["create", "delete", "restore"]
    assert_replays(row)


@pytest.mark.django_db
@pytest.mark.parametrize("model", RECORDS)
def test_purge_is_logged_without_values(model):
    row = create_row(model)
    model.all_objects.filter(pk=row.pk).purge()
    assert [(entry.action, entry.changes) for entry in entries(row)] == [("create", {}), ("purge", {})]


@pytest.mark.parametrize("model", RECORDS)
def test_every_record_is_registered_in_the_admin(model):
    assert admin.site.is_registered(model)


# Bulk operations


BULK_OPERATIONS = {
    "update": lambda rows: rows.update(created_at=timezone.now()),
    "expression": lambda rows: rows.update(created_at=F("updated_at")),
    "delete": lambda rows: rows.delete(),
    "purge": lambda rows: rows.purge(),
}


@pytest.mark.django_db
@pytest.mark.parametrize("model", RECORDS)
@pytest.mark.parametrize("operation", BULK_OPERATIONS)
def test_bulk_operation_statement_count_is_constant(model, operation):
    counts = []
    for number in (1, 2, 40):  # the first round fills caches
        rows = model.objects.bulk_create([build_row(model) for _ in range(number)])
        with CaptureQueriesContext(connection) as queries:
            BULK_OPERATIONS[operation](model.objects.filter(pk__in=[row.pk for row in rows]))
        assert AuditEntry.objects.of_row(model, rows[-1].pk).count() == 2
        counts.append(len(queries))
    assert counts[1] == counts[2] <= 13 * len(RECORDS)


@pytest.mark.django_db
@pytest.mark.parametrize("model", RECORDS)
def test_bulk_create_is_logged_by_one_statement(model):
    rows = [build_row(model) for _ in range(200)]
    with CaptureQueriesContext(connection) as queries:
        model.objects.bulk_create(rows)
    assert sum("INSERT INTO audit_log" in query["sql"] for query in queries) == 1
    assert AuditEntry.objects.filter(action="create", object_id__in=[str(row.pk) for row in rows]).count() >= 200


@pytest.mark.django_db
@pytest.mark.parametrize(
    "options", [{"ignore_conflicts": True}, {"update_conflicts": True, "update_fields": ["price"]}]
)
def test_bulk_create_with_conflict_handling_is_refused(owner, options):
    with pytest.raises(NotSupportedError):
        Stock.objects.bulk_create([Stock(owner=owner.user, name="A", price=1, quantity=1)], **options)


# Recorded values


@pytest.fixture
def stock(owner, make_stock):
    return Stock.objects.get(pk=make_stock(owner.user).pk)


def last_entry(row):
    return entries(row)[-1]


def test_entry_contains_only_changed_fields(stock):
    Stock.objects.filter(pk=stock.pk).update(price=Decimal("190.25"), quantity=stock.quantity)
    assert last_entry(stock).changes == {"price": [175.5, 190.25]}


@pytest.mark.parametrize(
    "no_change",
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
def test_write_without_changes_is_not_logged(stock, no_change):
    before = AuditEntry.objects.count()
    no_change(stock)
    assert (Stock.objects.get(pk=stock.pk).version, AuditEntry.objects.count()) == (1, before)


def test_old_value_is_read_from_the_database(stock):
    Stock.objects.filter(pk=stock.pk).update(price=2)
    stock.price = Decimal(3)
    stock.save()
    assert (last_entry(stock).changes, stock.version) == ({"price": [2, 3]}, 3)


def test_save_of_a_value_already_stored_is_not_logged(stock):
    Stock.objects.filter(pk=stock.pk).update(price=2)
    stock.price = Decimal(2)
    stock.save()
    assert (len(entries(stock)), stock.version) == (2, 2)


def test_refreshed_version_does_not_confirm_old_values(stock):
    Stock.objects.filter(pk=stock.pk).update(price=2)
    stock.refresh_from_db(fields=["version"])
    stock.price = Decimal(3)
    stock.save()
    assert last_entry(stock).changes == {"price": [2, 3]}


def test_save_costs_one_update_and_one_insert(stock):
    stock.price = Decimal(2)
    with CaptureQueriesContext(connection) as queries:
        stock.save()
    in_one_statement = connection.vendor == "postgresql"
    assert len(queries) == (1 if in_one_statement else 2)
    assert 'UPDATE "stocks"' in queries[0]["sql"]
    assert "INSERT INTO audit_log" in queries[-1]["sql"]


def test_rolled_back_change_is_not_logged(stock):
    before = AuditEntry.objects.count()
    with transaction.atomic():
        Stock.objects.filter(pk=stock.pk).update(price=2)
        transaction.set_rollback(True)
    assert AuditEntry.objects.count() == before


@pytest.mark.django_db(transaction=True)
def test_change_is_rolled_back_if_logging_fails(stock, monkeypatch):
    monkeypatch.setattr(
        "records.audit.models.AuditEntryQuerySet.INSERT",
        "INSERT INTO nowhere SELECT %s, %s, %s, %s, %s, %s, %s, {rows}",
    )
    stock.price = Decimal(2)
    with pytest.raises(DatabaseError):
        stock.save()
    assert Stock.objects.get(pk=stock.pk).price == Decimal("175.5")


def test_repricing_logs_old_and_new_price_of_each_row(owner, make_stock):
    first, second, same = (make_stock(owner.user, price=price) for price in (1, 2, 190))
    Stock.objects.reprice({"AAPL": Decimal(190)})
    assert [last_entry(row).changes for row in (first, second)] == [{"price": [1, 190]}, {"price": [2, 190]}]
    assert actions(same) == ["create"]


def test_stocks_deleted_with_their_user_are_logged(owner, stock):
    owner.user.delete()
    assert (actions(stock)[-1], actions(owner.user)[-1]) == ("delete", "delete")
    assert last_entry(stock).changes["deletion"] == last_entry(owner.user).changes["deletion"]


def test_group_changes_are_logged_on_the_user(owner):
    [first, second] = [Group.objects.create(name=name) for name in ("first", "second")]
    owner.user.groups.add(first)
    owner.user.groups.set([second])
    second.user_set.remove(owner.user)
    recorded = [entry.changes["groups"] for entry in entries(owner.user) if "groups" in entry.changes]
    assert recorded == [[[], [first.pk]], [[first.pk], []], [[], [second.pk]], [[second.pk], []]]
    second.user_set.add(owner.user)
    owner.user.groups.clear()
    assert last_entry(owner.user).changes == {"groups": [[second.pk], []]}


def test_password_is_never_logged(make_user):
    user = make_user(password="correct-horse-7-battery")
    user.set_password("another-horse-8-battery")
    user.save()
    User.objects.filter(pk=user.pk).update(password="!x", name="Ada")
    assert [(entry.action, entry.changes) for entry in entries(user)[1:]] == [
        ("password_change", {}),
        ("password_change", {"name": [None, "Ada"]}),
    ]
    assert "password" not in entries(user)[0].changes


def test_command_has_its_own_request_id(db, monkeypatch):
    monkeypatch.setattr(context, "_request_id", type(context._request_id)("test", default=None))
    context.activate_command("loaddata")
    call_command("loaddata", "demo", verbosity=0)
    ids = set(AuditEntry.objects.filter(object_type="stocks").values_list("request_id", flat=True))
    assert len(ids) == 1
    assert ids.pop().startswith("loaddata-")


def test_entry_contains_user_address_and_request_id(owner):
    answer = owner.post("/api/v1/stocks", {"name": "AAPL", "price": 1, "quantity": 1})
    [entry] = AuditEntry.objects.of_row(Stock, answer.json()["id"])
    assert (entry.user_id, entry.owner_id, entry.ip, entry.request_id, entry.outcome) == (
        owner.user.pk, owner.user.pk, "127.0.0.1", answer.headers["X-Request-ID"], "success",
    )  # fmt: skip


def test_entry_of_a_transfer_belongs_to_the_new_owner(stock, stranger):
    before = stock.owner_id
    Stock.objects.filter(pk=stock.pk).update(owner=stranger.user)
    assert (last_entry(stock).owner_id, last_entry(stock).changes) == (
        stranger.user.pk,
        {"owner_id": [before, stranger.user.pk]},
    )


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
def test_value_survives_json_exactly(field, value):
    restored = from_json(field, orjson.loads(orjson.dumps(as_json(value))))
    assert (restored, type(restored)) == (value, type(value))


def test_bookkeeping_columns_are_not_logged(stock):
    by_save(stock)
    assert not BOOKKEEPING & {name for entry in entries(stock) for name in entry.changes}


# Tracking of instances


def chain(row):
    """Assert that the entries of each column are contiguous; return the last values."""
    values = {}
    for entry in entries(row):
        for name, (old, new) in entry.changes.items():
            assert name not in values or values[name] == old
            values[name] = new
    return values


@pytest.mark.parametrize(
    "relate", [lambda user, stock: user.stocks.add(stock), lambda user, stock: user.stocks.set([stock])]
)
def test_transfer_by_related_manager_is_logged(stock, stranger, relate):
    relate(stranger.user, stock)
    assert (Stock.objects.get(pk=stock.pk).version, last_entry(stock).changes["owner_id"][1]) == (2, stranger.user.pk)


def test_concurrent_change_of_another_column_is_logged_correctly(make_user):
    user = make_user(bio="a")
    instance = User.objects.get(pk=user.pk)
    User.objects.filter(pk=user.pk).update(bio="b")
    instance.age = 36
    instance.save()
    instance.bio = "c"
    instance.save()
    assert last_entry(user).changes == {"bio": ["b", "c"]}
    assert instance.version == User.objects.get(pk=user.pk).version == 4


@pytest.mark.django_db(transaction=True)
def test_rolled_back_save_is_not_used_as_old_value(stock):
    stock.price = Decimal(30)
    with transaction.atomic():
        stock.save()
        transaction.set_rollback(True)
    Stock.objects.filter(pk=stock.pk).update(price=40)
    stock.price = Decimal(31)
    stock.save()
    assert last_entry(stock).changes == {"price": [40, 31]}


@pytest.mark.django_db(transaction=True)
def test_rolled_back_save_can_be_repeated(stock):
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
def test_rolled_back_creation_can_be_repeated(owner):
    stock = Stock(owner=owner.user, name="A", price=1, quantity=1)
    with transaction.atomic():
        stock.save()
        stock.price = 2
        stock.save()
        transaction.set_rollback(True)
    stock.save()
    assert (Stock.objects.get(pk=stock.pk).price, stock.version, actions(stock)) == (2, 1, ["create"])


def test_values_are_logged_as_stored(owner):
    stock = Stock.objects.create(owner=owner.user, name="aapl", price="175.50", quantity="7")
    stock.name, stock.price, stock.quantity = "b", "2.0", "8"
    stock.save()
    assert last_entry(stock).changes == {"name": ["AAPL", "B"], "price": [175.5, 2], "quantity": [7, 8]}


def test_update_fields_of_a_constructed_instance_writes_only_these(make_user):
    user = make_user(bio="a")
    User(pk=user.pk, age=36).save(update_fields=["age"])
    stored = User.objects.get(pk=user.pk)
    assert (stored.username, stored.bio, stored.age, stored.password) == (user.username, "a", 36, user.password)
    assert last_entry(user).changes == {"age": [None, 36]}


def test_forced_update_of_a_missing_row_is_an_error(owner):
    missing = Stock(pk=10**9, owner=owner.user, name="A", price=1, quantity=1)
    with pytest.raises(DatabaseError), transaction.atomic():
        missing.save(force_update=True)
    assert not Stock.objects.filter(pk=missing.pk).exists()


def test_constructed_instance_can_be_saved_again(stock):
    instance = Stock(pk=stock.pk, owner=stock.owner, name="B", price=1, quantity=1)
    instance.save()
    instance.price = 2
    instance.save()
    assert (last_entry(stock).changes, instance.version, instance.created_at) == (
        {"price": [1, 2]},
        3,
        stock.created_at,
    )


def test_instance_without_key_is_saved_as_a_copy(stock):
    stock.price = 3
    stock.save()
    stock.pk = None
    stock.save()
    assert (stock.version, actions(stock), Stock.objects.filter(name="AAPL", price=3).count()) == (1, ["create"], 2)


def test_unknown_update_field_is_an_error(stock):
    with pytest.raises(ValueError, match="nonexistent"):
        stock.save(update_fields=["nonexistent"])


def test_update_without_columns_changes_nothing(stock):
    assert Stock.objects.filter(pk=stock.pk).update() == 1
    assert Stock.objects.get(pk=stock.pk).version == 1


def test_group_deletion_is_logged_on_its_members(owner):
    group = Group.objects.create(name="first")
    owner.user.groups.add(group)
    key = group.pk
    group.delete()
    assert last_entry(owner.user).changes == {"groups": [[key], []]}
    Group.objects.create(name="second").user_set.add(owner.user)
    Group.objects.all().delete()
    assert last_entry(owner.user).changes["groups"][1] == []


def test_repricing_is_case_insensitive(owner, make_stock):
    stock = make_stock(owner.user)
    Stock.objects.reprice({"aapl": Decimal(2)})
    assert last_entry(stock).changes == {"price": [175.5, 2]}


@pytest.mark.django_db(transaction=True)
def test_change_in_an_on_commit_hook_is_logged(stock):
    def restored():
        stock.price = 1
        stock.save()

    with transaction.atomic():
        transaction.on_commit(restored)
        stock.price = 2
        stock.save()
    assert (last_entry(stock).changes, Stock.objects.get(pk=stock.pk).price) == ({"price": [2, 1]}, 1)


@pytest.mark.parametrize("copy_row", [copy.copy, copy.deepcopy, lambda row: pickle.loads(pickle.dumps(row))])
def test_copied_instance_is_tracked_separately(stock, copy_row):
    stock.price = 2
    stock.save()
    other = copy_row(stock)
    other.price = 1
    other.save()
    assert last_entry(stock).changes == {"price": [2, 1]}
    stock.price = 3
    stock.save()
    assert last_entry(stock).changes == {"price": [1, 3]}


def test_save_of_a_new_user_does_not_log_a_password_change(make_user, owner):
    user = make_user()
    client = type(owner)(user)
    user.name = "Ada"
    user.save()
    assert (last_entry(user).changes, client.get("/api/v1/users/me").status_code) == ({"name": [None, "Ada"]}, 200)
