"""Result documents travel between pgresults and an installed Prefect, both ways."""

import json
import re
from collections import deque
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from pgresults.records.records import ResultRecord, ResultRecordMetadata
from pgresults.serializers import CompressedSerializer, JSONSerializer, PickleSerializer, Serializer
from tests.support.prefect_fixtures import MARKS, require_prefect

pytestmark = MARKS
prefect: Any = require_prefect()
prefect_results: Any = pytest.importorskip("prefect.results")
prefect_serializers: Any = pytest.importorskip("prefect.serializers")
TheirRecord = prefect_results.ResultRecord
TheirMetadata = prefect_results.ResultRecordMetadata

NOW = datetime(2026, 3, 1, 12, 30, 0, 5, tzinfo=UTC)


class Order(BaseModel):
    number: int
    at: datetime


@dataclass
class Line:
    text: str
    due: date


class Colour(Enum):
    RED = "red"


SERIALIZERS = [
    PickleSerializer(),
    PickleSerializer(picklelib="pickle"),
    JSONSerializer(),
    JSONSerializer(dumps_kwargs={"indent": 1}),
    JSONSerializer(object_encoder=None, object_decoder=None),
    CompressedSerializer(serializer="pickle", compressionlib="zlib"),
    CompressedSerializer(serializer=CompressedSerializer(serializer="json"), compressionlib="bz2"),
    Serializer(type="compressed/pickle"),
    Serializer(type="compressed/json"),
]
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
    max_leaves=8,
)
RICH = [
    {1, 2},
    frozenset("a"),
    (1, (2, "x")),
    b"text",
    NOW,
    NOW.date(),
    time(1, 2, 3),
    timedelta(days=-2, microseconds=7),
    UUID(int=7),
    Decimal("1.10"),
    Path("a/b"),
    1 + 2j,
    deque([1, {2}]),
    ip_address("::1"),
    Colour.RED,
    Order(number=1, at=NOW),
    Line("a", NOW.date()),
    {"nested": [Order(number=2, at=NOW), {"deeper": (NOW, {3})}]},
]


def theirs_of(serializer: Serializer) -> Any:
    """Prefect's serializer of the same configuration, by its own defaults where ours are defaults."""
    defaults = {
        name: field.get_default(call_default_factory=True) for name, field in type(serializer).model_fields.items()
    }
    fields = {name: value for name, value in serializer if value != defaults[name]} | {"type": serializer.type}
    if isinstance(fields.get("serializer"), Serializer):
        fields["serializer"] = theirs_of(fields["serializer"])
    return prefect_serializers.Serializer(**fields)


def our_record(serializer: Serializer, result: Any) -> ResultRecord[Any]:
    metadata = ResultRecordMetadata(
        storage_key="k",
        expiration=NOW,
        serializer=serializer,
        storage_block_id=uuid4(),
        version=3,
        created_at=NOW,
        size=5,
        sha256="0" * 64,
        provenance={"host": "h"},
    )
    return ResultRecord(metadata=metadata, result=result)


def their_record(serializer: Serializer, result: Any) -> Any:
    metadata = TheirMetadata(
        storage_key="k", expiration=NOW, serializer=theirs_of(serializer), storage_block_id=uuid4()
    )
    return TheirRecord(metadata=metadata, result=result)


def assert_prefect_reads(record: ResultRecord[Any]) -> None:
    read = TheirRecord.deserialize(record.serialize())
    assert read.result == record.result
    assert type(read.result) is type(record.result)
    assert_same_metadata(record.metadata, read.metadata)
    assert_same_metadata(record.metadata, TheirMetadata.load_bytes(record.serialize_metadata()))


