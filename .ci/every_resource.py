"""Tests of behaviour that generated resources inherit from records. resources.py runs them in its copy."""

import pytest
from categories.models import Category
from categories.tests.factories import make_category
from django.core.exceptions import ValidationError
from django.db import connection, models
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.core.management import call_command
from gadgets.models import Gadget
from gadgets.tests.factories import gadget_values, make_gadget
from holdings.models import Holding
from holdings.tests.factories import make_holding
from items.models import Item
from items.tests.factories import make_item
from notes.models import Note
from notes.tests.factories import make_note
from order_lines.tests.factories import make_order_line, order_line_values
from orders.models import Order
from orders.tests.factories import make_order, order_values
from people.models import Person
from products.tests.factories import make_product
from transactions.models import Transaction
from transactions.tests.factories import make_transaction

from stocks.models import Stock
from records.audit.models import AuditEntry
from records.tests.browser import filled_form, opened_form
from records.tests.factories import any_value, create_row
from users.models import User

pytestmark = pytest.mark.django_db


def test_row_in_use_cannot_be_deleted(superuser):
    product = make_product()
    answer = superuser.delete(f"/api/v1/categories/{product.category_id}")
    assert (answer.status_code, answer.json()["detail"]) == (409, "The category is in use by 1 product.")
    superuser.force_login(superuser.user)
    page = superuser.get(f"/admin/categories/category/{product.category_id}/delete/").content.decode()
    assert "1 product" in page
    assert Category.objects.filter(pk=product.category_id).exists()


def test_optional_reference_becomes_null(superuser, owner):
    gadget = make_gadget(owner.user, category_id=make_category().pk)
    assert superuser.delete(f"/api/v1/categories/{gadget.category_id}").status_code == 204
    stored = Gadget.objects.get(pk=gadget.pk)
    assert (stored.category_id, stored.version) == (None, 2)


def test_creation_of_row_in_use_cannot_be_undone(superuser):
    category = superuser.post("/api/v1/categories", {"name": "Chairs"})
    make_product(category_id=category.json()["id"])
    answer = superuser.post("/api/v1/admin/audit-logs/undo", {"request_id": category.headers["X-Request-ID"]})
    assert (answer.status_code, "in use by 1 product" in answer.json()["detail"]) == (409, True)


def test_rows_are_deleted_and_restored_with_their_owner(superuser, owner):
    item, gadget = make_item(owner.user), make_gadget(owner.user)
    paths = [f"/api/v1/items/{item.pk}", f"/api/v1/gadgets/{gadget.pk}"]
    owner.user.delete()
    assert [superuser.get(path).status_code for path in paths] == [404, 404]
    owner.user.restore()
    assert [superuser.get(path).status_code for path in paths] == [200, 200]


def test_rows_are_purged_with_their_owner(owner):
    line = make_order_line(owner.user)
    User.objects.filter(pk=owner.user.pk).purge()
    assert not Item.objects.filter(pk=line.item_id).exists()
    assert not Gadget.all_objects.exists()


def test_user_cannot_refer_to_invisible_row(owner):
    category = make_category()
    answer = owner.post("/api/v1/gadgets", gadget_values(owner.user, category_id=str(category.pk)))
    assert answer.json()["errors"] == {"category_id": [f"Category with ID {category.pk} not found"]}


def test_unchanged_reference_is_not_validated_again(owner):
    gadget = make_gadget(owner.user, category_id=make_category().pk)
    changed = {"category_id": str(gadget.category_id), "title": "Other"}
    assert owner.patch(f"/api/v1/gadgets/{gadget.pk}", changed).status_code == 200


def test_row_cannot_move_to_another_owner_than_its_references(superuser, owner, stranger):
    line = make_order_line(owner.user)
    answer = superuser.patch(f"/api/v1/order-lines/{line.pk}", {"user_id": stranger.user.pk})
    assert (answer.status_code, sorted(answer.json()["errors"])) == (400, ["gadget_id", "item_id"])
    line.owner = stranger.user
    with pytest.raises(ValidationError, match="somebody else"):
        line.full_clean()


