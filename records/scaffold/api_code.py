"""The code of the API of a resource: serializer, filter set and viewset."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from records.scaffold.fields import Field
from records.scaffold.resource import Resource

#: Lookup → help text of a range filter, for numbers and for times.
COMPARISONS = {
    "gt": {"number": "More than this {}.", "time": "Later than this {}."},
    "gte": {"number": "This {} or more.", "time": "This {} or later."},
    "lt": {"number": "Less than this {}.", "time": "Earlier than this {}."},
    "lte": {"number": "This {} or less.", "time": "This {} or earlier."},
}


@dataclass
class Filter:
    name: str
    field: Field
    filter_class: str
    arguments: str
    #: Python source for tests: the value of the parameter, a value that matches and one that does not.
    example: tuple[str, str, str] | None = None


@dataclass
class APICode:
    resource: Resource

    @property
    def serializer(self) -> str:
        return "OwnedSerializer" if self.resource.owner else "RecordSerializer"

    @property
    def viewset(self) -> str:
        return "SoftDeletableViewSet" if self.resource.is_soft else "RecordViewSet"

    @property
    def fields(self) -> list[str]:
        """The fields of the response."""
        owner = self.resource.owner
        names = [field.api_name for field in [*self.resource.own_fields, *([owner] if owner else [])]]
        return ["id", *names, "created_at", "updated_at", "version"]

    @property
    def sort_fields(self) -> list[str]:
        resource = self.resource
        indexed = [field for field in resource.own_fields if resource.is_indexed(field) or field.is_unique]
        return ["id", *(field.attname for field in indexed if resource.is_searchable), "created_at"]

    # Filters

    @property
    def filter_base(self) -> str:
        return "SoftDeletableFilterSet" if self.resource.is_soft else "RecordFilterSet"

    @property
    def filter_classes(self) -> list[str]:
        return sorted({declared.filter_class for declared in self.filters} | {self.filter_base})

    @property
    def has_choice_filters(self) -> bool:
        return any(declared.filter_class == "ChoiceFilter" for declared in self.filters)

    @cached_property
    def filters(self) -> list[Filter]:
        filters = [declared for field in self.resource.own_fields for declared in self._filters(field)]
        if self.resource.owner:
            arguments = 'field_name="owner_id", help_text="Id of the user to whom it belongs."'
            filters.append(Filter("user_id", self.resource.owner, "IntegerFilter", arguments))
        return filters

    def _filters(self, field: Field) -> Iterator[Filter]:
        if not (self.resource.is_searchable or field.is_unique or field.kind.is_always_filtered):
            return
        if field.is_relation:
            filter_class = "UUIDFilter" if field.target_has_uuid else "IntegerFilter"
            text = f"Id of the {field.target._meta.verbose_name}."
            yield Filter(field.attname, field, filter_class, f'help_text="{text}"')
        elif field.kind.filter:
            yield self._equality_filter(field)
            if self.resource.is_searchable:
                yield from _range_filters(field)

    def _equality_filter(self, field: Field) -> Filter:
        choices = f"choices={self.resource.names.model}.{field.enumeration}.choices, " if field.choices else ""
        low, high = field.samples
        arguments = f'{choices}help_text="Exactly this {field.label.lower()}."'
        return Filter(field.name, field, field.kind.filter, arguments, (low, low, high))


def _range_filters(field: Field) -> Iterator[Filter]:
    low, high = field.samples
    examples = {"gt": (low, high, low), "gte": (high, high, low), "lt": (high, low, high), "lte": (low, low, high)}
    unit = "time" if field.kind.name in {"date", "datetime"} else "number"
    for lookup in field.kind.comparisons:
        text = COMPARISONS[lookup][unit].format(field.label.lower())
        arguments = f'field_name="{field.name}", lookup_expr="{lookup}", help_text="{text}"'
        yield Filter(f"{field.name}__{lookup}", field, field.kind.filter, arguments, examples[lookup])
    if field.kind.name == "datetime":
        arguments = f'field_name="{field.name}", help_text="{field.label} on that day (UTC)."'
        yield Filter(f"{field.name}__date", field, "DayFilter", arguments, (f"{low}[:10]", low, high))
