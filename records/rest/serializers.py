"""What a resource takes and gives. Reads are rows of columns; serializers validate input and describe both."""

import json
import math
from decimal import Decimal
from functools import cache
from typing import Any, ClassVar

from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError as ModelValidationError
from django.db import models
from django.db.models import BooleanField, ExpressionWrapper, F, Q, QuerySet
from django.utils.text import capfirst
from rest_framework import serializers
from rest_framework.exceptions import ErrorDetail, ValidationError
from rest_framework.settings import api_settings
from rest_framework.utils import html
from rest_framework.validators import UniqueValidator

from records.db.constraints import Unique, constraint_fields
from records.db.text import LineField, LinesField, LinesValidator, OneLineValidator, normalised
from records.db.validators import BIGINT_MAX, plain_json
from records.http.hints import MOST_ERRORS, MOST_HINTS, did_you_mean, excerpt
from records.models import Record, SoftDeletable

#: What Django's own form adds to every submission.
FORM_FIELDS = {"csrfmiddlewaretoken"}
DELETION_COLUMNS = ("is_deleted", "deleted_at", "deleted_by", "deletion_reason")

#: What the JSON of these fields is, where DRF would convert other types.
_JSON_TYPES: dict[type[serializers.Field], type] = {serializers.CharField: str, serializers.BooleanField: bool}

NON_FIELD_ERRORS_KEY = api_settings.NON_FIELD_ERRORS_KEY
_JSON_NAMES = {
    list: "a list",
    str: "a text",
    bool: "a truth value",
    int: "a number",
    Decimal: "a number",
    type(None): "null",
}

_by_model: dict[type[models.Model], type["RecordSerializer"]] = {}


class StrictFieldsMixin:
    """Refuses fields that are unknown or read-only, all at once and beside the other errors."""

    def to_internal_value(self, data: Any) -> Any:
        if not isinstance(data, dict):
            kind = _JSON_NAMES.get(type(data), "something else")
            raise ValidationError({NON_FIELD_ERRORS_KEY: [f"An object is expected, not {kind}."]})
        errors = self._refused(data) | self._of_another_type(data)
        try:
            value = super().to_internal_value(data)  # type: ignore[misc]
        except ValidationError as error:
            raise ValidationError(errors | error.detail) from None  # type: ignore[operator]
        if errors:
            raise ValidationError(errors)
        return value

    def _of_another_type(self, data: dict) -> dict[str, list[Any]]:
        """Errors about JSON of another type than described: DRF takes 0 for false, and a number for a text."""
        if html.is_html_input(data):
            return {}  # forms have texts only
        errors: dict[str, Any] = {}
        for name, field in self.fields.items():  # type: ignore[attr-defined]
            kind = next((kind for base, kind in _JSON_TYPES.items() if isinstance(field, base)), None)
            value = data.get(name)
            if kind is None or value is None or field.read_only or isinstance(value, kind):
                continue
            try:
                field.fail("invalid", input=value)
            except ValidationError as error:
                errors[name] = error.detail
        return errors

    def _refused(self, data: dict) -> dict[str, list[ErrorDetail]]:
        fields: dict[str, serializers.Field] = self.fields  # type: ignore[attr-defined]
        writable = {name for name, field in fields.items() if not field.read_only}
        errors = {}
        refused = [name for name in data if name not in writable and name not in FORM_FIELDS]
        for number, name in enumerate(refused[:MOST_ERRORS]):
            if name in fields:
                errors[name] = [ErrorDetail("This field is read-only.", code="read_only")]
            else:
                hint = did_you_mean(str(name), writable) if number < MOST_HINTS else ""
                errors[excerpt(str(name))] = [ErrorDetail(f"Unknown field.{hint}", code="unknown")]
        if len(refused) > MOST_ERRORS:
            text = f"{len(refused):,} fields are unknown or read-only; the first {MOST_ERRORS} are listed."
            errors[NON_FIELD_ERRORS_KEY] = [ErrorDetail(text, code="unknown")]
        return errors


class StrictSerializer(StrictFieldsMixin, serializers.Serializer):
    """A body that is not a stored row."""


class PlainDigitsMixin:
    """Digits as people write them: to Python, `1_0` and `١٠` are 10 as well."""

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, str) and ("_" in data or not data.isascii()):
            self.fail("invalid")  # type: ignore[attr-defined]
        return super().to_internal_value(data)  # type: ignore[misc]


class IntegerField(PlainDigitsMixin, serializers.IntegerField):
    pass


class DecimalField(PlainDigitsMixin, serializers.DecimalField):
    pass


class BigIntegerField(IntegerField):
    """Whole numbers that the database can hold."""

    def __init__(self, **kwargs) -> None:
        super().__init__(**{"min_value": -BIGINT_MAX - 1, "max_value": BIGINT_MAX} | kwargs)


class DictField(serializers.DictField):
    """A mapping whose size is checked before its values."""

    def __init__(self, *, max_length: int, **kwargs) -> None:
        self.max_length = max_length
        super().__init__(**kwargs)

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        if isinstance(data, dict) and len(data) > self.max_length:
            raise ValidationError(f"Ensure there are no more than {self.max_length:,} entries.")
        return super().to_internal_value(data)


