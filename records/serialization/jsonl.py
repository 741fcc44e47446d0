"""Fixture format JSON lines with exact times."""

from django.core.serializers import jsonl

from records.serialization import NaturalSystemKeysMixin
from records.serialization.json import ExactJSONEncoder

Deserializer = jsonl.Deserializer


class Serializer(NaturalSystemKeysMixin, jsonl.Serializer):
    def _init_options(self) -> None:
        super()._init_options()  # type: ignore[misc]
        self.json_kwargs["cls"] = self.options.get("cls", ExactJSONEncoder)
        # The deserializer uses str.splitlines, which also splits at U+2028 and similar characters.
        self.json_kwargs["ensure_ascii"] = self.options.get("ensure_ascii", True)
