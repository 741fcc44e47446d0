import records.db.groups
from django.db import migrations, models
from records.db.constraints import ShortSearchIndex
from records.db.migrating import AddIndexInUse


class Migration(migrations.Migration):
    atomic = False

    dependencies = [
        ("users", "0008_help_texts"),
    ]

    operations = [
        AddIndexInUse(
            model_name="user",
            index=models.Index(
                records.db.groups.UTCDay("created_at"),
                models.F("id"),
                condition=models.Q(("deleted_at", None)),
                name="users_day",
            ),
        ),
        AddIndexInUse(
            model_name="user",
            index=ShortSearchIndex(fields=["username", "email", "name"], name="users_short_search"),
        ),
    ]