def assert_we_read(record: Any) -> None:
    read: ResultRecord[Any] = ResultRecord.deserialize(record.serialize())
    apart: ResultRecord[Any] = ResultRecord.deserialize_from_result_and_metadata(
        record.serialize_result(), record.serialize_metadata()
    )
    assert read == apart
    assert read.result == record.serializer.loads(record.serialize_result())
    assert type(read.result) is type(record.serializer.loads(record.serialize_result()))
    assert read.metadata.prefect_version == prefect.__version__
    assert_same_metadata(read.metadata, record.metadata)
    assert TheirRecord.deserialize(read.serialize()).metadata == record.metadata, "and back again"


def assert_same_metadata(ours: ResultRecordMetadata, theirs: Any) -> None:
    for name in ("storage_key", "expiration", "storage_block_id"):
        assert getattr(ours, name) == getattr(theirs, name)
    assert theirs_of(ours.serializer) == theirs.serializer


each_serializer = pytest.mark.parametrize("serializer", SERIALIZERS, ids=str)
with_rich_types = pytest.mark.parametrize("serializer", [s for s in SERIALIZERS if s != SERIALIZERS[4]], ids=str)


@each_serializer
@given(result=plain)
def test_prefect_reads_our_documents(serializer: Serializer, result: Any) -> None:
    assume(not re.search(r"'__(class|exc_type)__'", repr(result)))  # see `test_prefect_refuses_its_own_marks`
    assert_prefect_reads(our_record(serializer, result))


@pytest.mark.parametrize("result", [{"__class__": None}, {"a": [{"__exc_type__": 1}]}, {1: 2}], ids=repr)
def test_prefect_refuses_its_own_marks(result: Any) -> None:
    """It has no text for dicts with keys like these, or that are no texts: better an error than another result."""
    record = our_record(JSONSerializer(), result)
    assert ResultRecord.deserialize(record.serialize()).result == result
    with pytest.raises(ValidationError, match="valid dictionary"):
        assert_prefect_reads(record)


@each_serializer
@given(result=plain)
def test_we_read_prefects_documents(serializer: Serializer, result: Any) -> None:
    assert_we_read(their_record(serializer, result))


@with_rich_types
@pytest.mark.parametrize("result", [*RICH, b"\xff\x00"], ids=repr)
def test_prefect_reads_what_json_lacks(serializer: Serializer, result: Any) -> None:
    assert_prefect_reads(our_record(serializer, result))


@with_rich_types
@pytest.mark.parametrize("result", RICH, ids=repr)
def test_we_read_what_prefect_makes_of_it(serializer: Serializer, result: Any) -> None:
    record = their_record(serializer, result)
    try:
        record.serialize_result()
    except prefect.exceptions.SerializationError as error:
        pytest.skip(f"Prefect {prefect.__version__} cannot write it: {error}")
    assert_we_read(record)


@with_rich_types
@pytest.mark.parametrize("exc", [ValueError("x"), FileNotFoundError("gone")], ids=repr)
def test_exceptions_travel_both_ways(serializer: Serializer, exc: Exception) -> None:
    for read in (
        TheirRecord.deserialize(our_record(serializer, exc).serialize()),
        ResultRecord.deserialize(their_record(serializer, exc).serialize()),
    ):
        assert type(read.result) is type(exc)
        assert read.result.args == exc.args


@with_rich_types
def test_we_read_a_bare_payload_of_prefect(serializer: Serializer) -> None:
    payload = theirs_of(serializer).dumps([1, NOW])
    read = ResultRecord.deserialize(payload, backup_serializer=serializer)
    assert read.result == [1, NOW]


def test_both_read_the_old_flat_format() -> None:
    document = json.dumps(
        {
            "data": theirs_of(PickleSerializer()).dumps([1]).decode(),
            "serializer": {"type": "pickle", "picklelib": "cloudpickle", "picklelib_version": "2.2.1"},
            "prefect_version": "2.14.0",
        }
    ).encode()
    ours: ResultRecord[Any] = ResultRecord.deserialize(document)
    theirs = TheirRecord.deserialize(document)
    assert (ours.result, ours.metadata.prefect_version) == (theirs.result, theirs.metadata.prefect_version)
    assert TheirRecord.deserialize(ours.serialize()) == theirs
