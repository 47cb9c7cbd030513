"""Records and their metadata, as models and as bytes."""

import base64
import json
import lzma
import pickle
import threading
from datetime import UTC, datetime, timedelta, timezone
from importlib.metadata import version
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, ValidationError

from pgresults.errors import IntegrityError, SerializationError
from pgresults.records.records import ResultRecord, ResultRecordMetadata
from pgresults.serializers import JSONSerializer, PickleSerializer, Serializer

NOW = datetime(2026, 3, 1, 12, 30, 0, 5, tzinfo=UTC)
TYPES = ["pickle", "json", "compressed/pickle", "compressed/json"]

moments = st.datetimes(
    min_value=datetime(2, 1, 1),
    max_value=datetime(9998, 1, 1),
    timezones=st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes))),
)
metadata = st.builds(
    ResultRecordMetadata,
    storage_key=st.none() | st.text(),
    expiration=st.none() | moments,
    serializer=st.sampled_from(TYPES),
    prefect_version=st.none() | st.just("3.1.0"),
    storage_block_id=st.none() | st.uuids(),
    version=st.none() | st.integers(1),
    created_at=st.none() | moments,
    size=st.none() | st.integers(0),
    sha256=st.none() | st.just("0" * 64),
    provenance=st.none() | st.dictionaries(st.text(), st.text() | st.integers() | st.none()),
)
results = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(codec="utf-8")) | st.binary() | st.uuids(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner) | st.tuples(inner),
    max_leaves=6,
)


