from django.core.serializers import jsonl

from records.serialization import SystemRowsByName
from records.serialization.json import ExactJSONEncoder

Deserializer = jsonl.Deserializer


class Serializer(SystemRowsByName, jsonl.Serializer):
    def _init_options(self) -> None:
        super()._init_options()  # type: ignore[misc]
        self.json_kwargs["cls"] = self.options.get("cls", ExactJSONEncoder)
        # Python's splitlines also splits at U+2028 and the like.
        self.json_kwargs["ensure_ascii"] = self.options.get("ensure_ascii", True)
