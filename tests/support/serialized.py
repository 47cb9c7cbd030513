"""The serializers there are, and a model for them."""

from datetime import UTC, datetime

import pytest
from pydantic import BaseModel

from pgresults.serializers import (
    CompressedJSONSerializer,
    CompressedPickleSerializer,
    CompressedSerializer,
    JSONSerializer,
    PickleSerializer,
)

NOW = datetime(2026, 3, 1, 12, 30, 0, 5, tzinfo=UTC)


class Inner(BaseModel):
    when: datetime
    raw: bytes = b""


BUILT_IN = [
    PickleSerializer(),
    PickleSerializer(picklelib="pickle"),
    JSONSerializer(),
    CompressedSerializer(serializer="pickle", compressionlib="zlib"),
    CompressedSerializer(serializer=JSONSerializer(dumps_kwargs={"sort_keys": True}), compressionlib="bz2"),
    CompressedPickleSerializer(),
    CompressedJSONSerializer(),
]
each_serializer = pytest.mark.parametrize("serializer", BUILT_IN, ids=str)
