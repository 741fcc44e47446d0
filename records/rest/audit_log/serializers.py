from typing import ClassVar

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from records.audit.models import AuditEntry
from records.rest.serializers import RecordSerializer, register

#: A change as JSON Schema: the old and the new value, which may be anything.
CHANGE = {"type": "array", "items": {}, "minItems": 2, "maxItems": 2}


@extend_schema_field({"oneOf": [{"type": "integer", "format": "int64"}, {"type": "string"}], "nullable": True})
class ObjectIdField(serializers.CharField):
    """The id of a row as its resource has it: a number, or the text of a UUID."""


@extend_schema_field({"type": "object", "additionalProperties": CHANGE})
class ChangesField(serializers.JSONField):
    """Field → its old and its new value."""


def _help(name: str) -> str:
    return str(AuditEntry._meta.get_field(name).help_text)  # type: ignore[union-attr]


@register
class AuditEntrySerializer(RecordSerializer):
    object_id = ObjectIdField(read_only=True, help_text=_help("object_id"))
    changes = ChangesField(read_only=True, help_text=_help("changes"))

    class Meta:
        model = AuditEntry
        fields = [
            "id", "at", "action", "outcome", "user_id", "object_type", "object_id", "owner_id", "changes", "ip",
            "request_id",
        ]  # fmt: skip
        read_only_fields: ClassVar[list[str]] = fields
        examples = {
            "action": "update",
            "object_type": "stocks",
            "changes": {"price": [175.5, 190.25]},
            "request_id": "57aa540a-4823-4d1b-bf5d-2efe27ea4db8",
        }