def test_staff_refer_to_rows_of_the_named_owner(superuser, owner):
    values = order_line_values(owner.user)
    assert superuser.post("/api/v1/order-lines", values).status_code == 400
    assert superuser.post("/api/v1/order-lines", values | {"user_id": owner.user.pk}).status_code == 201


def test_unique_field_is_unique_for_each_owner(owner, stranger):
    values = gadget_values(owner.user) | {"code": "R1"}
    assert owner.post("/api/v1/gadgets", values).status_code == 201
    again = gadget_values(owner.user) | {"code": "R1"}
    assert owner.post("/api/v1/gadgets", again).json()["errors"] == {"code": ["Code already in use"]}
    assert stranger.post("/api/v1/gadgets", again | {"helper_id": None}).status_code == 201


# Rows that refer to stocks


@pytest.fixture
def stock(owner, make_stock):
    return make_stock(owner.user)


@pytest.fixture
def order(owner, stock):
    return make_order(owner.user, stock_id=stock.pk)


def statuses(client, *rows):
    paths = {Order: "orders", Holding: "holdings", Transaction: "transactions"}
    return [client.get(f"/api/v1/{paths[type(row)]}/{row.pk}").status_code for row in rows]


def test_referring_rows_are_deleted_and_restored_with_a_stock(superuser, owner, stock, order):
    transaction = make_transaction(owner.user, stock_id=stock.pk, filled_id=order.pk)
    holding = make_holding(owner.user, stock_id=stock.pk)
    assert owner.delete(f"/api/v1/stocks/{stock.pk}").status_code == 204
    assert statuses(owner, order, holding, transaction) == [404, 404, 404]
    assert superuser.post(f"/api/v1/orders/{order.pk}/restore").status_code == 409
    assert superuser.post(f"/api/v1/stocks/{stock.pk}/restore").status_code == 200
    assert statuses(owner, order, holding, transaction) == [200, 200, 200]


def test_referring_rows_are_deleted_with_the_owner_of_a_stock(superuser, owner, stock, order):
    make_order(owner.user, stock_id=stock.pk).delete()
    owner.user.delete()
    assert statuses(superuser, order) == [404]
    owner.user.restore()
    assert (statuses(superuser, order), Order.objects.count()) == ([200], 1)
    assert superuser.delete(f"/api/v1/users/{owner.user.pk}?permanent=true").status_code == 204
    assert not Order.all_objects.exists()


def test_optional_reference_to_a_purged_stock_becomes_null(owner, stock):
    transaction = make_transaction(owner.user, stock_id=stock.pk)
    Stock.all_objects.filter(pk=stock.pk).purge()
    transaction.refresh_from_db()
    assert (transaction.stock_id, transaction.version) == (None, 2)


def test_user_cannot_refer_to_stock_of_another_user(owner, stranger, superuser, make_stock):
    other_stock = make_stock(stranger.user)
    answer = owner.post("/api/v1/orders", order_values(owner.user, stock_id=other_stock.pk))
    assert answer.json()["errors"] == {"stock_id": [f"Stock with ID {other_stock.pk} not found"]}
    body = order_values(owner.user, stock_id=other_stock.pk) | {"user_id": stranger.user.pk}
    assert superuser.post("/api/v1/orders", body).status_code == 201


def test_stock_cannot_move_to_another_owner_than_referring_rows(superuser, owner, stranger, stock, order):
    path, body = f"/api/v1/stocks/{stock.pk}", {"user_id": stranger.user.pk}
    for _ in range(2):
        answer = superuser.patch(path, body)
        expected = {"user_id": ["This stock is used by orders of its owner."]}
        assert (answer.status_code, answer.json()["errors"]) == (400, expected)
        order.delete()  # soft deletion
    stock.owner = stranger.user
    with pytest.raises(ValidationError, match="used by orders"):
        stock.full_clean()
    Order.all_objects.filter(pk=order.pk).purge()
    assert superuser.patch(path, body).status_code == 200


