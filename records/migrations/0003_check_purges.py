from django.db import migrations

from records.append_only import CheckPurges


class Migration(migrations.Migration):
    dependencies = [("records", "0002_refused_views")]

    operations = [CheckPurges()]
