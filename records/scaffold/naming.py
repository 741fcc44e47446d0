"""The names of a resource: of its model, app, table and route, and in sentences."""

import builtins
import importlib.util
import keyword
import re
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from django.apps import apps
from django.conf import settings
from django.core.management.base import CommandError
from django.urls import resolve
from rest_framework.serializers import BaseSerializer

from records.rest.views import UnknownPathView
from records.scaffold.errors import SpecificationError

#: Names that columns and tables cannot have: reserved by PostgreSQL (appendix C of its manual) or by SQLite
#: (https://sqlite.org/lang_keywords.html).
SQL_RESERVED = frozenset(
    """
    add all alter analyse analyze and any array as asc asymmetric authorization autoincrement between binary both case
    cast check collate collation column commit concurrently constraint create cross current_catalog current_date
    current_role current_schema current_time current_timestamp current_user default deferrable delete desc distinct do
    drop else end escape except exists false fetch for foreign freeze from full grant group having ilike in index
    initially inner insert intersect into is isnull join lateral leading left like limit localtime localtimestamp
    natural not nothing notnull null offset on only or order outer overlaps placing primary references returning right
    select session_user set similar some symmetric table tablesample then to trailing transaction true union unique
    update user using values variadic verbose when where window with
    """.split()  # noqa: SIM905
)
#: Reserved words that may name a resource, because its table has the plural.
NOUNS = frozenset({"case", "check", "column", "constraint", "grant", "index", "limit", "order", "transaction"})
MAX_NAME_LENGTH = 50
GENERATED_SUFFIXES = ("Serializer", "FilterSet", "ViewSet", "Admin")


@cache
def _inflection() -> Any:
    try:
        import inflect
    except ImportError:
        raise CommandError("The package inflect is missing: pip install -r requirements-dev.txt") from None
    return inflect.engine()


def with_article(noun: str) -> str:
    """Return "an order" for "order"."""
    return str(_inflection().a(noun))


@dataclass(frozen=True)
class Names:
    """The names that follow from the name of a model, and from its plural where the regular one is wrong."""

    model: str
    plural: str = ""

    @cached_property
    def words(self) -> list[str]:
        return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])[0-9]*|[A-Z][a-z0-9]*", self.model)]

    @cached_property
    def plural_words(self) -> list[str]:
        if self.plural:
            return re.split("[-_ ]", self.plural)
        return [*self.words[:-1], str(_inflection().plural_noun(self.words[-1]))]

    @property
    def verbose(self) -> str:
        return " ".join(self.words)

    @property
    def verbose_plural(self) -> str:
        return " ".join(self.plural_words)

    @property
    def app(self) -> str:
        """The name of the app and of the table."""
        return "_".join(self.plural_words)

    @property
    def route(self) -> str:
        return "-".join(self.plural_words)

    @property
    def variable(self) -> str:
        return "_".join(self.words)

    @property
    def config(self) -> str:
        return "".join(word.capitalize() for word in self.plural_words) + "Config"

    @property
    def one(self) -> str:
        return with_article(self.verbose)


def check_names(names: Names) -> None:
    """Raise SpecificationError if a name is invalid or taken."""
    _check_model_name(names)
    _check_plural(names)
    _check_project(names)
    for name in (names.variable, names.app):
        if name in SQL_RESERVED - NOUNS or keyword.iskeyword(name):
            language = "SQL" if name in SQL_RESERVED else "Python"
            raise SpecificationError(f"'{name}' is reserved by {language}.", names.model)


def _check_model_name(names: Names) -> None:
    name = names.model
    match = re.match("[A-Z]?[A-Za-z0-9]*", name, re.ASCII)
    if not name or not match or match.end() < len(name) or not name[0].isupper():
        position = match.end() if match and name[:1].isupper() else 0
        raise SpecificationError(
            "A resource is named like a class: OrderLine, in ASCII letters and digits.", name, position
        )
    if len(name) > MAX_NAME_LENGTH:
        raise SpecificationError(f"This name is longer than {MAX_NAME_LENGTH} characters.", name, MAX_NAME_LENGTH)
    if keyword.iskeyword(name) or hasattr(builtins, name):
        raise SpecificationError(f"'{name}' is reserved by Python.", name)


def _check_plural(names: Names) -> None:
    if not names.plural:
        if names.words[-1].endswith("s") and names.verbose_plural.endswith("ss"):
            singular = names.model.removesuffix("s")
            raise SpecificationError(f"Models are named in the singular: {singular}?", names.model, len(singular))
        return
    match = re.match("[a-z][a-z0-9]*([-_ ][a-z][a-z0-9]*)*", names.plural, re.ASCII)
    if not match or match.end() < len(names.plural):
        message = "A plural has lower case words, separated by - or _: staff, order-lines."
        raise SpecificationError(message, names.plural, match.end() if match else 0)
    if len(names.plural) > MAX_NAME_LENGTH:
        message = f"This plural is longer than {MAX_NAME_LENGTH} characters."
        raise SpecificationError(message, names.plural, MAX_NAME_LENGTH)


def _check_project(names: Names) -> None:
    """Raise SpecificationError if the project has one of the names already."""
    if taken := _taken_model(names) or _taken_package(names) or _taken_class(names):
        raise SpecificationError(taken, names.model)
    view: Any = resolve(f"/api/v1/{names.route}").func
    if getattr(view, "cls", None) is not UnknownPathView:
        raise SpecificationError(f"There is a route /api/v1/{names.route} already.", names.model)


def _taken_model(names: Names) -> str:
    for model in apps.get_models(include_auto_created=True):
        if model._meta.model_name == names.model.lower():
            return f"There is a model {model._meta.label} already."
        if model._meta.db_table == names.app:
            return f"There is a table '{names.app}' already, of {model._meta.label}."
    return ""


def _taken_package(names: Names) -> str:
    if any(config.label == names.app for config in apps.get_app_configs()):
        return f"There is an app '{names.app}' already."
    if Path(settings.BASE_DIR, names.app).exists() or importlib.util.find_spec(names.app):
        return f"There is a package '{names.app}' already, which an app of this name would hide."
    return ""


def _taken_class(names: Names) -> str:
    classes = _class_names()
    taken = (f"{names.model}{suffix}" for suffix in GENERATED_SUFFIXES)
    return next((f"There is a class {name} already." for name in taken if name in classes), "")


def _class_names() -> set[str]:
    """Return the names of serializers, which name the schemas of OpenAPI, and of the bases of generated classes."""
    names: set[str] = set()
    classes: list[Any] = [BaseSerializer]
    while classes:
        current = classes.pop()
        names.add(current.__name__)
        classes += current.__subclasses__()
    bases = ("Record", "SoftDeletable", "Strict", "ReadOnly")
    return names | {f"{base}{suffix}" for base in bases for suffix in ("FilterSet", "ViewSet", "Admin")}
