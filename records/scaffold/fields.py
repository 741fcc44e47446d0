"""The fields that `startresource` is told of: read strictly, each error at its spot."""

import datetime as dt
import json
import keyword
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.apps import apps
from django.core.exceptions import ValidationError
from django.db import models
from django.utils.text import capfirst

from records.db.text import LineField, LinesField
from records.db.validators import plain_json
from records.http.hints import did_you_mean
from records.models import Record, SoftDeletable

#: What no column and no table may be called: reserved by PostgreSQL (appendix C of its manual) or by SQLite
#: (https://sqlite.org/lang_keywords.html), where it must be quoted.
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
LONGEST_NAME = 50
#: Columns that are not Django's own.
COLUMNS: dict[str, Any] = {"LineField": LineField, "LinesField": LinesField}


class SpecificationError(Exception):
    """What is wrong with the command's words: a sentence, and the spot it is about where there is one."""

    def __init__(self, message: str, text: str = "", position: int = 0) -> None:
        super().__init__(f"{message}\n    {text}\n    {' ' * position}^" if text else message)


# Types


def _number(pattern: str, convert: Callable[[str], Any]) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        if not re.fullmatch(pattern, text, re.ASCII):
            raise ValueError(text)
        return convert(text)

    return read


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


def _truth(text: str) -> bool:
    if text not in {"true", "false"}:
        raise ValueError(text)
    return text == "true"


def _instant(text: str) -> Any:
    if text == "now":
        return Code("timezone.now")
    instant = dt.datetime.fromisoformat(text)
    return instant if instant.tzinfo else instant.replace(tzinfo=dt.UTC)


def _day(text: str) -> Any:
    return Code("timezone.localdate") if text == "today" else dt.date.fromisoformat(text)


def _uuid(text: str) -> Any:
    return Code("uuid4") if text == "random" else UUID(text)


class Code(str):
    """An expression rather than a value."""

    __slots__ = ()


def source(value: Any) -> str:
    """A value, or a list of functions, in Python."""
    match value:
        case Code():
            return str(value)
        case Decimal() | UUID():
            return f'{type(value).__name__}("{value}")'
        case dt.datetime() | dt.date():
            return f'dt.{type(value).__name__}.fromisoformat("{value.isoformat()}")'
        case list() if all(callable(each) for each in value):
            return f"[{', '.join(each.__name__ for each in value)}]"
    return repr(value)


@dataclass(frozen=True)
class Kind:
    """One of the types of the command line."""

    name: str
    #: The class of its column, and how it is made.
    column: str
    arguments: dict[str, Any] = field(default_factory=dict)
    hint: str = ""
    filter: str = ""
    #: Reads a default; ValueError where it is none.
    read: Callable[[str], Any] = str
    #: What can be compared by more or less, as what.
    comparisons: tuple[str, ...] = ()
    is_searched: bool = False
    #: Whether its values are short enough for an index.
    is_indexed: bool = True
    #: Whether it is filtered by without --searchable too.
    sorts_rows_out: bool = False
    #: Values for tests, in Python: a lesser one and a greater; one for each `number`; what is none.
    samples: tuple[str, str] = ("", "")
    sample: str = ""
    bad: tuple[str, ...] = ()

    @property
    def column_class(self) -> Any:
        return COLUMNS.get(self.column) or getattr(models, self.column)

    @property
    def constructor(self) -> str:
        return self.column if self.column in COLUMNS else f"models.{self.column}"

    @property
    def can_be_unique(self) -> bool:
        return self.is_indexed and self.name not in {"bool", "choice", "user"}


_ORDER = ("gt", "gte", "lt", "lte")
_RANGE = ("gte", "lte")
_FLOAT = r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,3})?"

