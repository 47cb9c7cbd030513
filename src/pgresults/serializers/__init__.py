"""Objects to bytes and back."""

from pgresults.serializers.base import Serializer
from pgresults.serializers.formats import (
    BytesSerializer,
    CompressedJSONSerializer,
    CompressedPickleSerializer,
    CompressedSerializer,
    JSONSerializer,
    PickleSerializer,
)
from pgresults.serializers.tagged import json_object_decoder, json_object_encoder

__all__ = [
    "BytesSerializer",
    "CompressedJSONSerializer",
    "CompressedPickleSerializer",
    "CompressedSerializer",
    "JSONSerializer",
    "PickleSerializer",
    "Serializer",
    "json_object_decoder",
    "json_object_encoder",
]
