"""The code of the model of a resource."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import Any

from django.apps import apps
from django.db import models
from django.utils.text import camel_case_to_spaces, capfirst

from records.models.relations import cascades_delete
from records.scaffold.errors import SpecificationError
from records.scaffold.fields import Field
from records.scaffold.kinds import source
from records.scaffold.naming import with_article
from records.scaffold.resource import Resource

MAX_INDEX_LENGTH = models.Index.max_name_length
MAX_CONSTRAINT_LENGTH = 63  # of PostgreSQL's identifiers
#: Defaults that are mutable → the function that creates one for each row.
FACTORIES = {"{}": "dict", "[]": "list"}
#: Name in the code → the module that it is imported from.
MODULES = {
    "Decimal": "decimal", "UUID": "uuid", "uuid4": "uuid", "Q": "django.db.models", "timezone": "django.utils",
    "SearchIndex": "records.db.constraints", "ShortSearchIndex": "records.db.constraints",
    "Unique": "records.db.constraints",
    "deleted_index": "records.db.constraints", "live_index": "records.db.constraints",
    "sort_index": "records.db.constraints", "plain_json": "records.db.validators",
    "LineField": "records.db.text", "LinesField": "records.db.text",
}  # fmt: skip
BASES = {"Slugged": "records.models.slugs", "SoftDeletable": "records.models", "Record": "records.models"}


@dataclass
class ModelCode:
    resource: Resource

    def __post_init__(self) -> None:
        names = {name for _, name in self.imports}
        if self.resource.names.model in names:
            model = self.resource.names.model
            raise SpecificationError(f"'{model}' is what the code of the model itself uses.", model)
        for field in self.resource.fields:
            for name in (field.name, field.attname, field.api_name):
                if name in names | {"models", "dt"}:
                    raise SpecificationError(f"'{name}' is what the code of the model itself uses.")

    @property
    def bases(self) -> str:
        options = {"Slugged": self.resource.is_slugged, "SoftDeletable": self.resource.is_soft}
        return ", ".join(name for name, is_set in options.items() if is_set) or "Record"

    # Imports

    @cached_property
    def imports(self) -> list[tuple[str, str]]:
        """Module and name of each import."""
        code = "\n".join([*self.columns, *self.constraints, *self.indexes])
        used = [(module, name) for name, module in MODULES.items() if re.search(rf"(?<![\w.\"]){name}\b", code)]
        used += [("datetime", "")] if "dt." in code else []
        used += [("records.db.keys", "uuid7"), ("django.db", "models")]
        used += [(BASES[base], base) for base in self.bases.split(", ")]
        targets = [field.target for field in self.resource.fields if field.is_relation]
        return list(dict.fromkeys([*used, *((target.__module__, target.__name__) for target in targets)]))

    @property
    def import_lines(self) -> list[str]:
        """The lines in ruff's order: the standard library, packages, the project."""
        by_module: dict[str, list[str]] = {}
        for module, name in self.imports:
            by_module.setdefault(module, []).append(name)
        groups: list[list[str]] = [[], [], []]
        for module in sorted(by_module, key=lambda name: (name != "datetime", name)):
            names = sorted(by_module[module], key=lambda name: (not name.isupper(), name[:1].islower(), name))
            line = "import datetime as dt" if module == "datetime" else f"from {module} import {', '.join(names)}"
            groups[_import_group(module)].append(line)
        return [line for group in groups if group for line in (*group, "")][:-1]

    # Columns

    @property
    def json_defaults(self) -> list[tuple[str, str]]:
        """Name and value of the functions that return the default of a JSON column."""
        return [
            (f"default_{field.name}", field.default)
            for field in self.resource.fields
            if field.kind.name == "json" and field.default and field.default[0] in "[{" and len(field.default) > 2
        ]

    @cached_property
    def columns(self) -> list[str]:
        """The lines of the columns, without the key and the slug, which the base classes have."""
        fields = [field for field in self.resource.columns if field is not self.resource.slug]
        return [f"{field.name} = {self._column(field)}" for field in fields]

    def _column(self, field: Field) -> str:
        arguments = []
        if field.is_relation:
            arguments += [field.target.__name__, f"on_delete=models.{on_delete(field)}"]
            arguments += [f'related_name="{self._related_name(field)}"', "db_index=False"]
        if field.choices:
            arguments += [f"max_length={max(map(len, field.choices))}", f"choices={field.enumeration}.choices"]
        arguments += [f"{name}={source(value)}" for name, value in field.kind.arguments.items()]
        if field.default is not None:
            function = f"default_{field.name}"
            default = function if function in dict(self.json_defaults) else field.default
            arguments.append(f"default={FACTORIES.get(default, default)}")
        if field.is_optional:
            arguments += ["null=True", "blank=True"]
        arguments.append(f'help_text="{help_text(field)}"')
        return f"{field.kind.constructor}({', '.join(arguments)})"

    def _related_name(self, field: Field) -> str:
        app = self.resource.names.app
        same_target = [other for other in self.resource.fields if other.target is field.target]
        taken = {column.name for column in field.target._meta.get_fields()}
        taken |= {relation.get_accessor_name() for relation in field.target._meta.related_objects}
        is_only = field.is_owner or (len(same_target) == 1 and app not in taken)
        return app if is_only else f"{field.name}_{app}"

    # Meta

    @property
    def constraints(self) -> list[str]:
        unique, owner = [field for field in self.resource.own_fields if field.is_unique], self.resource.owner
        return [
            # The field first: its message is about it, and lists are filtered and sorted by it.
            f"Unique(fields={names_source([field.name, *(['owner'] if owner else [])])}, "
            f'name="{self._free_name(field.name, "unique", limit=MAX_CONSTRAINT_LENGTH)}", '
            f'violation_error_message="{field.label} already in use")'
            for field in unique
        ] + [
            f"models.CheckConstraint(condition=models.Q({field.name}__in={names_source(field.choices)}), "
            f'name="{self._free_name(field.name, "check", limit=MAX_CONSTRAINT_LENGTH)}", '
            f'violation_error_message="{field.label} must be {_alternatives(field.choices)}.")'
            for field in self.resource.choices
        ]

    @property
    def indexes(self) -> list[str]:
        resource = self.resource
        live = "live_index" if resource.is_soft else "sort_index"
        # Foreign keys of deleted rows are looked up too.
        indexed = [field for field in resource.columns if resource.is_indexed(field)]
        functions = [(field.name, "sort_index" if field.is_relation else live) for field in indexed]
        functions.append(("created_at", live))
        lines = [f'{function}("{name}", name="{self._free_name(name)}")' for name, function in functions]
        return [*lines, *self._special_indexes()]

    def _special_indexes(self) -> Iterator[str]:
        resource = self.resource
        if resource.is_soft:
            yield f'deleted_index("{self._free_name("deleted")}")'
        if resource.searched and (resource.is_searchable or resource.is_managed):
            fields = names_source(resource.searched)
            yield f'SearchIndex(fields={fields}, name="{self._free_name("search")}")'
            yield f'ShortSearchIndex(fields={fields}, name="{self._free_name("short_search")}")'

    def _free_name(self, *parts: str, limit: int = MAX_INDEX_LENGTH) -> str:
        """Return a free name: PostgreSQL has one namespace for tables, indexes and constraints."""
        name = "_".join((self.resource.names.app, *parts))
        if len(name) <= limit and name not in _database_names():
            return name
        return f"{name[: limit - 9]}_{sha256(name.encode()).hexdigest()[:8]}"

    @property
    def verbose_names(self) -> list[str]:
        """The lines of the names that Django would not derive."""
        names = self.resource.names
        lines = []
        if camel_case_to_spaces(names.model) != names.verbose:
            lines.append(f'verbose_name = "{names.verbose}"')
        if lines or names.verbose_plural != f"{names.verbose}s":
            lines.append(f'verbose_name_plural = "{names.verbose_plural}"')
        return lines

    @property
    def verbose_app(self) -> str:
        """The verbose name of the app, "" if Django derives it."""
        names = self.resource.names
        return str(capfirst(names.verbose_plural)) if len(names.plural_words) > 1 else ""

    @property
    def string(self) -> str:
        title = self.resource.title
        return f"str(self.{title})" if title else f'f"{self.resource.names.verbose} {{self.pk}}"'


