"""The code of the admin of a resource."""

from dataclasses import dataclass

from records.scaffold.resource import Resource

MAX_COLUMNS = 5


@dataclass
class AdminCode:
    resource: Resource

    @property
    def columns(self) -> list[str]:
        names = [field.name for field in self.resource.columns if field.kind.is_indexed]
        title = self.resource.title
        first = title if title in names else "__str__"
        return [first, *[name for name in names if name != first][:MAX_COLUMNS], "created_at"]

    @property
    def filters(self) -> list[str]:
        return [field.name for field in self.resource.fields if field.kind.name in {"bool", "choice"}]

    @property
    def relations(self) -> list[str]:
        """The relations among the columns, which are read with the rows."""
        return [field.name for field in self.resource.fields if field.is_relation and field.name in self.columns]
