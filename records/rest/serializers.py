"""Serializers of records. They validate requests and describe requests and responses; reads do not use them."""

import copy
from functools import cache
from typing import Any, ClassVar

from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError as ModelValidationError
from django.db import models
from django.utils.text import capfirst
from rest_framework import serializers
from rest_framework.exceptions import ValidationError
from rest_framework.validators import UniqueValidator

from records.db.constraints import Unique, constraint_fields
from records.db.text import LineField, LinesField, LinesValidator, OneLineValidator
from records.models import Record
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
        # `validate` checks the constraints themselves, which include deleted rows and have their own messages.
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

    def create(self, validated_data: dict[str, Any]) -> Any:
        row = self.Meta.model(**validated_data)
        row.save(force_insert=True)
        return row

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
        return iter(())  # `validate` checks the constraints themselves

    def get_validators(self) -> list[Any]:
        return list(getattr(self.Meta, "validators", []))

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Check references and unique constraints against the database, as far as the request concerns them."""
        model = self.Meta.model
        sent = {column_of(model, name): value for name, value in attrs.items() if name in column_names(model)}
        row = self._merged_row(sent)
        errors = self._reference_errors(row, sent) | self._owner_error(row, sent) | self._unique_errors(row, sent)
        if errors:
            names = {field.source: name for name, field in self.fields.items()}
            raise ValidationError({names.get(column, column): messages for column, messages in errors.items()})
        return attrs

    def _merged_row(self, sent: dict[str, Any]) -> Any:
        """Return a row with the values that were sent, and with the stored references and owner for the others."""
        model = self.Meta.model
        row = model(**{"pk": self.instance.pk} if self.instance else {})
        row._state.adding = self.instance is None
        for column, value in (self._stored_references() | sent).items():
            setattr(row, column, value)
        return row

    def _stored_references(self) -> dict[str, Any]:
        model = self.Meta.model
        columns = [*reference_fields(model), *([model.owned_by] if model.owned_by else [])]
        key = model._meta.pk.attname
        if self.instance is not None:
            return {column: getattr(self.instance, column) for column in columns if column != key}
        user = self._user()
        return {model.owned_by: user.pk} if user and model.owned_by not in {None, key} else {}

    def _reference_errors(self, row: Record, sent: dict[str, Any]) -> dict[str, list[str]]:
        """Return errors for references to rows that the user cannot see or that belong to another owner."""
        errors = {}
        for column, reference in reference_fields(type(row)).items():
            key = getattr(row, column)
            if key is None or not self._must_check(row, reference, sent):
                continue
            target = reference.remote_field.model
            user = self._user()
            rows = target._default_manager.visible_to(user) if user else target._default_manager.all()
            if reference in row.same_owner_fields():
                rows = rows.filter(**{target.owned_by: row.owner_pk})
            if not rows.filter(pk=key).exists():
                errors[column] = [f"{capfirst(target._meta.verbose_name)} with ID {key} not found"]
        return errors

    def _must_check(self, row: Record, reference: Any, sent: dict[str, Any]) -> bool:
        """Return True if the reference changes, or the row moves to another owner."""
        column = reference.attname
        if column in sent and (self.instance is None or getattr(self.instance, column) != sent[column]):
            return True
        return row.owned_by in sent and reference in row.same_owner_fields()

    def _owner_error(self, row: Record, sent: dict[str, Any]) -> dict[str, list[str]]:
        column = row.owned_by
        if self.instance is None or column is None or column not in sent:
            return {}
        message = row.owner_change_error(getattr(self.instance, column))
        return {column: [message]} if message else {}

    def _unique_errors(self, row: Record, sent: dict[str, Any]) -> dict[str, list[str]]:
        errors: dict[str, list[str]] = {}
        model: Any = type(row)
        for constraint in model._meta.constraints:
            columns = {column_of(model, name) for name in constraint_fields(constraint)}
            if isinstance(constraint, Unique) and sent.keys() & columns:
                try:
                    constraint.validate(model, row)
                except ModelValidationError as error:
                    errors |= {column_of(model, name): messages for name, messages in error.message_dict.items()}
        return errors

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

    def validate_user_id(self, user_id: int) -> int:
        if not get_user_model()._default_manager.filter(pk=user_id).exists():
            raise ValidationError(f"User with ID {user_id} not found")
        return user_id
