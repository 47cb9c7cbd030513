"""Objects to bytes and back."""

from pgresults.serializers.base import Serializer
from pgresults.serializers.binary import BytesSerializer, NpySerializer
from pgresults.serializers.formats import (
    CompressedJSONSerializer,
    CompressedPickleSerializer,
    CompressedSerializer,
    JSONSerializer,
    PickleSerializer,
)
from pgresults.serializers.frames import ArrowSerializer
from pgresults.serializers.tagged import json_object_decoder, json_object_encoder

__all__ = [
    "ArrowSerializer",
    "BytesSerializer",
    "CompressedJSONSerializer",
    "CompressedPickleSerializer",
    "CompressedSerializer",
    "JSONSerializer",
    "NpySerializer",
    "PickleSerializer",
    "Serializer",
    "json_object_decoder",
    "json_object_encoder",
]
