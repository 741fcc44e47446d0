from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from records.scaffold.api_code import APICode
from records.scaffold.errors import SpecificationError
from records.scaffold.model_code import cascading_targets
from records.scaffold.naming import Names
from records.scaffold.project import SETTINGS, URLS, addition, has_ruff
from records.scaffold.reader import read_fields
from records.scaffold.resource import Resource

OPTIONS = {
    "soft-delete": ("is_soft", "Deleted rows can be restored; without it, deleting is final."),
    "searchable": ("is_searchable", "Search in texts, ranges of numbers and dates, sorting by every indexed column."),
    "admin": ("is_managed", "Columns, filters and search in the admin, beyond its form."),
    "slug": ("is_slugged", "A unique slug, derived from the title or the name."),
    "public": ("is_public", "Everyone may read, without an account too."),
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
        parser.add_argument("--plural", default="", help="The plural, if the regular one is wrong: --plural staff.")
        parser.add_argument("--dry-run", action="store_true", help="Show the whole change, and write nothing.")

    def handle(self, *args: Any, name: str, fields: list[str], plural: str, dry_run: bool, **options: Any) -> None:
        chosen = {destination: options[destination] for destination, _ in OPTIONS.values()}
        try:
            resource = Resource(Names(name, plural), read_fields(fields), **chosen)
            change = addition(resource)
        except SpecificationError as error:
            raise CommandError(f"{error}\nNothing was written.") from None
        if dry_run:
            self.stdout.write(change.diff(), ending="")
            return
        change.apply()
        names = resource.names
        self.stdout.write(f"Created {name}: {names.app}/ with {len(change.files) - 2} files, in {SETTINGS} and {URLS}.")
        self.stdout.write(f"  /api/v1/{names.route}: {', '.join(APICode(resource).fields)}")
        self.stdout.write(f"  /admin/{names.app}/{name.lower()}/")
        for label in hidden_targets(resource):
            self.stdout.write(f"  Only staff see {label}, and only they can refer to it: see --public.")
        for target in cascading_targets(resource):
            self.stdout.write(f"  Deleting {target} deletes its {names.verbose_plural} too.")
        if not has_ruff():
            self.stdout.write("  The code is not formatted: ruff is not installed. make format does it.")
        self.stdout.write(
            f"Next: manage.py migrate; make test ARGS={names.app}. Undo: manage.py removeresource {name}."
        )


def hidden_targets(resource: Resource) -> list[str]:
    """Return the labels of the relations' targets that the owners of rows cannot see, and so not refer to."""
    targets = [field.target for field in resource.relations if resource.owner]
    return [target._meta.label for target in targets if not target.is_public and target.owned_by is None]
