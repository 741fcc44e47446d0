"""A resource as a command line asks for it: whether it can be, and all that its templates are filled with."""

import builtins
import importlib.util
import json
import keyword
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import inflect
from django.apps import apps
from django.conf import settings
from django.db import models
from django.urls import resolve
from django.utils.text import camel_case_to_spaces, capfirst
from rest_framework.serializers import BaseSerializer

from records.models import Record
from records.models.relations import cascades_delete
from records.rest.pagination import RecordPagination
from records.rest.views import ReadOnlyViewSet, UnknownPathView
from records.scaffold.fields import LONGEST_NAME, SLUG, SQL_RESERVED, Field, SpecificationError, source

#: Reserved words that may be the name of a resource: its table is called by the plural.
NOUNS = frozenset({"case", "check", "column", "constraint", "grant", "index", "limit", "order", "transaction"})
LONGEST_INDEX = models.Index.max_name_length
LONGEST_CONSTRAINT = 63  # of PostgreSQL's identifiers
COMPARED = {
    "gt": {"number": "More than this {}.", "time": "Later than this {}."},
    "gte": {"number": "This {} or more.", "time": "This {} or later."},
    "lt": {"number": "Less than this {}.", "time": "Earlier than this {}."},
    "lte": {"number": "This {} or less.", "time": "This {} or earlier."},
}

#: What makes a new one of them for each row.
EMPTY = {"{}": "dict", "[]": "list"}

_INFLECT = inflect.engine()


def plural(words: list[str]) -> list[str]:
    """Of a noun of several words, such as `order line`: the last one's."""
    return [*words[:-1], _INFLECT.plural_noun(words[-1])]


def words_of(name: str) -> list[str]:
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])[0-9]*|[A-Z][a-z0-9]*", name)]


def app_of(name: str) -> str:
    """The app, and the table, of the model of this name."""
    return "_".join(plural(words_of(name)))


@dataclass
class Filter:
    name: str
    field: Field
    kind: str
    arguments: str
    #: For tests, in Python: what is asked for, what it finds, and what it does not.
    example: tuple[str, str, str] | None = None


