"""A resource: its names, fields and options, checked for whether they are possible."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from django.conf import settings

from records.rest.filters import SearchBackend
from records.rest.pagination import RecordPagination
from records.scaffold.errors import SpecificationError
from records.scaffold.fields import Field
from records.scaffold.kinds import SLUG
from records.scaffold.naming import Names, check_names


@dataclass
class Resource:
    names: Names
    fields: list[Field]
    is_soft: bool = False
    is_searchable: bool = False
    is_managed: bool = False
    is_slugged: bool = False
    is_public: bool = False

    def __post_init__(self) -> None:
        check_names(self.names)
        if self.is_slugged:
            self._add_slug()
        self._check_fields()
        self._check_relations()

    # Fields

    @property
    def owner(self) -> Field | None:
        return next((field for field in self.fields if field.is_owner), None)

    @property
    def own_fields(self) -> list[Field]:
        """The fields without the owner."""
        return [field for field in self.fields if not field.is_owner]

    @property
    def columns(self) -> list[Field]:
        """The fields in the order of the columns: the owner first."""
        return [*([self.owner] if self.owner else []), *self.own_fields]

    @property
    def relations(self) -> list[Field]:
        return [field for field in self.own_fields if field.is_relation]

    @property
    def choices(self) -> list[Field]:
        return [field for field in self.fields if field.choices]

    @property
    def searched(self) -> list[str]:
        return [field.name for field in self.fields if field.kind.is_searched]

    def is_indexed(self, field: Field) -> bool:
        """Return True if the field needs an index. A unique field has that of its constraint."""
        is_filtered = field.kind.is_always_filtered or (self.is_searchable and field.kind.is_indexed)
        return not field.is_unique and is_filtered

    @property
    def title(self) -> str:
        """The column that names a row; "" if there is none."""
        candidates = [field for field in self.fields if field.kind.is_searched and not field.is_optional]
        if self.slug_source in {field.name for field in candidates}:
            return self.slug_source
        return next((field.name for field in candidates if field.kind.is_indexed), "")

    # Slug

    @property
    def slug_source(self) -> str:
        texts = [field.name for field in self.fields if field.kind.name in {"str", "text"}]
        return next((name for name in ("title", "name") if name in texts), "")

    @cached_property
    def slug(self) -> Field:
        return Field("slug", SLUG, is_unique=True, default='""')

    def _add_slug(self) -> None:
        if not self.slug_source:
            raise SpecificationError("--slug makes a slug from a title or a name, and this has neither as str or text.")
        names = [field.name for field in self.fields]
        if "slug" not in names:
            self.fields.insert(names.index(self.slug_source) + 1, self.slug)
            return
        field = self.fields[names.index("slug")]
        if field.kind.name != "str" or field.default is not None:
            raise SpecificationError("With --slug, the slug is a str, and no other default than its own.")
        self.fields[names.index("slug")] = self.slug

    # Checks

    def _check_fields(self) -> None:
        if not self.own_fields:
            self._check_duplicates()
            raise SpecificationError("A resource has fields: startresource Task title:str due_date:date? owner:user")
        self._check_duplicates()
        self._check_parameters()

    def _check_duplicates(self) -> None:
        names: dict[str, str] = {}
        for field in self.fields:
            own = (field.name, field.attname, field.api_name)
            for name in {*own} & names.keys():
                if field.name == names[name]:
                    raise SpecificationError(f"'{name}' is there twice.", field.name)
                message = f"The fields {names[name]} and {field.name} clash: both are '{name}'."
                raise SpecificationError(message)
            names |= dict.fromkeys(own, field.name)

    def _check_parameters(self) -> None:
        """Raise SpecificationError for a field whose filter would have the name of another query parameter."""
        parameters = {*RecordPagination.parameters, SearchBackend.parameter, "is_deleted"}
        parameters.add(str(settings.REST_FRAMEWORK["URL_FORMAT_OVERRIDE"]))
        for name in self._filtered_names():
            if name in parameters:
                raise SpecificationError(f"'{name}' is a parameter of every list, and could not be filtered by.")

    def _filtered_names(self) -> Iterator[str]:
        for field in self.own_fields:
            has_filter = bool(field.kind.filter) or field.is_relation
            if has_filter and (self.is_searchable or field.is_unique or field.kind.is_always_filtered):
                yield field.attname

    def _check_relations(self) -> None:
        for field in self.relations:
            if field.target_is_owned and not self.owner:
                label = field.target._meta.label
                message = f"{field.name}: rows of {label} belong to users, so these must too: add owner:user."
                raise SpecificationError(message)
