"""Serializers of records. They validate requests and describe requests and responses; reads do not use them."""

import copy
from functools import cache
from typing import Any, ClassVar

from django.db import models
from rest_framework import serializers
from rest_framework.exceptions import ValidationError
from rest_framework.fields import empty
from rest_framework.validators import UniqueValidator

from records.db.text import LineField, LinesField, LinesValidator, OneLineValidator
from records.rest.checks import Candidate, check
from records.rest.columns import column_names, column_of, reference_fields, register
from records.rest.fields import (
    BigIntegerField,
    DecimalField,
    DictField,
    FloatField,
    IntegerField,
    JSONField,
    TextField,
    UUIDField,
)
from records.rest.strict import StrictFieldsMixin, StrictSerializer

__all__ = [
    "BigIntegerField", "DecimalField", "DictField", "FloatField", "IntegerField", "JSONField", "OwnedSerializer",
    "RecordSerializer", "StrictSerializer", "TextField", "UUIDField", "register",
]  # fmt: skip


class RecordSerializer(StrictFieldsMixin, serializers.ModelSerializer[Any]):
    """The serializer of a model.

    `Meta.fields` names the columns that reads select and that writes accept, except for `Meta.read_only_fields`.
    `Meta.staff_fields` are writable only with the model permission to add or change.
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

    # Fields

    def build_standard_field(self, field_name: str, model_field: Any) -> Any:
        field_class, options = super().build_standard_field(field_name, model_field)
        # `check` checks the constraints themselves, which include deleted rows and have their own messages.
        validators = [
            validator for validator in options.get("validators", ()) if not isinstance(validator, UniqueValidator)
        ]
        # OpenAPI shows the first pattern, and the validators of the column are the least specific.
        validators.sort(key=lambda validator: isinstance(validator, (OneLineValidator, LinesValidator)))
        options["validators"] = validators
        if isinstance(model_field, models.BooleanField) and model_field.has_default():
            options["initial"] = model_field.default  # what an empty HTML form shows
        return field_class, options

    def build_field(self, field_name: str, info: Any, model_class: Any, nested_depth: int) -> Any:
        """Build references as the id of the referenced row, under the name of their column."""
        reference = reference_fields(model_class).get(field_name)
        if reference is None:
            return super().build_field(field_name, info, model_class, nested_depth)
        field_class = UUIDField if isinstance(reference.target_field, models.UUIDField) else BigIntegerField
        options = {"required": not reference.null, "allow_null": reference.null, "help_text": reference.help_text}
        return field_class, options

    @classmethod
    @cache
    def _fields_of_columns(cls) -> dict[str, Any]:
        """Return the fields that REST framework builds from the columns, which takes longer than copying them."""
        fields: dict[str, Any] = super(RecordSerializer, cls()).get_fields()
        return fields

    def get_fields(self) -> dict[str, Any]:
        # Shallow copies are enough for fields without others in them, and take a tenth of the time.
        fields = {
            name: copy.deepcopy(field) if hasattr(field, "child") or hasattr(field, "fields") else copy.copy(field)
            for name, field in self._fields_of_columns().items()
        }
        is_schema = getattr(self.context.get("view"), "swagger_fake_view", False)
        user = None if is_schema else self._user()
        for name in set(getattr(self.Meta, "staff_fields", ())) - self.writable_staff_fields(user):
            fields[name].read_only = True
            fields[name].required = False
        return fields

    def build(self, validated_data: dict[str, Any]) -> Any:
        """Return a new row with these values, which is not stored yet."""
        return self.Meta.model(**validated_data)

    def create(self, validated_data: dict[str, Any]) -> Any:
        row = self.build(validated_data)
        row.save(force_insert=True)
        return row

    def assign(self, instance: Any, validated_data: dict[str, Any]) -> None:
        """Set these values on a row, and the ones that follow from them, without saving it."""
        for name, value in validated_data.items():
            setattr(instance, name, value)

    def update(self, instance: Any, validated_data: dict[str, Any]) -> Any:
        self.assign(instance, validated_data)
        instance.save()
        return instance

    def writable_staff_fields(self, user: Any) -> set[str]:
        """Return those of `Meta.staff_fields` that this user may write; without a user, for the schema, all."""
        verb = "add" if self.instance is None else "change"
        if user is None or (user.is_authenticated and user.may(verb, self.Meta.model)):
            return set(getattr(self.Meta, "staff_fields", ()))
        return set()

    def _user(self) -> Any:
        return getattr(self.context.get("request"), "user", None)

    # Validation

    def get_unique_together_constraints(self, model: Any) -> Any:
        return iter(())  # `check` checks the constraints themselves

    def get_validators(self) -> list[Any]:
        return list(getattr(self.Meta, "validators", []))

    def run_validation(self, data: Any = empty) -> Any:
        """Validate the values of one row, and check them against the database."""
        attrs = self.validate_values(data)
        candidate = self.candidate(attrs)
        check([candidate], self.Meta.model, self._user())
        if candidate.errors:
            raise ValidationError(self.by_field(candidate.errors))
        return attrs

    def validate_values(self, data: Any) -> Any:
        """Return the validated values of one row; raise ValidationError. This takes no queries."""
        return super().run_validation(data)

    def candidate(self, attrs: dict[str, Any], **values: Any) -> Candidate:
        """Return the row with these values as it would be stored, for `check`. `values` are added by the server."""
        model = self.Meta.model
        sent = {column_of(model, name): value for name, value in attrs.items() if name in column_names(model)}
        stored, user = None, self._user()
        if self.instance is not None:
            stored = {column.attname: getattr(self.instance, column.attname) for column in model._meta.concrete_fields}
        elif user and model.owned_by not in {None, model._meta.pk.attname}:
            values = {model.owned_by: user.pk} | values
        row = model(**{**(stored or {}), **values, **sent})
        row._state.adding = stored is None
        return Candidate(row, sent.keys(), stored)

    def by_field(self, errors: dict[str, list[str]]) -> dict[str, list[str]]:
        """Return messages about columns by the names of their fields."""
        names = {field.source: name for name, field in self.fields.items()}
        return {names.get(column, column): messages for column, messages in errors.items()}

    def with_defaults(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Return the values that PUT stores: the defaults for fields that were not sent. The owner stays."""
        model = self.Meta.model
        defaults = {}
        for field in self.fields.values():
            if field.read_only or field.source in attrs or field.source not in column_names(model):
                continue
            column = model._meta.get_field(field.source)
            if column.has_default() or column.null or (column.empty_strings_allowed and not column.is_relation):
                defaults[field.source] = column.get_default()
        return defaults | attrs


class OwnedSerializer(RecordSerializer):
    """The serializer of a model whose `owner` is a user. `Meta.fields` and `Meta.staff_fields` name `user_id`."""

    user_id = BigIntegerField(
        source="owner_id",
        required=False,
        help_text="Id of the user who holds it. Staff may name one; else it is the caller.",
    )