def test_undo_of_the_creation_of_a_stock_deletes_referring_rows(superuser, owner):
    created = owner.post("/api/v1/stocks", {"name": "AAPL", "price": 1, "quantity": 1})
    order = make_order(owner.user, stock_id=created.json()["id"])
    undo = {"request_id": created.headers["X-Request-ID"]}
    assert superuser.post("/api/v1/admin/audit-logs/undo", undo).status_code == 200
    assert statuses(owner, order) == [404]


@pytest.mark.parametrize("natural", [[], ["--natural-foreign"], ["--natural-foreign", "--natural-primary"]])
def test_fixture_distinguishes_stocks_with_equal_natural_keys(owner, make_stock, tmp_path, natural):
    first, second = make_stock(owner.user), make_stock(owner.user)
    Stock.objects.filter(pk=second.pk).update(created_at=first.created_at)
    orders = [make_order(owner.user, stock_id=stock.pk) for stock in (second, first)]
    count = Stock.objects.count()
    path = str(tmp_path / "all.json")
    call_command("dumpdata", *natural, output=path, verbosity=0)
    for _ in range(2):
        call_command("loaddata", path, verbosity=0)
    assert [Order.objects.get(pk=order.pk).stock_id for order in orders] == [second.pk, first.pk]
    assert Stock.objects.count() == count


def test_bool_defaults_to_false(owner, stock):
    values = order_values(owner.user, stock_id=stock.pk)
    del values["is_open"]
    order = owner.post("/api/v1/orders", values).json()
    assert order["is_open"] is False
    path = f"/api/v1/orders/{order['id']}"
    assert owner.patch(path, {"is_open": True}).json()["is_open"] is True
    assert owner.put(path, values).json()["is_open"] is False
    assert owner.post("/api/v1/orders", values | {"is_open": None}).status_code == 400


@pytest.mark.parametrize("text", ["a\nb", "a\tb", "a\u202eb", "a\u200bb", "a\x07b"])
def test_str_is_one_line_with_visible_characters(owner, text):
    answer = owner.post("/api/v1/items", {"title": text})
    assert (answer.status_code, list(answer.json()["errors"])) == (400, ["title"])


def test_text_is_stored_and_searched_in_normal_form(owner):
    created = owner.post("/api/v1/items", {"title": "Cafe\u0301", "description": "E\u0301t\u00e9\n\ttwo"}).json()
    assert (created["title"], created["description"]) == ("Café", "Été\n\ttwo")
    for text in ("CAFÉ", "cafe\u0301", "ÉTÉ"):
        assert owner.get("/api/v1/items", {"search": text}).json()["total"] == 1
    assert owner.get("/api/v1/items", {"title": "Cafe\u0301"}).json()["total"] == 1
    assert list(owner.post("/api/v1/items", {"title": "x", "description": "\x07"}).json()["errors"]) == ["description"]


# Slugs


def test_rows_created_together_get_different_slugs(db):
    make_category(name="Garden")
    created = Category.objects.bulk_create([Category(name=name) for name in ("Garden", "Garden", "", "日本", "Pond")])
    assert [row.slug for row in created] == ["garden-2", "garden-3", "category", "category-2", "pond"]


def test_slug_taken_by_a_concurrent_request_is_replaced(db, monkeypatch):
    make_category(name="Garden")
    original, calls = Category._taken_slugs, []

    def stale_first_call(rows, slugs):
        calls.append(slugs)
        return {None: set()} if len(calls) == 1 else original(rows, slugs)

    monkeypatch.setattr(Category, "_taken_slugs", staticmethod(stale_first_call))
    assert make_category(name="Garden").slug == "garden-2"


def test_slug_is_kept_and_derived_again_when_emptied(superuser):
    category = make_category(name="Garden")
    path = f"/api/v1/categories/{category.pk}"
    assert superuser.patch(path, {"name": "Pond"}).json()["slug"] == "garden"
    assert superuser.put(path, {"name": "Pond"}).json()["slug"] == "pond"
    assert superuser.patch(path, {"slug": "lake"}).json()["slug"] == "lake"
    assert superuser.post("/api/v1/categories", {"name": "Lake", "slug": "lake"}).json()["errors"] == {
        "slug": ["Slug already in use"]
    }