class Unpicklable(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    lock: Any


class Tampered(Serializer):
    type: str = "tampered"

    def dumps(self, obj: Any) -> bytes:
        return b"\xff"

    def loads(self, blob: bytes) -> Any:
        raise IntegrityError("the signature does not match")


def record(result: Any, serializer: str = "pickle", **fields: Any) -> ResultRecord[Any]:
    return ResultRecord(metadata=ResultRecordMetadata(serializer=serializer, **fields), result=result)


@given(metadata=metadata, result=results)
def test_records_come_back_from_one_document_and_from_two_parts(metadata: Any, result: Any) -> None:
    written = ResultRecord(metadata=metadata, result=result)
    parts = written.serialize_result(), written.serialize_metadata()
    for read in (
        ResultRecord.deserialize(written.serialize()),
        ResultRecord.deserialize(written.serialize(), backup_serializer=JSONSerializer()),
        ResultRecord.deserialize_from_result_and_metadata(*parts),
        pickle.loads(pickle.dumps(written)),
    ):
        assert read == written
        assert read.metadata.model_dump() == metadata.model_dump(), "also what takes no part in =="


@given(metadata=metadata)
def test_metadata_comes_back_from_bytes(metadata: ResultRecordMetadata) -> None:
    read = ResultRecordMetadata.load_bytes(metadata.dump_bytes())
    assert read == metadata
    assert hash(read) == hash(metadata)
    assert read.model_dump() == metadata.model_dump()


def test_metadata_defaults() -> None:
    metadata = ResultRecordMetadata()
    assert metadata.pgresults_version == version("pgresults")
    assert metadata.serializer == PickleSerializer()
    rest = metadata.model_dump(exclude={"pgresults_version", "serializer"})
    assert set(rest.values()) == {None}


@pytest.mark.parametrize(
    "change",
    [
        {"storage_key": "other"},
        {"expiration": NOW},
        {"serializer": "json"},
        {"pgresults_version": "0"},
        {"prefect_version": "3.0.0"},
        {"storage_block_id": UUID(int=5)},
    ],
    ids=str,
)
def test_metadata_differs_by_what_was_asked_for(change: dict[str, Any]) -> None:
    metadata = ResultRecordMetadata(storage_key="k")
    changed = ResultRecordMetadata.model_validate({"storage_key": "k", **change})
    assert changed != metadata
    assert ResultRecord(metadata=changed, result=1) != ResultRecord(metadata=metadata, result=1)


def test_what_storing_adds_takes_no_part_in_equality() -> None:
    stored = {"version": 3, "created_at": NOW, "size": 9, "sha256": "a" * 64, "provenance": {"host": "h"}}
    assert ResultRecordMetadata.model_validate({"storage_key": "k", **stored}) == ResultRecordMetadata(storage_key="k")
    assert record(1, **stored) == record(1)
    assert record(1) != record(2)
    assert record(1) != 1
    assert ResultRecordMetadata() != "metadata"
    assert hash(record(1, **stored)) == hash(record(1))


def test_times_are_kept_in_utc() -> None:
    tokyo = NOW.astimezone(timezone(timedelta(hours=9)))
    for given_as in (tokyo, tokyo.isoformat(), "2026-03-01T12:30:00.000005Z"):
        expiration = record(1, expiration=given_as).expiration
        assert expiration == NOW
        assert expiration is not None
        assert expiration.tzinfo is UTC


@pytest.mark.parametrize(
    ("expiration", "says"),
    [
        (datetime(2026, 1, 1), "2026-01-01T00:00:00 is naive: give it a time zone"),
        ("2026-01-01T00:00:00", "is naive"),
        (3600, "not a datetime but int"),
        (timedelta(hours=1), "not a datetime but timedelta"),
        (datetime.min.replace(tzinfo=timezone(timedelta(hours=1))), "cannot be said in UTC"),
        ("tomorrow", "isoformat"),
    ],
    ids=str,
)
def test_times_without_a_zone_are_refused(expiration: Any, says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        ResultRecordMetadata(expiration=expiration)
    with pytest.raises(ValidationError, match=says):
        ResultRecordMetadata(created_at=expiration)


def test_records_are_immutable() -> None:
    for model, name in ((record(1), "result"), (record(1).metadata, "storage_key")):
        with pytest.raises(ValidationError, match="frozen"):
            setattr(model, name, "x")


def test_a_record_is_generic_in_its_result() -> None:
    assert ResultRecord[int](metadata=ResultRecordMetadata(), result=3).result == 3
    with pytest.raises(ValidationError):
        ResultRecord[int](metadata=ResultRecordMetadata(), result="three")  # type: ignore[arg-type]


def test_the_result_is_kept_as_it_is() -> None:
    result = {"a": [1]}
    assert record(result).result is result


@pytest.mark.parametrize(
    ("serializer", "advice"),
    [("pickle", 'Use the serializer "json"'), ("json", 'Use the serializer "pickle"')],
)
def test_a_result_that_cannot_be_serialized_is_named(serializer: str, advice: str) -> None:
    kind = type(threading.Lock())
    with pytest.raises(SerializationError, match=advice) as caught:
        record(threading.Lock(), serializer).serialize_result()
    assert caught.value.result_type == f"{kind.__module__}.{kind.__qualname__}"
    assert caught.value.serializer_type == serializer
    assert caught.value.result_type in str(caught.value)
    assert caught.value.__cause__ is not None


def test_a_model_of_a_notebook_gets_a_hint_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SerializationError, match='Use the serializer "json"'):
        record(Unpicklable(lock=threading.Lock())).serialize_result()
    monkeypatch.setattr(Unpicklable, "__module__", "__main__")
    with pytest.raises(SerializationError, match=r"notebook or script.*move the class"):
        record(Unpicklable(lock=threading.Lock())).serialize_result()
    with pytest.raises(SerializationError) as caught:
        record(Unpicklable(lock=threading.Lock()), "json").serialize_result()
    assert "notebook" not in str(caught.value)


def test_a_payload_that_is_no_text_has_no_document() -> None:
    assert record(1, "tampered").serialize_result() == b"\xff"
    with pytest.raises(SerializationError, match="'tampered'"):
        record(1, "tampered").serialize()


def test_errors_of_our_own_come_through_as_they_are() -> None:
    with pytest.raises(IntegrityError):
        ResultRecord.deserialize_from_result_and_metadata(b"x", record(1, "tampered").serialize_metadata())


@pytest.mark.parametrize("serializer", TYPES)
def test_a_broken_payload_is_a_serialization_error(serializer: str) -> None:
    metadata = record(1, serializer).serialize_metadata()
    with pytest.raises(SerializationError, match=serializer) as caught:
        ResultRecord.deserialize_from_result_and_metadata(b"\x00broken", metadata)
    assert caught.value.serializer_type == serializer
    document = json.dumps({"metadata": json.loads(metadata), "result": "!broken"}).encode()
    with pytest.raises(SerializationError, match=serializer):
        ResultRecord.deserialize(document)


def test_a_broken_payload_is_not_quoted() -> None:
    payload = b'{"__class__": "test_records.Unpicklable", "data": {"nothing": "a secret"}}'
    with pytest.raises(SerializationError) as caught:
        ResultRecord.deserialize(payload, backup_serializer=JSONSerializer())
    assert "a secret" not in str(caught.value)


@pytest.mark.parametrize(
    "data", [b"", b"\x80\x05K\x01.", b"[1]", b'{"result": ', b"{}", b'{"a": 1}', b'{"metadata": {}}']
)
def test_bytes_that_are_no_document_need_a_backup_serializer(data: bytes) -> None:
    with pytest.raises(SerializationError, match="backup_serializer"):
        ResultRecord.deserialize(data)


@given(result=results)
@pytest.mark.parametrize("serializer", TYPES)
def test_a_bare_payload_is_read_with_the_backup_serializer(serializer: str, result: Any) -> None:
    backup = Serializer(type=serializer)
    read = ResultRecord.deserialize(backup.dumps(result), backup_serializer=backup)
    assert read.result == result
    assert read.serializer == backup


@pytest.mark.parametrize(
    "result", [{"data": 1}, {"result": [1], "expiration": "x"}, {"data": 1, "metadata": 2, "z": 3}]
)
def test_a_bare_payload_may_look_like_a_document(result: Any) -> None:
    read = ResultRecord.deserialize(json.dumps(result).encode(), backup_serializer=JSONSerializer())
    assert read.result == result


@pytest.mark.parametrize(
    "metadata", [b"", b"[]", b'{"serializer": {"type": "nonsense"}}', b'{"expiration": "2026-01-01"}']
)
def test_broken_metadata_is_a_serialization_error(metadata: bytes) -> None:
    with pytest.raises(SerializationError, match="metadata"):
        ResultRecord.deserialize_from_result_and_metadata(b"1", metadata)


def test_a_document_with_an_unknown_serializer_is_not_taken_for_a_payload() -> None:
    document = b'{"metadata": {"serializer": {"type": "nonsense"}}, "result": "x"}'
    with pytest.raises(SerializationError, match="known types"):
        ResultRecord.deserialize(document, backup_serializer=PickleSerializer())


PICKLED = base64.encodebytes(pickle.dumps([1, "a"])).decode()
COMPRESSED = base64.encodebytes(lzma.compress(PICKLED.encode())).decode()


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"data": PICKLED, "serializer": {"type": "pickle", "picklelib_version": "2.2.1"}}, [1, "a"]),
        ({"data": COMPRESSED, "serializer": {"type": "compressed/pickle"}}, [1, "a"]),
        ({"data": "[1, 2]", "serializer": {"type": "json", "jsonlib": "json"}}, [1, 2]),
        ({"data": PICKLED}, [1, "a"]),
        ({"result": PICKLED, "metadata": {}}, [1, "a"]),
    ],
    ids=str,
)
def test_the_old_flat_format(document: dict[str, Any], expected: Any) -> None:
    document |= {"expiration": "2026-03-01T12:30:00.000005+00:00", "prefect_version": "2.14.0"}
    read = ResultRecord.deserialize(json.dumps(document).encode())
    assert (read.result, read.expiration, read.metadata.prefect_version) == (expected, NOW, "2.14.0")


