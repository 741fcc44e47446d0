"""Admin forms as browsers submit them: untouched fields stay unchanged, and saving without a change logs nothing."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from django import forms
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group, Permission
from django.db import IntegrityError, models, transaction
from django.http import QueryDict
from django.test import Client

from records.admin import RecordAdmin
from records.admin.forms import RecordForm, form_class_kwargs
from records.audit.models import AuditEntry
from records.tests.browser import filled_form, opened_form
from records.tests.factories import create_row
from users.models import User

AWKWARD_USERS = {
    "plain": {"name": None, "email": None, "bio": None, "phone_number": None, "gender": None, "age": None},
    "empty texts": {"bio": ""},
    "lines": {"bio": "\nfirst\r\nsecond\nthird\n"},
    "blanks": {"bio": "  indented \n\n  text  "},
    "blank only": {"bio": " \n "},
    "longest": {"bio": "line\n" * 399 + "end"},
    "markup": {"bio": "</textarea><b>&amp; \"quoted\" 'it'", "name": "Ann & <Bob>"},
    "letters": {"name": "Éa ñ  日本", "bio": "🙂 \u2028 \x0b"},
    "capitals": {"email": "Some.One@Example.COM", "username": "Some.One"},
    "zero": {"age": 0, "gender": "Female", "phone_number": "+49 30/123"},
}


@pytest.fixture
def superuser_client(make_user):
    client = Client(raise_request_exception=False)
    client.user = make_user(is_staff=True, is_superuser=True)
    client.force_login(client.user)
    return client


def columns(row) -> dict:
    return type(row)._base_manager.filter(pk=row.pk).values().get()


def page_of(row) -> str:
    return f"/admin/{row._meta.app_label}/{row._meta.model_name}/{row.pk}/change/"


def save(client, row, **changes):
    """Submit the form of the row as a browser does, with these fields replaced."""
    form = filled_form(client.get(page_of(row)).content.decode())
    answer = client.post(page_of(row), form | changes)
    assert answer.status_code == 302, answer.context["errors"]


def assert_untouched(client, row, **related):
    before = columns(row)
    entries = AuditEntry.objects.count()
    save(client, row)
    assert columns(row) == before
    assert AuditEntry.objects.count() == entries
    assert not LogEntry.objects.exists()


def insert_row(model, **values):
    """Insert a row without validation and return it."""
    row = model(**values)
    models.QuerySet(model).bulk_create([row])
    return row


@pytest.mark.parametrize("values", AWKWARD_USERS.values(), ids=AWKWARD_USERS.keys())
def test_saving_an_unchanged_user_writes_nothing(superuser_client, db, values):
    user = insert_row(User, **{"username": "someone", "password": "!"} | values)
    assert_untouched(superuser_client, user)


@pytest.mark.parametrize("values", AWKWARD_USERS.values(), ids=AWKWARD_USERS.keys())
def test_changing_a_field_leaves_the_others_unchanged(superuser_client, db, values):
    user = insert_row(User, **{"username": "someone", "password": "!", "is_verified": True} | values)
    before = columns(user)
    save(superuser_client, user, phone_number="+1 2345")
    changed = {"phone_number": "+1 2345", "version": 2, "updated_at": columns(user)["updated_at"]}
    assert columns(user) == before | changed
    [entry] = AuditEntry.objects.of_row(User, user.pk)
    assert list(entry.changes) == ["phone_number"]
    assert LogEntry.objects.get().get_change_message() == "Changed Phone number."


def test_saving_an_unchanged_user_keeps_groups_and_permissions(superuser_client, make_user):
    user = make_user()
    user.groups.set([Group.objects.create(name=name) for name in ("Clerks", "Bosses")])
    user.user_permissions.set(Permission.objects.all()[:3])
    before = set(user.groups.all()), set(user.user_permissions.all())
    assert_untouched(superuser_client, user)
    assert (set(user.groups.all()), set(user.user_permissions.all())) == before


def test_saving_an_unchanged_group_writes_nothing(superuser_client, db):
    group = Group.objects.create(name=" Clerks  and\tothers ")
    group.permissions.set(Permission.objects.all()[:3])
    assert_untouched(superuser_client, group)
    assert group.permissions.count() == 3


@pytest.mark.parametrize(("price", "quantity"), [("0.0001", 1), ("99999999999.9999", 2**63 - 1), ("10", 5)])
def test_saving_an_unchanged_stock_writes_nothing(superuser_client, make_stock, price, quantity):
    assert_untouched(
        superuser_client, make_stock(superuser_client.user, price=Decimal(price), quantity=quantity, name="BRK.B")
    )


def test_unchanged_rows_of_deleted_users_can_be_saved(superuser_client, make_user, make_stock):
    stock = make_stock(make_user())
    stock.owner.delete()
    assert_untouched(superuser_client, stock)
    assert_untouched(superuser_client, User.all_objects.get(pk=stock.owner_id))


def test_every_changeable_model_uses_record_form():
    """The tests above apply to every model that the admin can change."""
    changeable = {
        model for model, model_admin in admin.site._registry.items() if isinstance(model_admin, RecordAdmin)
    } | {Group}
    for model in changeable:
        assert issubclass(admin.site._registry[model].form, RecordForm), model


CHANGEABLE = [model for model, options in admin.site._registry.items() if isinstance(options, RecordAdmin)]
NULLABLE = [(model, column.name) for model in CHANGEABLE for column in model._meta.concrete_fields if column.null]
TEXTS = [
    (model, column.name)
    for model in CHANGEABLE
    for column in model._meta.concrete_fields
    if isinstance(column, (models.CharField, models.TextField)) and (column.null or column.blank)
]


@pytest.mark.parametrize(
    ("model", "name", "value"), [(*item, None) for item in NULLABLE] + [(*item, "") for item in TEXTS]
)
def test_null_stays_null_and_empty_text_stays_empty(superuser_client, model, name, value):
    row = create_row(model)
    try:
        with transaction.atomic():
            models.QuerySet(model).filter(pk=row.pk).update(**{name: value})
    except IntegrityError:
        pytest.skip(f"A constraint refuses {value!r} in {name}.")
    assert_untouched(superuser_client, row)


def test_saving_an_unchanged_form_says_so(superuser_client, make_stock):
    stock = make_stock(superuser_client.user)
    answer = superuser_client.post(page_of(stock), opened_form(superuser_client, page_of(stock)), follow=True)
    assert [str(message) for message in answer.context["messages"]] == ["No changes were made to the stock."]


def test_saving_a_changed_form_says_so(superuser_client, make_stock):
    stock = make_stock(superuser_client.user)
    form = opened_form(superuser_client, page_of(stock)) | {"price": "3", "_continue": "1"}
    answer = superuser_client.post(page_of(stock), form, follow=True)
    assert "was changed successfully" in str(next(iter(answer.context["messages"])))


def test_equivalent_spelling_is_not_a_change(superuser_client, make_user, make_stock):
    stock = make_stock(make_user(email="ann@example.com", is_verified=True))
    save(superuser_client, stock, name="aapl", price="175.5000")
    save(superuser_client, stock.owner, email="ann@EXAMPLE.com")
    assert [columns(row)["version"] for row in (stock, stock.owner)] == [1, 1]
    assert columns(stock.owner)["is_verified"]
    assert not LogEntry.objects.exists()


def test_cleared_text_becomes_null(superuser_client, make_user):
    user = make_user(bio="Text.", name="Ann", phone_number="+1 2345")
    save(superuser_client, user, bio="", name="", phone_number="")
    assert [columns(user)[name] for name in ("bio", "name", "phone_number")] == [None] * 3


def test_line_breaks_are_stored_as_lf(superuser_client, make_user):
    user = make_user()
    save(superuser_client, user, bio="one\r\ntwo")
    assert columns(user)["bio"] == "one\ntwo"


def test_editable_list_writes_only_changed_rows(superuser_client, make_user, monkeypatch):
    monkeypatch.setattr(admin.site._registry[User], "list_editable", ("email", "name"))
    one, other = make_user(name="Ann"), insert_row(User, username="other", email="Other@Example.COM", name=None)
    before = columns(other)
    path = f"/admin/users/user/?id__in={one.pk},{other.pk}"
    form = filled_form(superuser_client.get(path).content.decode(), "changelist-form")
    [field] = [name for name, value in form.items() if value == ["Ann"]]
    form.pop("action"), form.pop("index", None)
    superuser_client.post(path, form | {"_save": "Save"})
    assert not LogEntry.objects.exists()
    superuser_client.post(path, form | {"_save": "Save", field: "Beth"})
    assert (columns(one)["name"], columns(other)) == ("Beth", before)
    assert LogEntry.objects.get().object_id == str(one.pk)


def test_repeated_deletion_or_restoring_is_not_logged(superuser_client, make_stock):
    stock, deleted = make_stock(superuser_client.user), make_stock(superuser_client.user)
    deleted.delete()
    entries = AuditEntry.objects.count()
    superuser_client.post("/admin/stocks/stock/", {"action": "restore_selected", "_selected_action": stock.pk})
    selected = {"action": "delete_selected", "_selected_action": deleted.pk, "post": "yes"}
    superuser_client.post("/admin/stocks/stock/?deleted=1", selected)
    superuser_client.post(f"/admin/stocks/stock/{deleted.pk}/delete/", {"post": "yes"})
    assert AuditEntry.objects.count() == entries
    assert not LogEntry.objects.exists()


# Column types of future resources


class Sample(models.Model):
    moment = models.DateTimeField(default=datetime.now, null=True, blank=True)
    data = models.JSONField(default=dict, blank=True)
    note = models.TextField(null=True, blank=True)
    line = models.CharField(max_length=200)
    amount = models.DecimalField(max_digits=15, decimal_places=4)
    weight = models.FloatField(null=True, blank=True)
    site = models.URLField(null=True, blank=True)
    key = models.UUIDField(null=True, blank=True)
    is_on = models.BooleanField(default=True)
    day = models.DateField(null=True, blank=True)
    lasts = models.DurationField(null=True, blank=True)

    class Meta:
        app_label = "samples"
        managed = False

    def __str__(self) -> str:
        return self.line


class SampleAdmin(RecordAdmin):
    record_fields = ()
    is_soft = False


AWKWARD_VALUES = {
    "moment": [None, datetime(2026, 1, 2, 3, 4, 5, 678901, UTC), datetime(1, 1, 1, tzinfo=UTC)],
    "data": [{}, [], {"b": 1.0, "a": [None, "\r\n", "ü"]}, "text", 0, False, 12345678901234567, ""],
    "note": [None, "", " a\r\nb\n"],
    "line": ["a\nb", " a ", "a\tb", "x" * 200],
    "amount": [Decimal("1.5000"), Decimal("-0.0001"), Decimal("99999999999.9999")],
    "weight": [None, 0.1 + 0.2, 1e22, -5e-324],
    "site": [None, "", "HTTP://Example.com/?"],
    "is_on": [True, False],
}
PLAIN = {"moment": None, "data": 1, "line": "x", "amount": Decimal(1)}


def resubmitted_form(instance: Sample, **changes):
    """Return the form of `instance`, bound to the values that its page displays."""
    model_admin = SampleAdmin(Sample, admin.site)
    form_class = model_admin.get_form(type("Request", (), {"user": User(is_superuser=True)}), instance, change=True)
    page = f"<form>{form_class(instance=instance).as_p()}</form>"
    data = QueryDict(mutable=True)
    for name, sent in (filled_form(page) | {name: [text] for name, text in changes.items()}).items():
        data.setlist(name, sent)
    return form_class(data, instance=instance)


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in AWKWARD_VALUES.items() for value in values]
)
def test_every_value_survives_an_unedited_form(name, value):
    form = resubmitted_form(Sample(pk=1, **PLAIN | {name: value}))
    form.instance._state.adding = False
    form.validate_unique = lambda: None
    assert form.is_valid(), form.errors
    assert form.changed_data == []
    assert getattr(form.instance, name) == value
    assert type(getattr(form.instance, name)) is type(value)


def test_microseconds_are_kept_without_the_hidden_initial_field():
    moment = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)
    instance = Sample(pk=1, **PLAIN | {"moment": moment})
    instance._state.adding = False
    form = resubmitted_form(instance, note="new")
    for name in [name for name in form.data if name.startswith("initial-")]:
        del form.data[name]
    form.validate_unique = lambda: None
    assert form.is_valid()
    assert form.changed_data == ["note"]
    assert (instance.moment, instance.note) == (moment, "new")


def test_edited_time_is_stored():
    instance = Sample(pk=1, **PLAIN | {"moment": datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)})
    instance._state.adding = False
    form = resubmitted_form(instance, moment_1="03:04:06")
    form.validate_unique = lambda: None
    assert form.is_valid()
    assert instance.moment == datetime(2026, 1, 2, 3, 4, 6, tzinfo=UTC)


def test_null_in_a_required_json_column_is_refused():
    column = models.JSONField()
    field = column.formfield(**form_class_kwargs(column))
    with pytest.raises(forms.ValidationError):
        field.clean("null")
    with pytest.raises(forms.ValidationError):
        field.clean("")
    assert [field.clean(text) for text in ("[]", "{}", '""')] == [[], {}, ""]
