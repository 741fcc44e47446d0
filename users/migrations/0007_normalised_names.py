"""Names and texts about people in NFC, as they are written from now on."""

import unicodedata

from django.db import migrations
from django.db.models import F

SHORTEST = 3


def normalise(apps, schema_editor):
    users = apps.get_model("users", "User").objects.using(schema_editor.connection.alias)
    # Texts of ASCII letters are in NFC.
    texts = users.filter(name__regex="[^ -~]") | users.filter(bio__regex="[^\t-~]")
    others = [
        row
        for row in texts.values_list("pk", "name", "bio").iterator()
        if any(text and not unicodedata.is_normalized("NFC", text) for text in row[1:])
    ]
    for pk, *before in others:
        name, bio = (text and unicodedata.normalize("NFC", text) for text in before)
        if name and len(name) < SHORTEST:
            name = before[0]  # E, an accent and a letter were three characters
        users.filter(pk=pk).update(name=name, bio=bio, version=F("version") + 1)


class Migration(migrations.Migration):
    dependencies = [("users", "0006_capitals_of_every_script")]

    # What was composed before cannot be told from what was not: it stays as it is.
    operations = [migrations.RunPython(normalise, migrations.RunPython.noop)]
