from django.core.serializers import pyyaml

from records.serialization import SystemRowsByName

Deserializer = pyyaml.Deserializer


class Serializer(SystemRowsByName, pyyaml.Serializer):
    pass
