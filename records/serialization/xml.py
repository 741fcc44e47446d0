"""Fixture format XML with exact line breaks."""

from typing import Any

from django.conf import settings
from django.core.serializers import xml_serializer
from django.utils.xmlutils import SimplerXMLGenerator

from records.serialization import NaturalSystemKeysMixin

Deserializer = xml_serializer.Deserializer


class ExactXMLGenerator(SimplerXMLGenerator):
    """Escape carriage returns, which XML parsers convert to line feeds."""

    def characters(self, content: str) -> None:
        first, *others = content.split("\r")
        super().characters(first)
        for part in others:
            self.ignorableWhitespace("&#13;")
            super().characters(part)


class Serializer(NaturalSystemKeysMixin, xml_serializer.Serializer):
    def start_serialization(self) -> None:
        self.indent_level = 0  # used since Django 6.1
        stream: Any = self.stream
        self.xml = ExactXMLGenerator(stream, self.options.get("encoding", settings.DEFAULT_CHARSET))
        self.xml.startDocument()
        self.xml.startElement("django-objects", {"version": "1.0"})
