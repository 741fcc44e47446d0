"""Fixture format YAML."""

from django.core.serializers import pyyaml

from records.serialization import NaturalSystemKeysMixin

Deserializer = pyyaml.Deserializer


class Serializer(NaturalSystemKeysMixin, pyyaml.Serializer):
    pass
