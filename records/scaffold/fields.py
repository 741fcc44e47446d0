"""The fields of a resource."""

import re
from dataclasses import dataclass, field
from typing import Any

from django.db import models
from django.utils.text import capfirst

from records.scaffold.kinds import Kind


@dataclass(eq=False)
class Field:
    """A field, written as `name:type(arguments)?!=default`."""

    name: str
    kind: Kind
    choices: list[str] = field(default_factory=list)
    target: Any = None
    is_optional: bool = False
    is_unique: bool = False
    #: Python source.
    default: str | None = None
    default_choice: str = ""

    @property
    def label(self) -> str:
        return capfirst(self.name.replace("_", " "))

    @property
    def is_relation(self) -> bool:
        return self.target is not None

    @property
    def is_owner(self) -> bool:
        return self.kind.name == "user"

    @property
    def is_required(self) -> bool:
        return not self.is_optional and self.default is None and not self.is_owner

    @property
    def attname(self) -> str:
        return f"{self.name}_id" if self.is_relation else self.name

    @property
    def api_name(self) -> str:
        return "user_id" if self.is_owner else self.attname

    @property
    def enumeration(self) -> str:
        """The name of the class of the choices."""
        return "".join(part.capitalize() for part in self.name.split("_"))

    @property
    def members(self) -> list[str]:
        """The lines of the class of the choices. A value that is not a name also gets its label."""
        named = [(member_name(choice), choice) for choice in self.choices]
        return [
            f'{name} = "{choice}"' + (f', "{choice}"' if name.startswith("VALUE_") else "") for name, choice in named
        ]

    @property
    def invalid(self) -> tuple[str, ...]:
        return self.kind.invalid + (() if self.is_optional else ("None",))

    @property
    def samples(self) -> tuple[str, str]:
        low, high = sorted(self.choices[:2]) if self.choices else ("", "")
        return (f'"{low}"', f'"{high}"') if self.choices else self.kind.samples

    @property
    def sample(self) -> str:
        return f'"{self.choices[0]}"' if self.choices else self.kind.sample.replace("LABEL", self.label)

    @property
    def target_has_uuid(self) -> bool:
        """Whether the field refers to rows whose ids are UUIDs."""
        return self.is_relation and isinstance(self.target._meta.pk, models.UUIDField)

    @property
    def target_is_owned(self) -> bool:
        """Whether the field refers to rows that belong to users, other than the users themselves."""
        return self.is_relation and self.target.owned_by not in {None, self.target._meta.pk.attname}


def member_name(choice: str) -> str:
    """Return the name of a choice in its class."""
    name = re.sub(r"[^A-Z0-9]+", "_", choice.upper())
    return name if len(name) > 1 and name[0].isalpha() else f"VALUE_{name}"