def test_a_document_as_prefect_writes_it() -> None:
    block = UUID(int=5)
    document = {
        "metadata": {
            "storage_key": "k",
            "expiration": "2026-03-01T12:30:00.000005Z",
            "serializer": {
                "type": "compressed/pickle",
                "serializer": {"type": "pickle", "picklelib": "cloudpickle", "picklelib_version": None},
                "compressionlib": "lzma",
            },
            "prefect_version": "3.8.8",
            "storage_block_id": str(block),
            "something_new": True,
        },
        "result": COMPRESSED,
    }
    read = ResultRecord.deserialize(json.dumps(document).encode())
    assert (read.result, read.expiration) == ([1, "a"], NOW)
    assert read.serializer == Serializer(type="compressed/pickle")
    assert (read.metadata.storage_key, read.metadata.storage_block_id) == ("k", block)
    assert ResultRecord.deserialize(read.serialize()) == read


@pytest.mark.parametrize("serializer", TYPES)
def test_the_document_says_nothing_prefect_would_refuse(serializer: str) -> None:
    document = json.loads(record([1], serializer).serialize())
    assert document.keys() == {"metadata", "result"}
    assert isinstance(document["result"], str)
    assert "prefect_version" not in document["metadata"], "Prefect wants text there or nothing"
    assert "pgresults." not in json.dumps(document["metadata"]["serializer"])


def test_a_record_takes_the_old_flat_form() -> None:
    metadata = ResultRecordMetadata(storage_key="k", serializer=JSONSerializer())
    flat = {"data": 1, "serializer": "json", "expiration": NOW, "prefect_version": "2.20.0"}
    record = ResultRecord(**flat)
    assert record.metadata == ResultRecordMetadata(
        serializer=JSONSerializer(), expiration=NOW, prefect_version="2.20.0"
    )
    assert flat == {"data": 1, "serializer": "json", "expiration": NOW, "prefect_version": "2.20.0"}
    for said in (metadata, metadata.model_dump()):
        record = ResultRecord(result=1, metadata=said, expiration=NOW)
        assert record == ResultRecord(result=1, metadata=metadata.model_copy(update={"expiration": NOW}))
    assert ResultRecord(result=1) == ResultRecord(result=1, metadata={})
    with pytest.raises(ValidationError, match="result"):
        ResultRecord()