KINDS = {
    kind.name: kind
    for kind in (
        Kind("str", "LineField", {"max_length": 255}, "up to 255 characters", "TextFilter", is_searched=True,
             samples=('"Alpha"', '"Beta"'), sample='f"LABEL {number}"', bad=('"x" * 256', "[]")),
        Kind("text", "LinesField", {}, "a text of any length", is_searched=True, is_indexed=False,
             samples=('"Alpha"', '"Beta"'), sample='f"LABEL {number}"', bad=("{}", r'"\0"')),
        Kind("int", "BigIntegerField", {}, "a whole number", "IntegerFilter", _number("[+-]?[0-9]{1,30}", int), _ORDER,
             samples=("1", "2"), sample="number", bad=('"many"', "2**63", "True")),
        Kind("float", "FloatField", {}, "a number", "FloatFilter", _number(_FLOAT, _finite), _ORDER,
             samples=("0.5", "1.5"), sample="number + 0.5", bad=('"nan"', '"1e400"', "True")),
        Kind("decimal", "DecimalField", {"max_digits": 15, "decimal_places": 4},
             "an exact number with up to 4 digits after the point", "DecimalFilter",
             _number("[+-]?[0-9]{1,30}([.][0-9]{0,30})?", Decimal), _ORDER,
             samples=("0.5", "1.25"), sample="number + 0.25", bad=('"nan"', "0.00001", "10**11", "True")),
        Kind("bool", "BooleanField", {}, "true or false", "BooleanFilter", _truth, sorts_rows_out=True,
             samples=("False", "True"), sample="True", bad=('"maybe"', "[]")),
        Kind("datetime", "DateTimeField", {}, "a moment, in UTC where no time zone is given", "InstantFilter",
             _instant, _RANGE, samples=('"2026-01-02T03:04:05Z"', '"2026-02-03T04:05:06Z"'),
             sample='f"{2000 + number}-01-02T03:04:05Z"', bad=('"yesterday"', "1", '"2026-02-30T00:00:00Z"')),
        Kind("date", "DateField", {}, "a day", "DateFilter", _day, _ORDER,
             samples=('"2026-01-02"', '"2026-02-03"'), sample='f"{2000 + number}-01-02"',
             bad=('"yesterday"', "1", '"2026-02-30"')),
        Kind("uuid", "UUIDField", {}, "a UUID", "UUIDFilter", _uuid, sorts_rows_out=True,
             samples=('"00000000-0000-4000-8000-000000000001"', '"00000000-0000-4000-8000-000000000002"'),
             sample='f"00000000-0000-4000-8000-{number:012}"', bad=('"not-a-uuid"', "1")),
        Kind("json", "JSONField", {"validators": [plain_json]}, "any JSON", read=json.loads, is_indexed=False,
             sample='{"number": [number, None, "text"]}', bad=("10**30", r'{"a": "\0"}')),
        Kind("email", "EmailField", {}, "an e-mail address", "TextFilter", is_searched=True,
             samples=('"a@example.com"', '"b@example.com"'), sample='f"person{number}@example.com"',
             bad=('"nobody"', "1")),
        Kind("url", "URLField", {"max_length": 500}, "a web address", "TextFilter", is_searched=True,
             samples=('"https://example.com/a"', '"https://example.com/b"'),
             sample='f"https://example.com/{number}"', bad=('"nowhere"', '"javascript:alert(1)"')),
        Kind("choice", "CharField", filter="ChoiceFilter", sorts_rows_out=True, bad=('"none of them"', "[]")),
        Kind("fk", "ForeignKey", sorts_rows_out=True),
        Kind("user", "ForeignKey", sorts_rows_out=True),
    )
}  # fmt: skip
#: What --slug adds.
SLUG = Kind("slug", "SlugField", {}, "letters, digits, - and _", "TextFilter", samples=('"alpha"', '"beta"'))
WITH_ARGUMENTS = {"choice": "choice(a,b)", "fk": "fk(app.Model)"}


# Fields


@dataclass(eq=False)
class Field:
    """One `name:type(arguments)?!=default`."""

    name: str
    kind: Kind
    choices: list[str] = field(default_factory=list)
    target: Any = None
    is_optional: bool = False
    is_unique: bool = False
    #: In Python.
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
        """The name of the class of a choice's values."""
        return "".join(part.capitalize() for part in self.name.split("_"))

    @property
    def members(self) -> list[str]:
        """The lines of that class; a value that makes no name gets its label too."""
        named = [(_member(choice), choice) for choice in self.choices]
        return [
            f'{name} = "{choice}"' + (f', "{choice}"' if name.startswith("VALUE_") else "") for name, choice in named
        ]

    @property
    def bad(self) -> tuple[str, ...]:
        return self.kind.bad + (() if self.is_optional else ("None",))

    @property
    def samples(self) -> tuple[str, str]:
        low, high = sorted(self.choices[:2]) if self.choices else ("", "")
        return (f'"{low}"', f'"{high}"') if self.choices else self.kind.samples

    @property
    def sample(self) -> str:
        return f'"{self.choices[0]}"' if self.choices else self.kind.sample.replace("LABEL", self.label)


def read_fields(texts: list[str]) -> list[Field]:
    """The fields of a command line; SpecificationError with all that is wrong with them."""
    fields: list[Field] = []
    errors: list[str] = []
    for text in texts:
        try:
            fields.append(_Reader(text).field())
        except SpecificationError as error:
            errors.append(str(error))
    if errors:
        raise SpecificationError("\n".join(errors))
    return fields


