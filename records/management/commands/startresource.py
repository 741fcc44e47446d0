from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from records.scaffold.fields import SpecificationError, read_fields
from records.scaffold.project import SETTINGS, URLS, addition, has_ruff
from records.scaffold.resource import Resource

OPTIONS = {
    "soft-delete": ("is_soft", "Deleted rows can be restored; without it, deleting is final."),
    "searchable": ("is_searchable", "Search in texts, ranges of numbers and dates, sorting by whatever has an index."),
    "admin": ("is_managed", "Columns, filters and search in the admin, beyond its form."),
    "slug": ("is_slugged", "A unique slug, made from the title or the name."),
    "public": ("is_public", "Anybody may read, without an account too."),
}


class Command(BaseCommand):
    help = (
        "Write an app for a new resource and register it: startresource Task title:str due_date:date? "
        "'status:choice(open,done)=open' owner:user"
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", help="The model, in the singular: OrderLine.")
        parser.add_argument(
            "fields",
            nargs="*",
            metavar="field:type",
            help="str, text, int, float, decimal, bool, datetime, date, uuid, json, email, url, choice(a,b), "
            "fk(app.Model); owner:user for rows that belong to users. Behind it ? optional, ! unique, =default.",
        )
        for name, (destination, text) in OPTIONS.items():
            parser.add_argument(f"--{name}", dest=destination, action="store_true", help=text)
        parser.add_argument("--dry-run", action="store_true", help="Show the whole change, and write nothing.")

    def handle(self, *args: Any, name: str, fields: list[str], dry_run: bool, **options: Any) -> None:
        chosen = {destination: options[destination] for destination, _ in OPTIONS.values()}
        try:
            resource = Resource(name, read_fields(fields), **chosen)
        except SpecificationError as error:
            raise CommandError(f"{error}\nNothing was written.") from None
        change = addition(resource)
        if dry_run:
            self.stdout.write(change.diff(), ending="")
            return
        change.apply()
        self.stdout.write(f"Made {name}: {resource.app}/ with {len(change.files) - 2} files, in {SETTINGS} and {URLS}.")
        self.stdout.write(f"  /api/v1/{resource.prefix}: {', '.join(resource.api_fields)}")
        self.stdout.write(f"  /admin/{resource.app}/{resource.model_name}/")
        for target in resource.hidden_targets:
            self.stdout.write(f"  Only staff see {target}, and only they can refer to it: see --public.")
        for taker in resource.takers:
            self.stdout.write(f"  Deleting {taker} deletes its {resource.verbose_plural} too.")
        if not has_ruff():
            self.stdout.write("  The code is not formatted: ruff is not installed. make format does it.")
        self.stdout.write(
            f"Next: manage.py migrate; make test ARGS={resource.app}. Back: manage.py removeresource {name}."
        )
