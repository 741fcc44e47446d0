"""Alice and Bob with a stock each, for a database in which nobody is yet."""

from decimal import Decimal

from django.conf import settings
from django.db import migrations
from django.db.models import Count

# Nobody logs in with it: Django refuses every password behind this prefix.
UNUSABLE_PASSWORD = "!default"

DEFAULTS = [
    (
        {"username": "alice", "email": "alice@example.com", "name": "Alice", "gender": "Female", "age": 25},
        {"name": "AAPL", "quantity": 10, "price": Decimal("175.50")},
    ),
    (
        {"username": "bob", "email": "bob@example.com", "name": "Bob", "gender": "Male", "age": 30},
        {"name": "GOOG", "quantity": 5, "price": Decimal("140.25")},
    ),
]


def seed(apps, schema_editor) -> None:
    User, Stock = apps.get_model("users", "User"), apps.get_model("stocks", "Stock")
    alias = schema_editor.connection.alias
    if not settings.SEED_DEFAULTS or User.objects.using(alias).exists():
        return
    for person, stock in DEFAULTS:
        owner = User.objects.using(alias).create(**person, password=UNUSABLE_PASSWORD)
        Stock.objects.using(alias).create(owner=owner, **stock)


def remove_untouched(apps, schema_editor) -> None:
    User, Stock = apps.get_model("users", "User"), apps.get_model("stocks", "Stock")
    alias = schema_editor.connection.alias
    for person, stock in DEFAULTS:
        untouched = {"version": 1, "deleted_at": None}
        owners = User.objects.using(alias).annotate(count_of_stocks=Count("stocks"))
        owner = owners.filter(**person, **untouched, password=UNUSABLE_PASSWORD, count_of_stocks=1).first()
        if owner is not None and Stock.objects.using(alias).filter(owner=owner, **stock, **untouched).exists():
            owner.delete()


class Migration(migrations.Migration):
    dependencies = [("stocks", "0001_stocks")]

    operations = [migrations.RunPython(seed, remove_untouched)]
