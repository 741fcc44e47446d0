import records.db.groups
from django.db import migrations, models
from records.db.migrating import AddIndexInUse

LIVE = models.Q(("deleted_at", None))


class Migration(migrations.Migration):
    atomic = False

    dependencies = [
        ("stocks", "0004_symbols_with_more_signs"),
    ]

    operations = [
        *[
            AddIndexInUse(
                model_name="stock",
                index=models.Index(condition=LIVE, fields=["name", column, "id"], name=f"stocks_name_{column}"),
            )
            for column in ("price", "quantity", "created_at")
        ],
        AddIndexInUse(
            model_name="stock",
            index=models.Index(
                records.db.groups.UTCDay("created_at"), models.F("id"), condition=LIVE, name="stocks_day"
            ),
        ),
    ]