class _Reader:
    """Reads one field from left to right."""

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
        made = Field(name, self.kind())
        if made.kind.name == "choice":
            made.choices = self.choices()
        elif made.kind.name == "fk":
            made.target = self.target()
        elif made.is_owner:
            made.target = _model("users.User")
        self.modifiers(made)
        self.check(made)
        if made.kind.name == "bool" and made.default is None and not made.is_optional:
            made.default = "False"
        return made

    def check_name(self, name: str) -> None:
        spot = re.match(r"[a-z]?[a-z0-9_]*", name, re.ASCII)
        if not name or not spot or spot.end() < len(name) or not name[0].isalpha():
            at = spot.end() if spot and name[:1].islower() else 0
            raise self.error("Names are of lower case letters, digits and _, and begin with a letter.", at)
        if "__" in name or name.endswith("_"):
            raise self.error("To Django, two _ and a _ at the end have a meaning of their own.", name.rindex("_"))
        if len(name) > LONGEST_NAME:
            raise self.error(f"This name is longer than {LONGEST_NAME} characters.", LONGEST_NAME)
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
            known = ", ".join([WITH_ARGUMENTS.get(each, each) for each in KINDS if each != "user"])
            hint = did_you_mean(name, KINDS)
            raise self.error(f"There is no type '{name}'.{hint} Known: {known}, and user for the owner.", start)
        if name in WITH_ARGUMENTS and self.text[self.position : self.position + 1] != "(":
            raise self.error(f"It is written {WITH_ARGUMENTS[name]}.")
        if name not in WITH_ARGUMENTS and self.text[self.position : self.position + 1] == "(":
            raise self.error(f"The type {name} takes nothing in brackets.")
        return KINDS[name]

    def arguments(self) -> tuple[int, list[str]]:
        """Where they begin, and what stands between the commas."""
        start = self.position
        inside = self.take(r"\([^()]*\)")
        if not inside:
            raise self.error("This bracket is not closed.", start)
        return start + 1, inside[1:-1].split(",")

    def choices(self) -> list[str]:
        position, found = self.arguments()
        choices: list[str] = []
        for text in found:
            choice, at = text.strip(), position + len(text) - len(text.lstrip())
            if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9 _.-]{0,48}[A-Za-z0-9])?", choice):
                raise self.error("A choice is of up to 50 letters, digits, blanks and _ . - between them.", at)
            if _member(choice) in map(_member, choices):
                raise self.error(f"'{choice}' is there already, or too much like another choice.", at)
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

    def modifiers(self, made: Field) -> None:
        while sign := self.take("[?!]"):
            if made.is_optional if sign == "?" else made.is_unique:
                raise self.error(f"'{sign}' is there twice.", self.position - 1)
            if sign == "?":
                made.is_optional = True
            else:
                made.is_unique = True
        at = self.position
        if self.take("="):
            made.default = self.default(made, self.text[self.position :])
        elif at < len(self.text):
            raise self.error("Behind the type come ?, ! and =default, in this order.")

    def default(self, made: Field, text: str) -> str:
        if made.is_relation:
            raise self.error("A relation has no default.", self.position - 1)
        if not text:
            raise self.error("Behind = the default is missing.")
        if made.choices:
            if text not in made.choices:
                hint = did_you_mean(text, made.choices)
                raise self.error(f"'{text}' is none of the choices {', '.join(made.choices)}.{hint}")
            made.default_choice = text
            return f"{made.enumeration}.{_member(text)}"
        try:
            value = made.kind.read(text)
        except (ValueError, RecursionError):
            raise self.error(f"'{text}' is no {made.kind.name}: {made.kind.hint}.") from None
        if not isinstance(value, Code):
            try:
                made.kind.column_class(**made.kind.arguments, blank=True).clean(value, None)
            except ValidationError as error:
                raise self.error(f"'{text}' does not fit: {error.messages[0]}") from None
        return source(value)

    def check(self, made: Field) -> None:
        if made.is_unique and not made.kind.can_be_unique:
            reasons = {
                "user": "an owner may have many",
                "bool": "there would be two rows at the most",
                "choice": "there would be a row for each choice at the most",
            }
            reason = reasons.get(made.kind.name, "it may be longer than what an index holds; use str")
            raise self.error(f"The type {made.kind.name} cannot be unique: {reason}.", self.text.index("!"))
        if made.is_owner and made.is_optional:
            raise self.error("Every row has an owner.", self.text.index("?"))
        if made.is_unique and made.default not in {None, "uuid4"}:
            raise self.error("A default that is unique serves one row only.", self.text.index("="))
        if made.is_owner and made.name != "owner":
            raise self.error("Only owner is of the type user; another relation to one is fk(users.User).", 0)


def _member(choice: str) -> str:
    """The name of a choice in its class."""
    name = re.sub(r"[^A-Z0-9]+", "_", choice.upper())
    return name if len(name) > 1 and name[0].isalpha() else f"VALUE_{name}"


def _model(label: str) -> Any:
    return next(
        (model for model in apps.get_models() if model._meta.label == label and issubclass(model, Record)), None
    )


def _related() -> list[str]:
    """What a relation may be to."""
    return [model._meta.label for model in apps.get_models() if issubclass(model, Record)]