def test_many_rows_with_one_name_get_different_slugs(db):
    created = Category.objects.bulk_create([Category(name="Garden") for _ in range(120)])
    assert len({row.slug for row in created}) == 120
    assert created[98].slug == "garden-99"


# JSON


def nested(depth):
    return [nested(depth - 1)] if depth else []


@pytest.mark.parametrize(
    "value", [10**19, -(10**30), 1e19, "a\0b", {"a\0": 1}, [{"a": [10**25]}], nested(60)],
)  # fmt: skip
def test_json_that_cannot_be_stored_is_refused(owner, value):
    answer = owner.post("/api/v1/notes", {"data": value})
    assert (answer.status_code, list(answer.json()["errors"])) == (400, ["data"])


@pytest.mark.parametrize("text", ["NaN", "1e400", "[Infinity]", "9" * 40, r'"\ud800"'])
def test_invalid_json_constant_is_refused(owner, text):
    answer = owner.generic("POST", "/api/v1/notes", f'{{"data": {text}}}', content_type="application/json")
    assert (answer.status_code, list(answer.json()["errors"])) == (400, ["data"])


@pytest.mark.parametrize("value", [1.5, 2**53 + 1, True, "ü", [], {}, {"a": [None, 0.1, {"b": "c"}]}, nested(40)])
def test_json_is_returned_unchanged(owner, value):
    row = owner.post("/api/v1/notes", {"data": value}).json()
    assert row["data"] == value
    assert owner.get(f"/api/v1/notes/{row['id']}").json()["data"] == value


def test_change_of_json_can_be_undone(owner, superuser):
    note = make_note(owner.user, data={"a": 1})
    changed = owner.patch(f"/api/v1/notes/{note.pk}", {"data": {"b": [2]}})
    answer = superuser.post("/api/v1/admin/audit-logs/undo", {"request_id": changed.headers["X-Request-ID"]})
    assert answer.status_code == 200
    assert owner.get(f"/api/v1/notes/{note.pk}").json()["data"] == {"a": 1}


# Public resources


def test_anonymous_can_read_public_rows_but_not_their_history(anonymous, owner):
    gadget = make_gadget(owner.user)
    assert anonymous.get(f"/api/v1/gadgets/{gadget.pk}").json()["title"] == gadget.title
    assert anonymous.get("/api/v1/gadgets", {"search": gadget.title, "sort_by": "-price"}).json()["total"] == 1
    assert anonymous.get("/api/v1/gadgets", {"is_deleted": "true"}).status_code == 400
    assert anonymous.get(f"/api/v1/gadgets/{gadget.pk}/history").status_code == 401
    assert anonymous.options("/api/v1/gadgets").status_code == 200
    gadget.delete()
    assert anonymous.get(f"/api/v1/gadgets/{gadget.pk}").status_code == 404


@pytest.mark.parametrize(
    "sort", ["title", "-weight", "price", "seen_at", "-built_on", "serial", "category_id", "is_on"]
)
def test_every_sort_is_paged_by_cursor(owner, sort):
    created = {str(make_gadget(owner.user, weight=number or None).pk) for number in range(5)}
    ids, link = [], f"/api/v1/gadgets?cursor=&size=2&sort_by={sort}"
    while link:
        page = owner.get(link).json()
        ids += [item["id"] for item in page["items"]]
        link = page["links"]["next"]
    assert (set(ids), len(ids)) == (created, 5)


# Forms of the admin


@pytest.fixture
def browser(superuser):
    # Django's client, because forms validate each reference by a query and conftest's refuses queries in loops.
    client = Client()
    client.force_login(superuser.user)
    return client


