from typing import Any

from django.apps import apps
from django.contrib.contenttypes.models import ContentType
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import Error, connection

from records.db.keys import uuid7
from records.models import Record
from records.scaffold.project import importers, own_apps, removal


class Command(BaseCommand):
    help = "Remove what startresource wrote, and the table, which must be empty."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", help="The model: OrderLine.")
        parser.add_argument("--dry-run", action="store_true", help="Show the whole change, and write nothing.")

    def handle(self, *args: Any, name: str, dry_run: bool, **options: Any) -> None:
        model = self._model(name)
        app = model._meta.app_label
        if users := importers(app):
            raise CommandError(f"{app} is used by {', '.join(map(str, users))}. Nothing was removed.")
        try:
            has_table = model._meta.db_table in connection.introspection.table_names()
            count = model.all_objects.count() if has_table else 0
        except Error as error:
            reason = " ".join(str(error).split())
            raise CommandError(f"Cannot check whether the table is empty: {reason} Nothing was removed.") from None
        if count:
            rows = f"{count:,} row{'s' * (count != 1)}, deleted ones included"
            raise CommandError(f"The table {model._meta.db_table} has {rows}. Nothing was removed.")
        change = removal(app)
        if dry_run:
            self.stdout.write(change.diff(), ending="")
            return
        if has_table:
            call_command("migrate", app, "zero", verbosity=0)
            ContentType.objects.filter(app_label=app).delete()
        try:
            change.apply()
        except BaseException:
            if has_table:
                call_command("migrate", app, verbosity=0)
            raise
        self.stdout.write(f"Removed {name}: {app}/ and what registered it{', and its table' if has_table else ''}.")

    @staticmethod
    def _model(name: str) -> Any:
        models = (model for app in own_apps() for model in apps.all_models[app].values())
        model = next((model for model in models if model.__name__ == name), None)
        if model is None:
            raise CommandError(f"There is no resource {name}.")
        app = model._meta.app_label
        if not issubclass(model, Record) or getattr(model._meta.pk, "default", None) is not uuid7:
            raise CommandError(f"startresource did not create {name}.")
        if len(apps.all_models[app]) > 1:
            raise CommandError(f"{app} has more models than {name} by now: take it out by hand.")
        return model