@dataclass
class Resource:
    name: str
    fields: list[Field]
    is_soft: bool = False
    is_searchable: bool = False
    is_managed: bool = False
    is_slugged: bool = False
    is_public: bool = False

    def __post_init__(self) -> None:
        self._check_name()
        self._check_clashes()
        if self.is_slugged:
            self._add_slug()
        self._check_fields()
        self._check_relations()

    # Names

    @cached_property
    def words(self) -> list[str]:
        return words_of(self.name)

    @property
    def verbose(self) -> str:
        return " ".join(self.words)

    @cached_property
    def verbose_plural(self) -> str:
        return " ".join(plural(self.words))

    @cached_property
    def app(self) -> str:
        return app_of(self.name)

    @property
    def table(self) -> str:
        return self.app

    @property
    def prefix(self) -> str:
        return self.app.replace("_", "-")

    @property
    def variable(self) -> str:
        return "_".join(self.words)

    @property
    def one(self) -> str:
        return _INFLECT.a(self.verbose)

    # Fields

    @property
    def owner(self) -> Field | None:
        return next((each for each in self.fields if each.is_owner), None)

    @property
    def own_fields(self) -> list[Field]:
        """All but the owner."""
        return [each for each in self.fields if not each.is_owner]

    @property
    def relations(self) -> list[Field]:
        return [each for each in self.own_fields if each.is_relation]

    @property
    def choices(self) -> list[Field]:
        return [each for each in self.fields if each.choices]

    @property
    def searched(self) -> list[str]:
        return [each.name for each in self.fields if each.kind.is_searched]

    @property
    def slug_source(self) -> str:
        texts = [each.name for each in self.fields if each.kind.name in {"str", "text"}]
        return next((name for name in ("title", "name") if name in texts), "")

    @property
    def title(self) -> str:
        """The column that a row is called by."""
        names = [each.name for each in self.fields if each.kind.is_searched and not each.is_optional]
        short = [each.name for each in self.fields if each.name in names and each.kind.is_indexed]
        return self.slug_source if self.slug_source in names else next(iter(short), "")

    def _add_slug(self) -> None:
        if not self.slug_source:
            raise SpecificationError("--slug makes a slug from a title or a name, and this has neither as str or text.")
        given = [each for each in self.fields if each.name == "slug"]
        for each in given:
            if each.kind.name != "str" or each.default is not None:
                raise SpecificationError("With --slug, the slug is a str, and no other default than its own.")
            self.fields[self.fields.index(each)] = self._slug
        if not given:
            position = [each.name for each in self.fields].index(self.slug_source)
            self.fields.insert(position + 1, self._slug)

    @cached_property
    def _slug(self) -> Field:
        return Field("slug", SLUG, is_unique=True, default='""')

    # Whether it can be

    def _check_name(self) -> None:
        spot = re.match("[A-Z]?[A-Za-z0-9]*", self.name, re.ASCII)
        if not self.name or not spot or spot.end() < len(self.name) or not self.name[0].isupper():
            raise SpecificationError(
                "A resource is called like a class: OrderLine, in ASCII letters and digits.",
                self.name,
                spot.end() if spot and self.name[:1].isupper() else 0,
            )
        if len(self.name) > LONGEST_NAME:
            raise SpecificationError(f"This name is longer than {LONGEST_NAME} characters.", self.name, LONGEST_NAME)
        if keyword.iskeyword(self.name) or hasattr(builtins, self.name):
            raise SpecificationError(f"'{self.name}' is reserved by Python.", self.name)
        if self.words[-1].endswith("s") and self.verbose_plural.endswith("ss"):
            singular = self.name.removesuffix("s")
            raise SpecificationError(f"Models are called in the singular: {singular}?", self.name, len(singular))

    def _check_fields(self) -> None:
        seen: dict[str, str] = {}
        for each in self.fields:
            for name in {each.name, each.attname, each.api_name}:
                if name in seen:
                    twice = f"'{name}' is there twice" if each.name == seen[name] else f"both are '{name}'"
                    fields = "" if each.name == seen[name] else f"The fields {seen[name]} and {each.name} clash: "
                    raise SpecificationError(f"{fields}{twice}.", each.name if not fields else "")
            seen |= dict.fromkeys((each.name, each.attname, each.api_name), each.name)
        if not self.own_fields:
            raise SpecificationError("A resource has fields: startresource Task title:str due_date:date? owner:user")
        if self.name in {name for _, name in self.model_imports}:
            raise SpecificationError(f"'{self.name}' is what the code of the model itself uses.", self.name)
        used = {name for _, name in self.model_imports if name} | {"models", "dt"}
        parameters = {each["name"] for each in RecordPagination().get_schema_operation_parameters(ReadOnlyViewSet())}
        parameters |= {"search", "is_deleted", settings.REST_FRAMEWORK["URL_FORMAT_OVERRIDE"]}
        filters = {each.name for each in self.filters}
        for name in seen:
            if name in used:
                raise SpecificationError(f"'{name}' is what the code of the model itself uses.")
            if name in parameters & filters:
                raise SpecificationError(f"'{name}' is a parameter of every list, and could not be filtered by.")

    def _check_relations(self) -> None:
        for each in self.relations:
            target = each.target
            if _is_owned(target) and not self.owner:
                name = target._meta.label
                raise SpecificationError(
                    f"{each.name}: rows of {name} belong to users, so these must too: add owner:user."
                )

    def _check_clashes(self) -> None:
        for model in apps.get_models(include_auto_created=True):
            if model._meta.model_name == self.name.lower():
                raise SpecificationError(f"There is a model {model._meta.label} already.", self.name)
            if model._meta.db_table == self.table:
                raise SpecificationError(f"There is a table '{self.table}' already, of {model._meta.label}.", self.name)
        if any(config.label == self.app for config in apps.get_app_configs()):
            raise SpecificationError(f"There is an app '{self.app}' already.", self.name)
        if Path(settings.BASE_DIR, self.app).exists() or importlib.util.find_spec(self.app):
            raise SpecificationError(
                f"There is a package '{self.app}' already, which an app of this name would hide.", self.name
            )
        found: Any = resolve(f"/api/v1/{self.prefix}").func
        if getattr(found, "cls", None) is not UnknownPathView:
            raise SpecificationError(f"There is a route /api/v1/{self.prefix} already.", self.name)
        for suffix in ("Serializer", "FilterSet", "ViewSet", "Admin"):
            if f"{self.name}{suffix}" in _known_classes():
                raise SpecificationError(f"There is a class {self.name}{suffix} already.", self.name)
        for name in (self.variable, self.app):
            if name in SQL_RESERVED - NOUNS or keyword.iskeyword(name):
                raise SpecificationError(
                    f"'{name}' is reserved by {'SQL' if name in SQL_RESERVED else 'Python'}.", self.name
                )

    # What the templates say of the model

    @property
    def bases(self) -> str:
        chosen = {"Slugged": self.is_slugged, "SoftDeletable": self.is_soft}
        return ", ".join(name for name, is_chosen in chosen.items() if is_chosen) or "Record"

    @cached_property
    def model_imports(self) -> list[tuple[str, str]]:
        """Module and name of each, but for those that are always there."""
        code = "\n".join([*self.columns, *self.constraints, *self.indexes])
        known = {
            "Decimal": "decimal", "UUID": "uuid", "uuid4": "uuid", "Q": "django.db.models",
            "timezone": "django.utils", "SearchIndex": "records.constraints", "Unique": "records.constraints",
            "deleted_index": "records.constraints", "live_index": "records.constraints",
            "plain_json": "records.constraints", "sort_index": "records.constraints",
            "LineField": "records.db.text", "LinesField": "records.db.text",
        }  # fmt: skip
        found = [(module, name) for name, module in known.items() if re.search(rf"(?<![\w.\"]){name}\b", code)]
        found += [("datetime", "")] if "dt." in code else []
        found += [("records.keys", "uuid7"), ("django.db", "models")]
        found += [
            ("records.models.slugs" if base == "Slugged" else "records.models", base) for base in self.bases.split(", ")
        ]
        found += [(each.target.__module__, each.target.__name__) for each in self.fields if each.is_relation]
        return list(dict.fromkeys(found))

    @property
    def import_lines(self) -> list[str]:
        """Sorted, as ruff has them: the standard library, packages, the house."""
        by_module: dict[str, list[str]] = {}
        for module, name in self.model_imports:
            by_module.setdefault(module, []).append(name)
        groups: list[list[str]] = [[], [], []]
        for module in sorted(by_module, key=lambda name: (name != "datetime", name)):
            names = sorted(by_module[module], key=lambda name: (not name.isupper(), name[0].islower(), name))
            line = "import datetime as dt" if module == "datetime" else f"from {module} import {', '.join(names)}"
            house = 0 if module in {"datetime", "decimal", "uuid"} else 1 if module.startswith("django") else 2
            groups[house].append(line)
        return [line for group in groups if group for line in (*group, "")][:-1]

    @property
    def json_defaults(self) -> list[tuple[str, str]]:
        """Function and value of defaults that each row needs a new one of."""
        return [
            (f"default_{each.name}", each.default)
            for each in self.fields
            if each.kind.name == "json" and each.default and each.default[0] in "[{" and len(each.default) > 2
        ]

    @cached_property
    def columns(self) -> list[str]:
        """But for the key and the slug."""
        return [f"{each.name} = {self._column(each)}" for each in self._in_order if each is not self._slug]

    @property
    def _in_order(self) -> list[Field]:
        return [*([self.owner] if self.owner else []), *self.own_fields]

    def _column(self, each: Field) -> str:
        arguments = []
        if each.is_relation:
            arguments += [each.target.__name__, f"on_delete=models.{self.on_delete(each)}"]
            arguments += [f'related_name="{self._related_name(each)}"', "db_index=False"]
        if each.choices:
            arguments += [f"max_length={max(map(len, each.choices))}", f"choices={each.enumeration}.choices"]
        arguments += [f"{name}={source(value)}" for name, value in each.kind.arguments.items()]
        if each.default is not None:
            defaults = dict.fromkeys(name for name, _ in self.json_defaults)
            made = f"default_{each.name}" if f"default_{each.name}" in defaults else each.default
            arguments.append(f"default={EMPTY.get(made, made)}")
        if each.is_optional:
            arguments += ["null=True", "blank=True"]
        arguments.append(f'help_text="{self.help_text(each)}"')
        return f"{each.kind.constructor}({', '.join(arguments)})"

    @staticmethod
    def on_delete(each: Field) -> str:
        """What belongs to people goes with them; what else is in use stays."""
        if each.is_optional:
            return "SET_NULL"
        goes = any(cascades_delete(column) for column in each.target._meta.concrete_fields)
        return "CASCADE" if goes or each.target.owned_by is not None else "PROTECT"

    def _related_name(self, each: Field) -> str:
        of_target = [other for other in self.fields if other.target is each.target]
        taken = {field.name for field in each.target._meta.get_fields()}
        taken |= {field.get_accessor_name() for field in each.target._meta.related_objects}
        is_first = each.is_owner or (len(of_target) == 1 and self.app not in taken)
        return self.app if is_first else f"{each.name}_{self.app}"

    def help_text(self, each: Field) -> str:
        if each.is_owner:
            return "The user to whom it belongs."
        if each.is_relation:
            return f"{each.label}: id of {_INFLECT.a(str(each.target._meta.verbose_name))}."
        hint = _either(each.choices) if each.choices else each.kind.hint
        return f"{each.label}: {hint}{'; unique' if each.is_unique else ''}."

    @property
    def constraints(self) -> list[str]:
        found = []
        for each in self.own_fields:
            if each.is_unique:
                # First what the message is about: it is also what is filtered and sorted by.
                names = [each.name, *(["owner"] if self.owner else [])]
                found.append(
                    f"Unique(fields={source_of_names(names)}, "
                    f'name="{self._named(each.name, "unique", longest=LONGEST_CONSTRAINT)}", '
                    f'violation_error_message="{each.label} already in use")'
                )
        return found + [
            f"models.CheckConstraint(condition=models.Q({each.name}__in={source_of_names(each.choices)}), "
            f'name="{self._named(each.name, "check", longest=LONGEST_CONSTRAINT)}", '
            f'violation_error_message="{each.label} must be {_either(each.choices)}.")'
            for each in self.choices
        ]

    @property
    def indexes(self) -> list[str]:
        live = "live_index" if self.is_soft else "sort_index"
        # A foreign key is also looked up for rows that are deleted.
        indexed = [each for each in self._in_order if self._is_indexed(each)]
        found = [(each.name, "sort_index" if each.is_relation else live) for each in indexed]
        lines = [f'{make}("{name}", name="{self._named(name)}")' for name, make in [*found, ("created_at", live)]]
        if self.is_soft:
            lines.append(f'deleted_index("{self._named("deleted")}")')
        if self.searched and (self.is_searchable or self.is_managed):
            lines.append(f'SearchIndex(fields={source_of_names(self.searched)}, name="{self._named("search")}")')
        return lines

    def _is_indexed(self, each: Field) -> bool:
        """Of its own: what is unique has the constraint's."""
        return not each.is_unique and (each.kind.sorts_rows_out or (self.is_searchable and each.kind.is_indexed))

    def _named(self, *parts: str, longest: int = LONGEST_INDEX) -> str:
        """A name that the database has not yet: PostgreSQL has one namespace for tables, indexes and constraints."""
        name = "_".join((self.table, *parts))
        if len(name) <= longest and name not in _names_in_the_database():
            return name
        return f"{name[: longest - 9]}_{sha256(name.encode()).hexdigest()[:8]}"

    @property
    def names(self) -> list[str]:
        """What Django would not guess of them."""
        lines = []
        if camel_case_to_spaces(self.name) != self.verbose:
            lines.append(f'verbose_name = "{self.verbose}"')
        if lines or self.verbose_plural != f"{self.verbose}s":
            lines.append(f'verbose_name_plural = "{self.verbose_plural}"')
        return lines

    @property
    def config(self) -> str:
        return "".join(word.capitalize() for word in self.app.split("_")) + "Config"

    @property
    def verbose_app(self) -> str:
        return capfirst(self.verbose_plural) if len(self.words) > 1 else ""

    @property
    def string(self) -> str:
        return f"self.{self.title}" if self.title else f'f"{self.verbose} {{self.pk}}"'

    # Of its views

    @property
    def serializer(self) -> str:
        return "OwnedSerializer" if self.owner else "RecordSerializer"

    @property
    def view(self) -> str:
        return "SoftDeletableViewSet" if self.is_soft else "RecordViewSet"

    @property
    def filter_base(self) -> str:
        return "SoftDeletableFilterSet" if self.is_soft else "RecordFilterSet"

    @property
    def filter_choices(self) -> bool:
        return any(each.kind == "ChoiceFilter" for each in self.filters)

    @cached_property
    def filters(self) -> list[Filter]:
        found = [made for each in self.own_fields for made in self._filters_of(each)]
        if self.owner:
            arguments = 'field_name="owner_id", help_text="Id of the user to whom it belongs."'
            found.append(Filter("user_id", self.owner, "IntegerFilter", arguments))
        return found

    def _filters_of(self, each: Field) -> Iterator[Filter]:
        kind, what = each.kind.filter, each.label.lower()
        if not kind and not each.is_relation:
            return
        if not (self.is_searchable or each.is_unique or each.kind.sorts_rows_out):
            return
        if each.is_relation:
            has_uuid = isinstance(each.target._meta.pk, models.UUIDField)
            text = f"Id of the {each.target._meta.verbose_name}."
            yield Filter(each.attname, each, "UUIDFilter" if has_uuid else "IntegerFilter", f'help_text="{text}"')
            return
        choices = f"choices={self.name}.{each.enumeration}.choices, " if each.choices else ""
        low, high = each.samples
        yield Filter(each.name, each, kind, f'{choices}help_text="Exactly this {what}."', (low, low, high))
        if not self.is_searchable:
            return
        examples = {"gt": (low, high, low), "gte": (high, high, low), "lt": (high, low, high), "lte": (low, low, high)}
        unit = "time" if each.kind.name in {"date", "datetime"} else "number"
        for lookup in each.kind.comparisons:
            text = COMPARED[lookup][unit].format(what)
            arguments = f'field_name="{each.name}", lookup_expr="{lookup}", help_text="{text}"'
            yield Filter(f"{each.name}__{lookup}", each, kind, arguments, examples[lookup])
        if each.kind.name == "datetime":
            arguments = f'field_name="{each.name}", help_text="{each.label} on that day (UTC)."'
            yield Filter(f"{each.name}__date", each, "DayFilter", arguments, (f"{low}[:10]", low, high))

    @property
    def filter_classes(self) -> list[str]:
        return sorted({each.kind for each in self.filters} | {self.filter_base})

    @property
    def sort_fields(self) -> list[str]:
        indexed = [each for each in self.own_fields if self._is_indexed(each) or each.is_unique]
        return ["id", *(each.attname for each in indexed if self.is_searchable), "created_at"]

    @property
    def api_fields(self) -> list[str]:
        names = [each.api_name for each in [*self.own_fields, *([self.owner] if self.owner else [])]]
        return ["id", *names, "created_at", "updated_at", "version"]

    # Of the admin

    @property
    def admin_columns(self) -> list[str]:
        shown = [each.name for each in self._in_order if each.kind.is_indexed]
        first = [self.title] if self.title in shown else []
        return [*(first or ["__str__"]), *[name for name in shown if name not in first][:5], "created_at"]

    @property
    def admin_filters(self) -> list[str]:
        return [each.name for each in self.fields if each.kind.name in {"bool", "choice"}]

    @property
    def admin_relations(self) -> list[str]:
        names = [each.name for each in self.fields if each.is_relation]
        return [name for name in names if name in self.admin_columns]

    # Of the command

    @property
    def takers(self) -> list[str]:
        """Whose deletion takes our rows along."""
        return [
            _INFLECT.a(str(each.target._meta.verbose_name))
            for each in self.relations
            if self.on_delete(each) == "CASCADE"
        ]

    @property
    def hidden_targets(self) -> list[str]:
        """What the owners of rows cannot refer to, because they do not see it."""
        closed = [each.target for each in self.relations if not each.target.is_public and each.target.owned_by is None]
        return [target._meta.label for target in closed if self.owner]

    # Of its tests

    @property
    def has_open_relations(self) -> bool:
        """Whether everybody sees what a row must refer to."""
        needed = [each.target for each in self.relations if not each.is_optional]
        return all(target.is_public or target.owned_by is not None for target in needed)

    @property
    def writer(self) -> str:
        return "owner" if self.owner and self.has_open_relations else "superuser"

    @property
    def model_name(self) -> str:
        return self.name.lower()

    @property
    def owner_user(self) -> str:
        return "owner.user" if self.owner else ""

    @property
    def owner_user_comma(self) -> str:
        return "owner.user, " if self.owner else ""

    @property
    def writer_user(self) -> str:
        return f"{self.writer}.user" if self.owner else ""

    @property
    def writer_user_comma(self) -> str:
        return f"{self.writer}.user, " if self.owner else ""

    @property
    def given_user(self) -> str:
        """Whose the fixture's row is."""
        return f"{self.variable}.owner" if self.owner else ""

    @property
    def given_owner(self) -> str:
        names_one = self.owner and self.writer == "superuser"
        return f'{{"user_id": {self.variable}.owner_id}} | ' if names_one else ""

    @property
    def counts(self) -> bool:
        return any("number" in sample for _, sample in self.given)

    @property
    def stranger_statuses(self) -> str:
        reads, writes = (200, 403) if self.is_public else (404, 404)
        return repr([("get", reads), *((method, writes) for method in ("put", "patch", "delete"))])

    @property
    def given(self) -> list[tuple[str, str]]:
        """What a request says of a row, with the `number` of the row."""
        return [
            (each.api_name, self._sample(each))
            for each in self.own_fields
            if each.name != "slug" or not self.is_slugged
        ]

    def _sample(self, each: Field) -> str:
        if not each.is_relation:
            return each.sample
        if each.is_optional:
            return "None"
        meta = each.target._meta
        if self.owner and each.target.owned_by == meta.pk.attname:
            return "owner.pk"
        made = f"create_row({meta.object_name}{', owner=owner' if _is_owned(each.target) else ''}).pk"
        return f"str({made})" if isinstance(meta.pk, models.UUIDField) else made

    @property
    def sample_targets(self) -> list[tuple[str, str]]:
        return sorted({
            (each.target.__module__, each.target.__name__)
            for each in self.relations
            if "create_row(" in self._sample(each)
        })  # fmt: skip

    @property
    def required(self) -> list[str]:
        return sorted(each.api_name for each in self.own_fields if each.is_required)

    @property
    def required_source(self) -> str:
        return source_of_names(self.required)

    @property
    def defaults(self) -> list[tuple[str, str]]:
        """What is stored where nothing is said, as far as it is always the same."""
        found = []
        for each in self.own_fields:
            if each.is_required or each is self._slug:
                continue
            plain = each.choices or each.kind.name in {"str", "text", "int", "float", "bool", "email", "url", "json"}
            if each.default is None:
                found.append((each.api_name, "None"))
            elif plain:
                found.append((each.api_name, f'"{each.default_choice}"' if each.choices else each.default))
        return found

    @property
    def bad_values(self) -> list[tuple[str, str]]:
        return [(each.api_name, bad) for each in self.own_fields if each is not self._slug for bad in each.bad]

    @property
    def filter_examples(self) -> list[tuple[str, tuple[str, str, str]]]:
        return [(each.name, each.example) for each in self.filters if each.example]

    @property
    def filtered_relations(self) -> list[str]:
        return [name for name, sample in self.given if "create_row(" in sample]

    @property
    def filtered_source(self) -> str:
        return source_of_names(self.filtered_relations)

    @property
    def searched_source(self) -> str:
        return source_of_names(self.searched)

    @property
    def sort_examples(self) -> list[tuple[str, str, str]]:
        by_name = {each.name: each for each in self.own_fields if each.kind.name != "fk"}
        return [(name, *by_name[name].samples) for name in self.sort_fields if name in by_name]

    @property
    def unique_names(self) -> list[str]:
        return [each.attname for each in self.own_fields if each.is_unique and each is not self._slug]

    @property
    def unique_source(self) -> str:
        return source_of_names(self.unique_names)

    @property
    def unknown_references(self) -> list[tuple[str, str]]:
        uuid = '"00000000-0000-7000-8000-000000000000"'
        uuids = {each: isinstance(each.target._meta.pk, models.UUIDField) for each in self.relations}
        return [(each.attname, uuid if has_uuid else "10**9") for each, has_uuid in uuids.items()]

    @property
    def unknown_source(self) -> str:
        return f"[{', '.join(f'({json.dumps(name)}, {unknown})' for name, unknown in self.unknown_references)}]"

    @property
    def references_within_owner(self) -> list[Field]:
        return [each for each in self.relations if _is_owned(each.target)]

    @property
    def changed(self) -> Field | None:
        """A field that tests change alone."""
        return next((each for each in self.own_fields if all(each.samples) and each is not self._slug), None)


def source_of_names(names: list[str]) -> str:
    return json.dumps(names, ensure_ascii=False)


def _either(words: list[str]) -> str:
    return f"{', '.join(words[:-1])} or {words[-1]}"


def _is_owned(model: type[Record]) -> bool:
    """Whether its rows belong to users, of which each is their own."""
    pk: Any = model._meta.pk
    return model.owned_by not in {None, pk.attname}


def _known_classes() -> set[str]:
    """The serializers, filter sets, views and the admin's classes of the house, by whose names the API is described."""
    found: set[str] = set()
    bases: list[Any] = [BaseSerializer]
    while bases:
        base = bases.pop()
        found.add(base.__name__)
        bases += base.__subclasses__()
    kinds = ("Record", "SoftDeletable", "Strict", "ReadOnly")
    return found | {f"{kind}{suffix}" for kind in kinds for suffix in ("FilterSet", "ViewSet", "Admin")}


def _names_in_the_database() -> set[str]:
    names = set()
    for model in apps.get_models(include_auto_created=True):
        meta = model._meta
        named = [str(each.name) for each in [*meta.indexes, *meta.constraints]]
        names |= {meta.db_table, f"{meta.db_table}_pkey", *named}
    return names