EDGE_CASES = [
    {},
    {"note": "", "homepage": None, "weight": 0.1 + 0.2, "data": {}},
    {"note": " a\n\r\nb ", "homepage": "https://EXAMPLE.com/?", "data": [], "code": "a b ", "title": " x\ty"},
    {"seen_at": "2026-01-02T03:04:05.678901Z", "built_on": "0999-01-01", "price": "0.0001", "data": {"ü": "\r\n"}},
]


@pytest.mark.parametrize("values", EDGE_CASES)
@pytest.mark.parametrize("helper_is_deleted", [False, True])
def test_saving_an_unchanged_form_writes_nothing(browser, stranger, owner, values, helper_is_deleted):
    gadget = make_gadget(owner.user, helper_id=stranger.user.pk)
    models.QuerySet(Gadget).filter(pk=gadget.pk).update(**values)
    if helper_is_deleted:
        stranger.user.delete()
    before, entries = Gadget.objects.filter(pk=gadget.pk).values().get(), AuditEntry.objects.count()
    path = f"/admin/gadgets/gadget/{gadget.pk}/change/"
    form = filled_form(browser.get(path).content.decode())
    assert browser.post(path, form).status_code == 302
    assert Gadget.objects.filter(pk=gadget.pk).values().get() == before
    assert AuditEntry.objects.count() == entries
    assert browser.post(path, form | {"amount": "7"}).status_code == 302
    after = Gadget.objects.filter(pk=gadget.pk).values("version", "updated_at").get()
    assert Gadget.objects.filter(pk=gadget.pk).values().get() == before | after | {"amount": 7}


@pytest.mark.parametrize("value", [[], {}, 0, False, "", None, {"b": 1.0, "a": ["\r\n"]}])
def test_admin_saves_json_unchanged(browser, owner, value):
    note = make_note(owner.user, data=value if value is not None else {"a": None})
    path = f"/admin/notes/note/{note.pk}/change/"
    form = filled_form(browser.get(path).content.decode())
    assert browser.post(path, form).status_code == 302
    assert (Note.objects.get(pk=note.pk).data, Note.objects.get(pk=note.pk).version) == (note.data, 1)
    for typed in ("[]", "{}", "0"):
        assert browser.post(path, opened_form(browser, path) | {"data": typed}).status_code == 302
        assert str(Note.objects.get(pk=note.pk).data) == typed


@pytest.mark.parametrize("model", [Gadget, Person])
def test_unedited_fields_of_every_type_take_what_others_have_stored(browser, owner, model):
    row = create_row(model, **({"owner": owner.user} if model is Gadget else {}))
    path = f"/admin/{model._meta.app_label}/{model._meta.model_name}/{row.pk}/change/"
    form = opened_form(browser, path)
    fields = [field for field in model._meta.concrete_fields if field.editable and field.name not in {"id", "owner"}]
    stored = {field.attname: any_value(field) for field in fields if not field.is_relation}
    models.QuerySet(model).filter(pk=row.pk).update(version=models.F("version") + 1, **stored)
    answer = browser.post(path, form)
    assert list(answer.context["adminform"].form.errors) == ["__all__"]
    before = models.QuerySet(model).filter(pk=row.pk).values().get()
    shown, others = filled_form(answer.content.decode()), {"csrfmiddlewaretoken", "opened_version"}
    assert {name: value for name, value in opened_form(browser, path).items() if name not in others} == {
        name: value for name, value in shown.items() if name not in others
    }
    assert browser.post(path, shown).status_code == 302
    assert models.QuerySet(model).filter(pk=row.pk).values().get() == before


def test_admin_refuses_invalid_values(browser, owner):
    gadget = make_gadget(owner.user)
    for path in (
        "/admin/gadgets/gadget/add/?category=abc",
        "/admin/gadgets/gadget/?id__in=abc",
        "/admin/gadgets/gadget/?data__a__regex=(",
        "/admin/gadgets/gadget/abc/change/",
        "/admin/gadgets/gadget/?price__gte=1e400",
    ):
        assert browser.get(path).status_code in {302, 400}, path
    selected = {"action": "delete_selected", "_selected_action": "abc", "post": "yes"}
    assert browser.post("/admin/gadgets/gadget/", selected).status_code == 400
    assert Gadget.objects.filter(pk=gadget.pk).exists()


