"""The code of the tests of a resource."""

import json
from dataclasses import dataclass
from typing import Any

from records.scaffold.api_code import APICode
from records.scaffold.fields import Field
from records.scaffold.model_code import names_source
from records.scaffold.resource import Resource

#: Types whose default is always the same value.
CONSTANT_DEFAULTS = {"str", "text", "int", "float", "bool", "email", "url", "json"}


@dataclass
class Personas:
    """Which users the tests act as, and the Python source of their rows."""

    resource: Resource

    @property
    def writer(self) -> str:
        """The persona that may create rows: the owner if they see every row that a row must refer to."""
        targets = [field.target for field in self.resource.relations if not field.is_optional]
        sees_targets = all(target.is_public or target.owned_by is not None for target in targets)
        return "owner" if self.resource.owner and sees_targets else "superuser"

    @property
    def owner_user(self) -> str:
        return "owner.user" if self.resource.owner else ""

    @property
    def owner_user_comma(self) -> str:
        return "owner.user, " if self.resource.owner else ""

    @property
    def writer_user(self) -> str:
        return f"{self.writer}.user" if self.resource.owner else ""

    @property
    def writer_user_comma(self) -> str:
        return f"{self.writer}.user, " if self.resource.owner else ""

    @property
    def row_user(self) -> str:
        """The owner of the row of the fixture."""
        return f"{self.resource.names.variable}.owner" if self.resource.owner else ""

    @property
    def row_owner(self) -> str:
        """The values that name the owner of the row of the fixture, if the writer is somebody else."""
        is_named = self.resource.owner and self.writer == "superuser"
        return f'{{"user_id": {self.resource.names.variable}.owner_id}} | ' if is_named else ""

    @property
    def stranger_statuses(self) -> str:
        reads, writes = (200, 403) if self.resource.is_public else (404, 404)
        return repr([("get", reads), *((method, writes) for method in ("put", "patch", "delete"))])


@dataclass
class Values:
    """The Python source of values that requests send."""

    resource: Resource

    @property
    def sent(self) -> list[tuple[str, str]]:
        """Name and value of each field of a request; values may use the `number` of the row."""
        fields = [field for field in self.resource.own_fields if field.name != "slug" or not self.resource.is_slugged]
        return [(field.api_name, self._sample(field)) for field in fields]

    @property
    def use_numbers(self) -> bool:
        return any("number" in sample for _, sample in self.sent)

    def _sample(self, field: Field) -> str:
        if not field.is_relation:
            return field.sample
        if field.is_optional:
            return "None"
        meta = field.target._meta
        if self.resource.owner and field.target.owned_by == meta.pk.attname:
            return "owner.pk"
        row = f"create_row({meta.object_name}{', owner=owner' if field.target_is_owned else ''}).pk"
        return f"str({row})" if field.target_has_uuid else row

    @property
    def created_targets(self) -> list[tuple[str, str]]:
        """Module and name of the models whose rows the values create."""
        targets = [field.target for field in self.resource.relations if "create_row(" in self._sample(field)]
        return sorted({(target.__module__, target.__name__) for target in targets})

    @property
    def required(self) -> list[str]:
        return sorted(field.api_name for field in self.resource.own_fields if field.is_required)

    @property
    def required_source(self) -> str:
        return names_source(self.required)

    @property
    def defaults(self) -> list[tuple[str, str]]:
        """Name and value of fields that were not sent, if the default is always the same."""
        defaults = []
        for field in self.resource.own_fields:
            if field.is_required or field is self.resource.slug:
                continue
            if field.default is None:
                defaults.append((field.api_name, "None"))
            elif field.choices:
                defaults.append((field.api_name, f'"{field.default_choice}"'))
            elif field.kind.name in CONSTANT_DEFAULTS:
                defaults.append((field.api_name, field.default))
        return defaults

    @property
    def invalid(self) -> list[tuple[str, str]]:
        fields = [field for field in self.resource.own_fields if field is not self.resource.slug]
        return [(field.api_name, value) for field in fields for value in field.invalid]

    @property
    def unique(self) -> list[str]:
        fields = [field for field in self.resource.own_fields if field.is_unique]
        return [field.attname for field in fields if field is not self.resource.slug]

    @property
    def unique_source(self) -> str:
        return names_source(self.unique)

    @property
    def unknown_references(self) -> str:
        """Name and value of references to rows that do not exist; "" without relations."""
        uuid = '"00000000-0000-7000-8000-000000000000"'
        references = [(field.attname, uuid if field.target_has_uuid else "10**9") for field in self.resource.relations]
        pairs = ", ".join(f"({json.dumps(name)}, {value})" for name, value in references)
        return f"[{pairs}]" if references else ""

    @property
    def owned_references(self) -> list[Field]:
        return [field for field in self.resource.relations if field.target_is_owned]

    @property
    def changed(self) -> Field | None:
        """A field that tests change alone."""
        fields = (field for field in self.resource.own_fields if field is not self.resource.slug)
        return next((field for field in fields if all(field.samples)), None)


@dataclass
class Lists:
    """Examples of filtered, searched and sorted lists."""

    resource: Resource
    api: APICode

    @property
    def filtered(self) -> list[tuple[str, tuple[str, str, str]]]:
        return [(declared.name, declared.example) for declared in self.api.filters if declared.example]

    @property
    def filtered_relations(self) -> str:
        """The names of required relations, whose rows differ; "" if there are none."""
        names = [name for name, sample in Values(self.resource).sent if "create_row(" in sample]
        return names_source(names) if names else ""

    @property
    def searched(self) -> str:
        names = self.resource.searched if self.resource.is_searchable else []
        return names_source(names) if names else ""

    @property
    def sorted(self) -> list[tuple[Any, ...]]:
        fields = {field.name: field for field in self.resource.own_fields if field.kind.name != "fk"}
        return [(name, *fields[name].samples) for name in self.api.sort_fields if name in fields]
