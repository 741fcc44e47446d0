"""What every resource of startresource has from records: run by resources.py, where it has made some."""

import pytest
from categories.models import Category
from categories.tests.factories import make_category
from django.core.exceptions import ValidationError
from django.db import models
from django.test import Client
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
from products.tests.factories import make_product
from transactions.models import Transaction
from transactions.tests.factories import make_transaction

from stocks.models import Stock
from records.audit.models import AuditEntry
from records.tests.browser import filled_form
from users.models import User

pytestmark = pytest.mark.django_db


def test_what_is_in_use_is_not_deleted(superuser):
    product = make_product()
    answer = superuser.delete(f"/api/v1/categories/{product.category_id}")
    assert (answer.status_code, answer.json()["detail"]) == (409, "The category is in use by 1 product.")
    superuser.force_login(superuser.user)
    page = superuser.get(f"/admin/categories/category/{product.category_id}/delete/").content.decode()
    assert "1 product" in page
    assert Category.objects.filter(pk=product.category_id).exists()


def test_optional_reference_is_emptied(superuser, owner):
    gadget = make_gadget(owner.user, category_id=make_category().pk)
    assert superuser.delete(f"/api/v1/categories/{gadget.category_id}").status_code == 204
    stored = Gadget.objects.get(pk=gadget.pk)
    assert (stored.category_id, stored.version) == (None, 2)


def test_creation_that_is_in_use_is_not_undone(superuser):
    category = superuser.post("/api/v1/categories", {"name": "Chairs"})
    make_product(category_id=category.json()["id"])
    answer = superuser.post("/api/v1/admin/audit-logs/undo", {"request_id": category.headers["X-Request-ID"]})
    assert (answer.status_code, "in use by 1 product" in answer.json()["detail"]) == (409, True)


def test_rows_of_a_deleted_user_vanish_and_come_back(superuser, owner):
    item, gadget = make_item(owner.user), make_gadget(owner.user)
    paths = [f"/api/v1/items/{item.pk}", f"/api/v1/gadgets/{gadget.pk}"]
    owner.user.delete()
    assert [superuser.get(path).status_code for path in paths] == [404, 404]
    owner.user.restore()
    assert [superuser.get(path).status_code for path in paths] == [200, 200]


def test_rows_of_a_purged_user_are_gone(owner):
    line = make_order_line(owner.user)
    User.objects.filter(pk=owner.user.pk).purge()
    assert not Item.objects.filter(pk=line.item_id).exists()
    assert not Gadget.all_objects.exists()


def test_what_the_caller_does_not_see_they_cannot_refer_to(owner):
    category = make_category()
    answer = owner.post("/api/v1/gadgets", gadget_values(owner.user, category_id=str(category.pk)))
    assert answer.json()["errors"] == {"category_id": [f"Category with ID {category.pk} not found"]}


def test_reference_that_stays_is_not_asked_again(owner):
    gadget = make_gadget(owner.user, category_id=make_category().pk)
    changed = {"category_id": str(gadget.category_id), "title": "Other"}
    assert owner.patch(f"/api/v1/gadgets/{gadget.pk}", changed).status_code == 200


def test_row_does_not_move_away_from_what_it_refers_to(superuser, owner, stranger):
    line = make_order_line(owner.user)
    answer = superuser.patch(f"/api/v1/order-lines/{line.pk}", {"user_id": stranger.user.pk})
    assert (answer.status_code, sorted(answer.json()["errors"])) == (400, ["gadget_id", "item_id"])
    line.owner = stranger.user
    with pytest.raises(ValidationError, match="somebody else"):
        line.full_clean()


def test_staff_refer_to_rows_of_the_owner_they_name(superuser, owner):
    values = order_line_values(owner.user)
    assert superuser.post("/api/v1/order-lines", values).status_code == 400
    assert superuser.post("/api/v1/order-lines", values | {"user_id": owner.user.pk}).status_code == 201


def test_what_is_unique_is_so_for_each_owner(owner, stranger):
    values = gadget_values(owner.user) | {"code": "R1"}
    assert owner.post("/api/v1/gadgets", values).status_code == 201
    again = gadget_values(owner.user) | {"code": "R1"}
    assert owner.post("/api/v1/gadgets", again).json()["errors"] == {"code": ["Code already in use"]}
    assert stranger.post("/api/v1/gadgets", again | {"helper_id": None}).status_code == 201


# What refers to stocks


@pytest.fixture
def stock(owner, make_stock):
    return make_stock(owner.user)


@pytest.fixture
def order(owner, stock):
    return make_order(owner.user, stock_id=stock.pk)


def statuses(client, *rows):
    paths = {Order: "orders", Holding: "holdings", Transaction: "transactions"}
    return [client.get(f"/api/v1/{paths[type(row)]}/{row.pk}").status_code for row in rows]


