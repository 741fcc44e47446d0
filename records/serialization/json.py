"""Fixture format JSON with exact times."""

from datetime import datetime, time
from typing import Any

from django.core.serializers import json

from records.serialization import NaturalSystemKeysMixin

Deserializer = json.Deserializer


class ExactJSONEncoder(json.DjangoJSONEncoder):
    """Write microseconds. Django's encoder truncates them to milliseconds."""

    def default(self, o: Any) -> Any:
        if isinstance(o, datetime):
            return o.isoformat().replace("+00:00", "Z")
        return o.isoformat() if isinstance(o, time) else super().default(o)


class Serializer(NaturalSystemKeysMixin, json.Serializer):
    def _init_options(self) -> None:
        super()._init_options()  # type: ignore[misc]
        self.json_kwargs["cls"] = self.options.get("cls", ExactJSONEncoder)