def on_delete(field: Field) -> str:
    """Return what happens to a row when its target is deleted: rows that belong to users are deleted with it."""
    if field.is_optional:
        return "SET_NULL"
    belongs_to_users = any(cascades_delete(column) for column in field.target._meta.concrete_fields)
    return "CASCADE" if belongs_to_users or field.target.owned_by is not None else "PROTECT"


def help_text(field: Field) -> str:
    if field.is_owner:
        return "The user to whom it belongs."
    if field.is_relation:
        return f"{field.label}: id of {with_article(str(field.target._meta.verbose_name))}."
    hint = _alternatives(field.choices) if field.choices else field.kind.hint
    return f"{field.label}: {hint}{'; unique' if field.is_unique else ''}."


def names_source(names: list[str]) -> str:
    return json.dumps(names, ensure_ascii=False)


def _import_group(module: str) -> int:
    if module in {"datetime", "decimal", "uuid"}:
        return 0
    return 1 if module.startswith("django") else 2


def _alternatives(words: list[str]) -> str:
    return f"{', '.join(words[:-1])} or {words[-1]}"


def _database_names() -> set[str]:
    names = set()
    for model in apps.get_models(include_auto_created=True):
        meta: Any = model._meta
        names |= {meta.db_table, f"{meta.db_table}_pkey"}
        names |= {str(item.name) for item in [*meta.indexes, *meta.constraints]}
    return names


def cascading_targets(resource: Resource) -> list[str]:
    """Return the targets whose deletion deletes rows of the resource, with their article."""
    return [
        with_article(str(field.target._meta.verbose_name))
        for field in resource.relations
        if on_delete(field) == "CASCADE"
    ]