def test_what_refers_to_a_stock_goes_with_it_and_comes_back(superuser, owner, stock, order):
    transaction = make_transaction(owner.user, stock_id=stock.pk, filled_id=order.pk)
    holding = make_holding(owner.user, stock_id=stock.pk)
    assert owner.delete(f"/api/v1/stocks/{stock.pk}").status_code == 204
    assert statuses(owner, order, holding, transaction) == [404, 404, 404]
    assert superuser.post(f"/api/v1/orders/{order.pk}/restore").status_code == 409
    assert superuser.post(f"/api/v1/stocks/{stock.pk}/restore").status_code == 200
    assert statuses(owner, order, holding, transaction) == [200, 200, 200]


def test_what_refers_to_a_stock_goes_with_its_owner(superuser, owner, stock, order):
    make_order(owner.user, stock_id=stock.pk).delete()
    owner.user.delete()
    assert statuses(superuser, order) == [404]
    owner.user.restore()
    assert (statuses(superuser, order), Order.objects.count()) == ([200], 1)
    assert superuser.delete(f"/api/v1/users/{owner.user.pk}?permanent=true").status_code == 204
    assert not Order.all_objects.exists()


def test_optional_reference_to_a_purged_stock_is_emptied(owner, stock):
    transaction = make_transaction(owner.user, stock_id=stock.pk)
    Stock.all_objects.filter(pk=stock.pk).purge()
    transaction.refresh_from_db()
    assert (transaction.stock_id, transaction.version) == (None, 2)


def test_stock_of_somebody_else_is_not_referred_to(owner, stranger, superuser, make_stock):
    theirs = make_stock(stranger.user)
    answer = owner.post("/api/v1/orders", order_values(owner.user, stock_id=theirs.pk))
    assert answer.json()["errors"] == {"stock_id": [f"Stock with ID {theirs.pk} not found"]}
    named = order_values(owner.user, stock_id=theirs.pk) | {"user_id": stranger.user.pk}
    assert superuser.post("/api/v1/orders", named).status_code == 201


def test_stock_does_not_move_away_from_what_refers_to_it(superuser, owner, stranger, stock, order):
    path, elsewhere = f"/api/v1/stocks/{stock.pk}", {"user_id": stranger.user.pk}
    for _ in range(2):
        answer = superuser.patch(path, elsewhere)
        expected = {"user_id": ["This stock is used by orders of its owner."]}
        assert (answer.status_code, answer.json()["errors"]) == (400, expected)
        order.delete()  # it may be restored
    stock.owner = stranger.user
    with pytest.raises(ValidationError, match="used by orders"):
        stock.full_clean()
    Order.all_objects.filter(pk=order.pk).purge()
    assert superuser.patch(path, elsewhere).status_code == 200


def test_creation_of_a_stock_is_undone_with_what_refers_to_it(superuser, owner):
    made = owner.post("/api/v1/stocks", {"name": "AAPL", "price": 1, "quantity": 1})
    order = make_order(owner.user, stock_id=made.json()["id"])
    undo = {"request_id": made.headers["X-Request-ID"]}
    assert superuser.post("/api/v1/admin/audit-logs/undo", undo).status_code == 200
    assert statuses(owner, order) == [404]


@pytest.mark.parametrize("natural", [[], ["--natural-foreign"], ["--natural-foreign", "--natural-primary"]])
def test_fixture_tells_stocks_with_one_key_apart(owner, make_stock, tmp_path, natural):
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


def test_truth_value_is_false_where_nothing_is_said(owner, stock):
    values = order_values(owner.user, stock_id=stock.pk)
    del values["is_open"]
    order = owner.post("/api/v1/orders", values).json()
    assert order["is_open"] is False
    path = f"/api/v1/orders/{order['id']}"
    assert owner.patch(path, {"is_open": True}).json()["is_open"] is True
    assert owner.put(path, values).json()["is_open"] is False
    assert owner.post("/api/v1/orders", values | {"is_open": None}).status_code == 400


@pytest.mark.parametrize("text", ["a\nb", "a\tb", "a\u202eb", "a\u200bb", "a\x07b"])
def test_short_text_is_one_line_of_what_is_seen(owner, text):
    answer = owner.post("/api/v1/items", {"title": text})
    assert (answer.status_code, list(answer.json()["errors"])) == (400, ["title"])


def test_texts_are_stored_and_searched_in_one_spelling(owner):
    made = owner.post("/api/v1/items", {"title": "Cafe\u0301", "description": "E\u0301t\u00e9\n\ttwo"}).json()
    assert (made["title"], made["description"]) == ("Café", "Été\n\ttwo")
    for text in ("CAFÉ", "cafe\u0301", "ÉTÉ"):
        assert owner.get("/api/v1/items", {"search": text}).json()["total"] == 1
    assert owner.get("/api/v1/items", {"title": "Cafe\u0301"}).json()["total"] == 1
    assert list(owner.post("/api/v1/items", {"title": "x", "description": "\x07"}).json()["errors"]) == ["description"]


# Slugs


def test_slugs_of_rows_made_together_are_free_ones(db):
    make_category(name="Garden")
    made = Category.objects.bulk_create([Category(name=name) for name in ("Garden", "Garden", "", "日本", "Pond")])
    assert [row.slug for row in made] == ["garden-2", "garden-3", "category", "category-2", "pond"]