# Bulk writes


def errors(answer):
    assert answer.status_code == 400, answer.content
    return answer.json()["errors"]


def test_references_of_many_rows_are_checked_together(owner, stranger):
    rows = [order_line_values(owner.user) for _ in range(3)]
    rows[1]["item_id"] = str(make_item(stranger.user).pk)
    rows[2]["gadget_id"] = "00000000-0000-7000-8000-000000000000"
    assert errors(owner.post("/api/v1/order-lines", rows)) == {
        "1.item_id": [f"Item with ID {rows[1]['item_id']} not found"],
        "2.gadget_id": [f"Gadget with ID {rows[2]['gadget_id']} not found"],
    }


def test_staff_refer_to_rows_of_each_named_owner(superuser, owner, stranger):
    rows = [order_line_values(user) | {"user_id": user.pk} for user in (owner.user, stranger.user)]
    assert superuser.post("/api/v1/order-lines", rows).status_code == 201
    rows = [order_line_values(owner.user) | {"user_id": user.pk} for user in (owner.user, stranger.user)]
    assert sorted(errors(superuser.post("/api/v1/order-lines", rows))) == ["1.gadget_id", "1.item_id"]


def test_unique_values_are_unique_within_the_request_and_for_each_owner(superuser, owner, stranger):
    def row(user, code):
        return gadget_values(user) | {"code": code, "user_id": user.pk}

    make_gadget(owner.user, code="taken")
    rows = [row(owner.user, "taken"), row(owner.user, "new"), row(owner.user, "new"), row(stranger.user, "taken")]
    expected = {"0.code": ["Code already in use"], "2.code": ["Code already in use"]}
    assert errors(superuser.post("/api/v1/gadgets", rows)) == expected
    assert superuser.post("/api/v1/gadgets", [rows[1], rows[3]]).status_code == 201


def test_null_is_no_unique_value(owner):
    rows = [gadget_values(owner.user) | {"contact": None} for _ in range(2)]
    assert owner.post("/api/v1/gadgets", rows).status_code == 201
    rows = [gadget_values(owner.user) | {"contact": "a@example.com"} for _ in range(2)]
    assert list(errors(owner.post("/api/v1/gadgets", rows))) == ["1.contact"]


def test_row_that_moves_is_checked_for_its_new_owner(superuser, owner, stranger):
    make_gadget(stranger.user, code="taken")
    gadget, line = make_gadget(owner.user, code="taken"), make_order_line(owner.user)
    rows = [{"id": str(row.pk), "user_id": stranger.user.pk} for row in (gadget, line.gadget)]
    assert errors(superuser.patch("/api/v1/gadgets", rows)) == {
        "0.code": ["Code already in use"],
        "1.user_id": ["This gadget is used by order lines of its owner."],
    }


def test_slugs_are_derived_for_many_rows(superuser):
    make_category(name="Garden")
    rows = [
        {"name": "Garden"},
        {"name": "Garden", "slug": "garden-2"},
        {"name": "Garden"},
        {"name": "Pond", "slug": ""},
    ]
    created = superuser.post("/api/v1/categories", rows).json()["items"]
    assert [row["slug"] for row in created] == ["garden-3", "garden-2", "garden-4", "pond"]
    changes = [{"id": row["id"], "slug": ""} for row in created[1:3]]
    changes[0]["name"] = "Pond"
    changed = superuser.patch("/api/v1/categories", changes).json()["items"]
    assert [row["slug"] for row in changed] == ["pond-2", "garden-4"]


def test_row_in_use_is_not_deleted_with_others(superuser):
    product, free = make_product(), make_category()
    rows = [str(product.category_id), str(free.pk)]
    message = ["The category is in use by 1 product."]
    assert errors(superuser.delete("/api/v1/categories", rows)) == {"0.id": message}
    results = superuser.delete("/api/v1/categories?atomic=false", rows).json()["results"]
    assert results == [{"index": 0, "status": 409, "errors": {"id": message}}, {"index": 1, "status": 204}]