class FloatField(PlainDigitsMixin, serializers.FloatField):
    """Finite numbers; to Python, `true` is 1.0."""

    def to_internal_value(self, data: Any) -> float:
        number = math.nan if isinstance(data, bool) else super().to_internal_value(data)
        if not math.isfinite(number):
            self.fail("invalid")
        return number


class UUIDField(serializers.UUIDField):
    """Written as text; DRF would take a number too."""

    def to_internal_value(self, data: Any) -> Any:
        if not isinstance(data, str):
            self.fail("invalid", value=data)
        return super().to_internal_value(data)


class TextField(serializers.CharField):
    """Text in NFC, as it is stored."""

    def to_internal_value(self, data: Any) -> str:
        return normalised(super().to_internal_value(data))


class JSONField(serializers.JSONField):
    def to_internal_value(self, data: Any) -> Any:
        if getattr(data, "is_json_string", False):  # from an HTML form
            try:
                data = json.loads(data)
            except (ValueError, RecursionError):
                self.fail("invalid")
        return plain_json(data)


class RecordSerializer(StrictFieldsMixin, serializers.ModelSerializer):
    """`Meta.fields` names the columns that reads select, and writes accept but for `read_only_fields`.

    `Meta.staff_fields` are writable for callers with the model permission to change (or add) only.
    """

    serializer_field_mapping = serializers.ModelSerializer.serializer_field_mapping | {
        models.BigIntegerField: BigIntegerField,
        models.BigAutoField: BigIntegerField,
        models.IntegerField: IntegerField,
        models.SmallIntegerField: IntegerField,
        models.DecimalField: DecimalField,
        models.FloatField: FloatField,
        models.UUIDField: UUIDField,
        models.JSONField: JSONField,
        LineField: TextField,
        LinesField: TextField,
    }

    Meta: ClassVar[Any]

    def __init_subclass__(cls, **kwargs) -> None:
        super().__init_subclass__(**kwargs)
        if "Meta" in cls.__dict__ and cls.__module__.endswith(".serializers"):
            _by_model.setdefault(cls.Meta.model, cls)

    def build_standard_field(self, field_name, model_field):
        field_class, kwargs = super().build_standard_field(field_name, model_field)
        # `validate` asks the constraints themselves, deleted rows included, and they have words of their own.
        kwargs["validators"] = [
            validator for validator in kwargs.get("validators", ()) if not isinstance(validator, UniqueValidator)
        ]
        # OpenAPI shows the first pattern: that of the column says least.
        kwargs["validators"].sort(key=lambda validator: isinstance(validator, (OneLineValidator, LinesValidator)))
        if isinstance(model_field, models.BooleanField) and model_field.has_default():
            kwargs["initial"] = model_field.default  # an empty HTML form shows what is stored where nothing is said
        return field_class, kwargs

    def build_field(self, field_name, info, model_class, nested_depth):
        """A reference is the id of what it refers to, under the name of its column."""
        reference = _references(model_class).get(field_name)
        if reference is None:
            return super().build_field(field_name, info, model_class, nested_depth)
        field_class = UUIDField if isinstance(reference.target_field, models.UUIDField) else BigIntegerField
        kwargs = {"required": not reference.null, "allow_null": reference.null, "help_text": reference.help_text}
        return field_class, kwargs

    def get_fields(self) -> dict[str, serializers.Field]:
        fields = super().get_fields()
        is_described = getattr(self.context.get("view"), "swagger_fake_view", False)
        user = None if is_described else getattr(self.context.get("request"), "user", None)
        for name in set(getattr(self.Meta, "staff_fields", ())) - self.open_fields(user):
            fields[name].read_only = True
            fields[name].required = False
        return fields

    def open_fields(self, user: Any) -> set[str]:
        """Those of `Meta.staff_fields` that this caller may set; without a caller (the schema) all."""
        verb = "add" if self.instance is None else "change"
        if user is None or (user.is_authenticated and user.may(verb, self.Meta.model)):
            return set(getattr(self.Meta, "staff_fields", ()))
        return set()

    def get_unique_together_constraints(self, model):
        return iter(())  # `validate` asks the constraints themselves

    def get_validators(self) -> list:
        return list(getattr(self.Meta, "validators", []))

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Asks the database about the given fields: what they refer to, and the model's unique constraints."""
        model = self.Meta.model
        row = model(**{"pk": self.instance.pk} if self.instance else {})
        row._state.adding = self.instance is None
        given = {_attname(model, name): value for name, value in attrs.items() if name in _column_names(model)}
        for name, value in (self._present_values() | given).items():
            setattr(row, name, value)
        api_name = {field.source: name for name, field in self.fields.items()}
        errors = {api_name[name]: text for name, text in self._unknown_references(row, given).items()}
        moves = self.instance is not None and model.owned_by in given
        if moves and (reason := row.owner_change_error(getattr(self.instance, model.owned_by))):
            errors.setdefault(api_name[model.owned_by], [reason])
        for constraint in model._meta.constraints:
            names = {_attname(model, name) for name in constraint_fields(constraint)}
            if isinstance(constraint, Unique) and given.keys() & names:
                try:
                    constraint.validate(model, row)
                except ModelValidationError as error:
                    for name, messages in error.message_dict.items():
                        errors[api_name.get(_attname(model, name), name)] = messages
        if errors:
            raise ValidationError(errors)
        return attrs

    def _present_values(self) -> dict[str, Any]:
        """Whose the row is and what it refers to, where the request does not say."""
        model = self.Meta.model
        names = [*_references(model), *([model.owned_by] if model.owned_by else [])]
        if self.instance is not None:
            return {name: getattr(self.instance, name) for name in names if name != model._meta.pk.attname}
        user = getattr(self.context.get("request"), "user", None)
        return {model.owned_by: user.pk} if user and model.owned_by not in {None, model._meta.pk.attname} else {}

    def _unknown_references(self, row: Record, given: dict[str, Any]) -> dict[str, list[str]]:
        """Column → what it refers to and may not: a row that is not there for the caller, or is another owner's."""
        user = getattr(self.context.get("request"), "user", None)
        errors = {}
        for name, reference in _references(row.__class__).items():
            key = getattr(row, name)
            is_new = name in given and (self.instance is None or getattr(self.instance, name) != key)
            moves = row.owned_by in given and reference in row.same_owner_fields()
            if key is None or not (is_new or moves):
                continue
            target = reference.remote_field.model
            rows = target._default_manager.visible_to(user) if user else target._default_manager.all()
            if reference in row.same_owner_fields():
                rows = rows.filter(**{target.owned_by: row.owner_pk})
            if not rows.filter(pk=key).exists():
                errors[name] = [f"{capfirst(target._meta.verbose_name)} with ID {key} not found"]
        return errors

    def replaced(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """What PUT stores: fields left out take their default; an owner has none and stays."""
        missing = {}
        for field in self.fields.values():
            if field.read_only or field.source in attrs or field.source not in _column_names(self.Meta.model):
                continue
            column = self.Meta.model._meta.get_field(field.source)
            if column.has_default() or column.null or (column.empty_strings_allowed and not column.is_relation):
                missing[field.source] = column.get_default()
        return missing | attrs


class OwnedSerializer(RecordSerializer):
    """Of rows whose `owner` is a user; `Meta.fields` and `Meta.staff_fields` name `user_id`."""

    user_id = BigIntegerField(
        source="owner_id",
        required=False,
        help_text="Id of the user who holds it. Staff may name one; else it is the caller.",
    )

    def validate_user_id(self, user_id: int) -> int:
        if not get_user_model()._default_manager.filter(pk=user_id).exists():
            raise ValidationError(f"User with ID {user_id} not found")
        return user_id


@cache
def _references(model: type[Record]) -> dict[str, Any]:
    """Column → foreign key to another record, but for that to the row's owner."""
    keys: list[Any] = [field for field in model._meta.concrete_fields if isinstance(field, models.ForeignKey)]
    return {key.attname: key for key in keys if key.attname != model.owned_by}


def is_reference(field: serializers.Field) -> bool:
    """Return whether the field holds the id of another record, or of the row's owner."""
    model = getattr(getattr(field.parent, "Meta", None), "model", None)
    if not (isinstance(model, type) and issubclass(model, Record)) or field.source == "id":
        return False
    return field.source == model.owned_by or field.source in _references(model)


def _attname(model: type[Record], name: str) -> str:
    field: Any = model._meta.get_field(name)
    return field.attname


@cache
def _column_names(model: type[Record]) -> frozenset[str]:
    return frozenset(name for field in model._meta.concrete_fields for name in (field.name, field.attname))


@cache
def api_names(model: type[models.Model]) -> dict[str, str]:
    """Column → what the model's resource calls it, where it has one."""
    serializer_class = _by_model.get(model)
    return {source: name for name, source in columns(serializer_class).items()} if serializer_class else {}


def serializer_for(model: type[Record]) -> type[RecordSerializer]:
    """The serializer of a model's resource, for those who reach its rows by a relation and may not import it."""
    return _by_model[model]


@cache
def columns(serializer_class: type[RecordSerializer]) -> dict[str, str]:
    """Response field → column, in the order of the response."""
    fields = serializer_class().get_fields()
    return {name: field.source or name for name, field in fields.items() if not field.write_only}


def rows(queryset: QuerySet, serializer_class: type[RecordSerializer], names: list[str] | None = None) -> QuerySet:
    """The response rows of `queryset`: dictionaries of just the columns behind `names`, no model instances."""
    sources: dict[str, Any] = dict(columns(serializer_class))
    if issubclass(queryset.model, SoftDeletable):
        sources |= {name: name for name in DELETION_COLUMNS}
    chosen = list(columns(serializer_class)) if names is None else names
    renamed: dict[str, Any] = {name: F(sources[name]) for name in chosen if sources[name] != name}
    if "is_deleted" in chosen:
        renamed["is_deleted"] = ExpressionWrapper(Q(deleted_at__isnull=False), BooleanField())
    return queryset.annotate(**renamed).values(*chosen)