def test_slug_that_somebody_else_took_meanwhile_is_tried_again(db, monkeypatch):
    make_category(name="Garden")
    found, asked = Category._namesakes, []

    def too_early(rows, slugs):
        asked.append(slugs)
        return {None: set()} if len(asked) == 1 else found(rows, slugs)

    monkeypatch.setattr(Category, "_namesakes", staticmethod(too_early))
    assert make_category(name="Garden").slug == "garden-2"


def test_slug_stays_and_is_made_anew_where_it_is_emptied(superuser):
    category = make_category(name="Garden")
    path = f"/api/v1/categories/{category.pk}"
    assert superuser.patch(path, {"name": "Pond"}).json()["slug"] == "garden"
    assert superuser.put(path, {"name": "Pond"}).json()["slug"] == "pond"
    assert superuser.patch(path, {"slug": "lake"}).json()["slug"] == "lake"
    assert superuser.post("/api/v1/categories", {"name": "Lake", "slug": "lake"}).json()["errors"] == {
        "slug": ["Slug already in use"]
    }


def test_many_of_one_name_get_a_slug_each(db):
    made = Category.objects.bulk_create([Category(name="Garden") for _ in range(120)])
    assert len({row.slug for row in made}) == 120
    assert made[98].slug == "garden-99"


# JSON


def nested(depth):
    return [nested(depth - 1)] if depth else []


@pytest.mark.parametrize(
    "value", [10**19, -(10**30), 1e19, "a\0b", {"a\0": 1}, [{"a": [10**25]}], nested(60)],
)  # fmt: skip
def test_json_that_cannot_be_kept_is_refused(owner, value):
    answer = owner.post("/api/v1/notes", {"data": value})
    assert (answer.status_code, list(answer.json()["errors"])) == (400, ["data"])


@pytest.mark.parametrize("text", ["NaN", "1e400", "[Infinity]", "9" * 40, r'"\ud800"'])
def test_value_that_json_does_not_have_is_refused(owner, text):
    answer = owner.generic("POST", "/api/v1/notes", f'{{"data": {text}}}', content_type="application/json")
    assert (answer.status_code, list(answer.json()["errors"])) == (400, ["data"])


@pytest.mark.parametrize("value", [1.5, 2**53 + 1, True, "ü", [], {}, {"a": [None, 0.1, {"b": "c"}]}, nested(40)])
def test_json_comes_back_as_it_was_sent(owner, value):
    row = owner.post("/api/v1/notes", {"data": value}).json()
    assert row["data"] == value
    assert owner.get(f"/api/v1/notes/{row['id']}").json()["data"] == value


def test_change_of_json_is_undone(owner, superuser):
    note = make_note(owner.user, data={"a": 1})
    changed = owner.patch(f"/api/v1/notes/{note.pk}", {"data": {"b": [2]}})
    answer = superuser.post("/api/v1/admin/audit-logs/undo", {"request_id": changed.headers["X-Request-ID"]})
    assert answer.status_code == 200
    assert owner.get(f"/api/v1/notes/{note.pk}").json()["data"] == {"a": 1}


# What anybody may read


def test_public_rows_are_read_without_an_account_but_not_their_history(anonymous, owner):
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
    made = {str(make_gadget(owner.user, weight=number or None).pk) for number in range(5)}
    seen, link = [], f"/api/v1/gadgets?cursor=&size=2&sort_by={sort}"
    while link:
        page = owner.get(link).json()
        seen += [item["id"] for item in page["items"]]
        link = page["links"]["next"]
    assert (set(seen), len(seen)) == (made, 5)


# The admin's forms


@pytest.fixture
def browser(superuser):
    client = Client()  # whose forms look each reference up by a query of its own, as Django's do
    client.force_login(superuser.user)
    return client


AWKWARD = [
    {},
    {"note": "", "homepage": None, "weight": 0.1 + 0.2, "data": {}},
    {"note": " a\n\r\nb ", "homepage": "https://EXAMPLE.com/?", "data": [], "code": "a b ", "title": " x\ty"},
    {"seen_at": "2026-01-02T03:04:05.678901Z", "built_on": "0999-01-01", "price": "0.0001", "data": {"ü": "\r\n"}},
]


@pytest.mark.parametrize("values", AWKWARD)
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
def test_json_is_saved_as_it_is(browser, owner, value):
    note = make_note(owner.user, data=value if value is not None else {"a": None})
    path = f"/admin/notes/note/{note.pk}/change/"
    form = filled_form(browser.get(path).content.decode())
    assert browser.post(path, form).status_code == 302
    assert (Note.objects.get(pk=note.pk).data, Note.objects.get(pk=note.pk).version) == (note.data, 1)
    for typed in ("[]", "{}", "0"):
        assert browser.post(path, form | {"data": typed}).status_code == 302
        assert str(Note.objects.get(pk=note.pk).data) == typed


def test_odd_values_are_refused_in_the_admin(browser, owner):
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
