"""Hard deletion of records: the audit log contains their values and every row deleted or changed with them."""

import uuid

import pytest
from django.db import connection, models
from django.test.utils import CaptureQueriesContext, isolate_apps

from records.audit.models import AuditEntry
from records.models import Record

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def kinds():
    with isolate_apps("records"):

        class Shelf(Record):
            id = models.UUIDField(primary_key=True, default=uuid.uuid4)
            name = models.CharField(max_length=20)

            class Meta:
                app_label, db_table = "records", "test_shelves"

        class Book(Record):
            title = models.CharField(max_length=20)
            shelf = models.ForeignKey(Shelf, models.CASCADE)

            class Meta:
                app_label, db_table = "records", "test_books"

        class Label(Record):
            text = models.CharField(max_length=20)
            book = models.ForeignKey(Book, models.SET_NULL, null=True)

            class Meta:
                app_label, db_table = "records", "test_labels"

        created = [Shelf, Book, Label]
        with connection.schema_editor() as editor:
            for model in created:
                editor.create_model(model)
        yield created
        with connection.schema_editor() as editor:
            for model in reversed(created):
                editor.delete_model(model)


@pytest.fixture
def shelf(kinds):
    return kinds[0].objects.create(name="Poetry")


@pytest.fixture
def book(kinds, shelf):
    return kinds[1].objects.create(title="Sonnets", shelf=shelf)


def logged_changes(row_or_key, model):
    entries = AuditEntry.objects.of_row(model, getattr(row_or_key, "pk", row_or_key)).order_by("id")
    return [(entry.action, entry.changes) for entry in entries]


@pytest.mark.parametrize("delete", [lambda row: row.delete(), lambda row: type(row).objects.filter(pk=row.pk).delete()])
def test_deletion_is_permanent_and_logged_with_values(kinds, shelf, delete):
    key = shelf.pk
    assert delete(shelf) == (1, {"records.Shelf": 1})
    assert not kinds[0].objects.exists()
    assert logged_changes(key, kinds[0])[1:] == [
        ("delete", {"created_at": logged_changes(key, kinds[0])[1][1]["created_at"], "name": ["Poetry", None]})
    ]


def test_cascading_deletion_is_logged(kinds, shelf, book):
    shelf.delete()
    assert [action for action, _ in logged_changes(book, kinds[1])] == ["create", "delete"]
    assert logged_changes(book, kinds[1])[1][1]["shelf_id"] == [str(shelf.pk), None]


def test_reference_set_to_null_is_logged(kinds, book):
    label = kinds[2].objects.create(text="lent", book=book)
    book.delete()
    label.refresh_from_db()
    assert (label.book_id, label.version) == (None, 2)
    assert logged_changes(label, kinds[2])[1] == ("update", {"book_id": [book.pk, None]})


def test_purge_erases_logged_values(kinds, shelf, book):
    kinds[0].objects.all().purge()
    assert logged_changes(shelf, kinds[0]) == [("create", {}), ("purge", {})]
    assert logged_changes(book, kinds[1]) == [("create", {}), ("purge", {})]


def test_deletion_needs_a_constant_number_of_queries(kinds, shelf):
    counts = []
    for number in (2, 30):
        books = kinds[1].objects.bulk_create([kinds[1](title=str(n), shelf=shelf) for n in range(number)])
        kinds[2].objects.bulk_create([kinds[2](text="lent", book=book) for book in books])
        with CaptureQueriesContext(connection) as queries:
            kinds[1].objects.all().delete()
        counts.append(len(queries))
    assert counts[0] == counts[1]


def test_changes_of_a_row_with_a_uuid_are_logged(kinds, shelf):
    kinds[0].objects.update(name="Prose")
    stale = kinds[0].objects.get()
    kinds[0].objects.filter(pk=shelf.pk).update(name=models.functions.Upper("name"))
    stale.name = "Drama"
    stale.save()
    assert [changes for _, changes in logged_changes(shelf, kinds[0])][1:] == [
        {"name": ["Poetry", "Prose"]}, {"name": ["Prose", "PROSE"]}, {"name": ["PROSE", "Drama"]},
    ]  # fmt: skip