@pytest.mark.parametrize("query", ["", "?atomic=false"])
def test_row_that_is_used_meanwhile_is_not_deleted(superuser, monkeypatch, query):
    product, free = make_product(), make_category()
    rows = [str(free.pk), str(product.category_id)]
    original, calls = type(Category.all_objects).protection_of, []

    def stale_first_call(self, keys, **options):
        calls.append(keys)
        return {} if len(calls) == 1 else original(self, keys, **options)

    monkeypatch.setattr(type(Category.all_objects), "protection_of", stale_first_call)
    answer = superuser.delete(f"/api/v1/categories{query}", rows)
    assert answer.status_code == (207 if query else 400)
    assert Category.objects.filter(pk=free.pk).exists() == (not query)
    assert Category.objects.filter(pk=product.category_id).exists()


def test_every_type_is_written_together(owner):
    samples = [
        {
            "note": "ü\n\"'\\",
            "weight": 0.1 + 0.2,
            "price": 1.0001,
            "data": {"b": 1, "a": [None, 1.5, "ü"]},
            "is_on": True,
        },
        {
            "note": None,
            "weight": None,
            "price": 99.5,
            "data": [],
            "is_on": False,
            "seen_at": "2026-01-02T03:04:05.678901Z",
        },
        {"homepage": "https://example.com/?a=%27", "built_on": "0999-01-01", "size_class": "large", "data": 1},
    ]
    created = owner.post("/api/v1/gadgets", [gadget_values(owner.user) | sample for sample in samples]).json()["items"]
    assert [row | sample for row, sample in zip(created, samples, strict=True)] == created
    changes = [{"id": row["id"]} | sample for row, sample in zip(created, samples[1:] + samples[:1], strict=True)]
    changed = owner.patch("/api/v1/gadgets", changes).json()["items"]
    assert [row | change for row, change in zip(changed, changes, strict=True)] == changed
    for row in changed:
        assert (
            owner.get(f"/api/v1/gadgets/{row['id']}").content == owner.patch(f"/api/v1/gadgets/{row['id']}", {}).content
        )
        assert owner.get(f"/api/v1/gadgets/{row['id']}").json() == row


def test_null_in_json_stays_null(owner):
    notes = [make_note(owner.user, data={"a": number}) for number in range(2)]
    answer = owner.patch(
        "/api/v1/notes", [{"id": str(notes[0].pk), "data": {"b": 1}}, {"id": str(notes[1].pk), "data": True}]
    )
    assert [row["data"] for row in answer.json()["items"]] == [{"b": 1}, True]


def test_a_thousand_rows_take_as_many_statements_as_one(superuser, owner):
    counts = {"post": [], "patch": [], "delete": []}
    for size in (1, 1000):
        targets = [make_category().pk, make_category().pk]
        rows = [
            {"title": f"Row {size} {number}", "code": f"{size}-{number}", "category_id": str(targets[number % 2]),
             "user_id": owner.user.pk}
            for number in range(size)
        ]  # fmt: skip
        created = count(superuser, "post", rows, counts)["items"]
        changes = [
            {"id": row["id"], "amount": number, "code": f"new-{size}-{number}"} if number % 2 == 0
            else {"id": row["id"], "category_id": str(targets[0]), "data": [number]}
            for number, row in enumerate(created)
        ]  # fmt: skip
        count(superuser, "patch", changes, counts)
        count(superuser, "delete", [row["id"] for row in created], counts)
    assert counts["post"][0] == counts["post"][1]
    assert counts["delete"][0] == counts["delete"][1]
    # One row changes no reference, which takes a query.
    assert counts["patch"][1] <= counts["patch"][0] + 1


def count(client, method, rows, counts):
    with CaptureQueriesContext(connection) as queries:
        answer = getattr(client, method)("/api/v1/gadgets", rows)
    assert answer.status_code in {200, 201}, answer.content[:1000]
    counts[method].append(len(queries))
    return answer.json()
