"""What is made in a quicker way for many is what the plain way makes."""

from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from pgresults.database.adapters import own_adapters
from pgresults.operations.arrays import BIGINT, BYTES, TEXT, UUIDS, ElementType, binary_array
from pgresults.records.signing import Trust
from pgresults.settings import Settings
from pgresults.sql.digests import CONTENT_FIELDS, content_digest, framed, framed_payload
from pgresults.storage import PostgresStorage
from pgresults.storage.encoding import Said
from tests.support.database import psycopg_url


@pytest.mark.parametrize("size", [0, 9, 10, 2**40])
def test_a_payloads_frame_is_the_frame_of_its_fields(size: int) -> None:
    fields = {"payload_id": uuid4(), "payload_digest": b"d" * 32, "size": size}
    names = [name for name in CONTENT_FIELDS if name in fields]
    assert framed_payload(fields["payload_id"].bytes, b"d" * 32, size) == framed(fields, names)


def test_versions_that_are_said_alike_are_each_its_own() -> None:
    described = {"holder": "h", "tags": ["a"], "provenance": {"n": 1}, "serializer": '{"type": "json"}'}
    said = Said(Trust.of(uuid4(), Settings()), described, 100)
    one, other = (said.upload(key, b"payload") for key in ("one", "other"))
    assert one.alike is other.alike
    assert not {one.own.payload_id, one.own.salt} & {other.own.payload_id, other.own.salt}
    assert one.columns["payload_id"].version == 4
    covered = {**one.columns, "provenance": {"n": 1}, "serializer": {"type": "json"}}
    assert one.own.content == content_digest(covered)


ARRAYS: dict[str, tuple[ElementType, list[Any]]] = {
    "bytea": (BYTES, [b"", b"a", b"\0" * 3000]),
    "bigint": (BIGINT, [0, -1, 2**62]),
    "text": (TEXT, ["", "é", "NULL", '"{,}"']),
    "uuid": (UUIDS, [UUID(int=0).bytes, UUID(int=2**128 - 1).bytes]),
}


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize("nulls", [[], [None]], ids=["all there", "some None"])
def test_arrays_arrive_as_they_were(storage: PostgresStorage, name: str, nulls: list[None]) -> None:
    kind, values = ARRAYS[name]
    given = [*nulls, *values, *nulls]
    context: Any = SimpleNamespace(adapters=own_adapters(), connection=None)
    with psycopg.connect(psycopg_url(storage.database.url()), context=context) as connection:
        row = connection.execute(f"SELECT %s::{name}[]", (binary_array(kind, given),)).fetchone()
    arrived = [one.bytes if isinstance(one, UUID) else one for one in row[0]] if row else []
    assert arrived == given
