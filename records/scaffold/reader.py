"""Strict reading of the fields on a command line, with the position of each error."""

import keyword
import re
from typing import Any

from django.apps import apps
from django.core.exceptions import ValidationError

from records.http.hints import did_you_mean
from records.models import Record, SoftDeletable
from records.scaffold.errors import SpecificationError
from records.scaffold.fields import Field, member_name
from records.scaffold.kinds import KINDS, WITH_ARGUMENTS, Code, Kind, source
from records.scaffold.naming import MAX_NAME_LENGTH, SQL_RESERVED


def read_fields(texts: list[str]) -> list[Field]:
    """Return the fields; raise SpecificationError with all errors of all fields."""
    fields: list[Field] = []
    errors: list[str] = []
    for text in texts:
        try:
            fields.append(FieldReader(text).field())
        except SpecificationError as error:
            errors.append(str(error))
    if errors:
        raise SpecificationError("\n".join(errors))
    return fields


class FieldReader:
    """Reads one field, from left to right."""

    def __init__(self, text: str) -> None:
        self.text, self.position = text, 0

    def error(self, message: str, position: int | None = None) -> SpecificationError:
        return SpecificationError(message, self.text, self.position if position is None else position)

    def take(self, pattern: str) -> str:
        match = re.compile(pattern, re.ASCII).match(self.text, self.position)
        self.position = match.end() if match else self.position
        return match[0] if match else ""

    def field(self) -> Field:
        name = self.take(r"[^:]*")
        self.check_name(name)
        if not self.take(":"):
            raise self.error("A field is name:type: here ends its name, and no ':' follows.")
        field = Field(name, self.kind())
        if field.kind.name == "choice":
            field.choices = self.choices()
        elif field.kind.name == "fk":
            field.target = self.target()
        elif field.is_owner:
            field.target = _model("users.User")
        self.modifiers(field)
        self.check(field)
        if field.kind.name == "bool" and field.default is None and not field.is_optional:
            field.default = "False"
        return field

    def check_name(self, name: str) -> None:
        match = re.match(r"[a-z]?[a-z0-9_]*", name, re.ASCII)
        if not name or not match or match.end() < len(name) or not name[0].isalpha():
            position = match.end() if match and name[:1].islower() else 0
            raise self.error("Names are of lower case letters, digits and _, and begin with a letter.", position)
        if "__" in name or name.endswith("_"):
            raise self.error("To Django, two _ and a _ at the end have a meaning of their own.", name.rindex("_"))
        if len(name) > MAX_NAME_LENGTH:
            raise self.error(f"This name is longer than {MAX_NAME_LENGTH} characters.", MAX_NAME_LENGTH)
        self.check_reserved(name)

    def check_reserved(self, name: str) -> None:
        if keyword.iskeyword(name):
            raise self.error(f"'{name}' is reserved by Python.", 0)
        if name in SQL_RESERVED:
            raise self.error(f"'{name}' is reserved by SQL.", 0)
        if name in {"id", "pk", "derive_slugs", "slug_source", "date_created"} or name in dir(SoftDeletable):
            raise self.error(f"'{name}' is what every record has already.", 0)

    def kind(self) -> Kind:
        start = self.position
        name = self.take(r"[^(?!=]*")
        if name not in KINDS:
            known = ", ".join([WITH_ARGUMENTS.get(kind, kind) for kind in KINDS if kind != "user"])
            hint = did_you_mean(name, KINDS)
            raise self.error(f"There is no type '{name}'.{hint} Known: {known}, and user for the owner.", start)
        if name in WITH_ARGUMENTS and self.text[self.position : self.position + 1] != "(":
            raise self.error(f"It is written {WITH_ARGUMENTS[name]}.")
        if name not in WITH_ARGUMENTS and self.text[self.position : self.position + 1] == "(":
            raise self.error(f"The type {name} takes nothing in brackets.")
        return KINDS[name]

    def arguments(self) -> tuple[int, list[str]]:
        """Return the position of the first argument, and the arguments."""
        start = self.position
        inside = self.take(r"\([^()]*\)")
        if not inside:
            raise self.error("This bracket is not closed.", start)
        return start + 1, inside[1:-1].split(",")

    def choices(self) -> list[str]:
        position, arguments = self.arguments()
        choices: list[str] = []
        for text in arguments:
            choice, start = text.strip(), position + len(text) - len(text.lstrip())
            if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9 _.-]{0,48}[A-Za-z0-9])?", choice):
                raise self.error("A choice is of up to 50 letters, digits, blanks and _ . - between them.", start)
            if member_name(choice) in map(member_name, choices):
                raise self.error(f"'{choice}' is there already, or too much like another choice.", start)
            choices.append(choice)
            position += len(text) + 1
        if len(choices) < 2:
            raise self.error("A choice has two values at least.", position - 1)
        return choices

    def target(self) -> Any:
        position, [label, *others] = self.arguments()
        if others:
            raise self.error("A relation is to one model: fk(app.Model).", position + len(label))
        model = _model(label)
        if model is None:
            known = _related()
            raise self.error(
                f"There is no model '{label}'.{did_you_mean(label, known)} Known: {', '.join(known)}.", position
            )
        return model

    def modifiers(self, field: Field) -> None:
        while sign := self.take("[?!]"):
            if field.is_optional if sign == "?" else field.is_unique:
                raise self.error(f"'{sign}' is there twice.", self.position - 1)
            if sign == "?":
                field.is_optional = True
            else:
                field.is_unique = True
        position = self.position
        if self.take("="):
            field.default = self.default(field, self.text[self.position :])
        elif position < len(self.text):
            raise self.error("Behind the type come ?, ! and =default, in this order.")

    def default(self, field: Field, text: str) -> str:
        if field.is_relation:
            raise self.error("A relation has no default.", self.position - 1)
        if not text:
            raise self.error("Behind = the default is missing.")
        if field.choices:
            if text not in field.choices:
                hint = did_you_mean(text, field.choices)
                raise self.error(f"'{text}' is none of the choices {', '.join(field.choices)}.{hint}")
            field.default_choice = text
            return f"{field.enumeration}.{member_name(text)}"
        try:
            value = field.kind.read(text)
        except (ValueError, RecursionError):
            raise self.error(f"'{text}' is no {field.kind.name}: {field.kind.hint}.") from None
        if not isinstance(value, Code):
            try:
                field.kind.column_class(**field.kind.arguments, blank=True).clean(value, None)
            except ValidationError as error:
                raise self.error(f"'{text}' does not fit: {error.messages[0]}") from None
        return source(value)

    def check(self, field: Field) -> None:
        if field.is_unique and not field.kind.can_be_unique:
            reasons = {
                "user": "an owner may have many",
                "bool": "there would be two rows at the most",
                "choice": "there would be a row for each choice at the most",
            }
            reason = reasons.get(field.kind.name, "it may be longer than what an index holds; use str")
            raise self.error(f"The type {field.kind.name} cannot be unique: {reason}.", self.text.index("!"))
        if field.is_owner and field.is_optional:
            raise self.error("Every row has an owner.", self.text.index("?"))
        if field.is_unique and field.default not in {None, "uuid4"}:
            raise self.error("A default that is unique serves one row only.", self.text.index("="))
        if field.is_owner and field.name != "owner":
            raise self.error("Only owner is of the type user; another relation to one is fk(users.User).", 0)


def _model(label: str) -> Any:
    return next(
        (model for model in apps.get_models() if model._meta.label == label and issubclass(model, Record)), None
    )


def _related() -> list[str]:
    """Return the models that a relation may refer to."""
    return [model._meta.label for model in apps.get_models() if issubclass(model, Record)]
