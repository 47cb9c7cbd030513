"""The digests that chain a key's history, written once for Python and once for SQL.

An entry's digest covers the digest before it, what differs from key to key (`ROW_FIELDS`, which only the server knows
for sure) and a digest of the rest (`CONTENT_FIELDS`), so that one statement can append to many keys. Python recomputes
what the server computed: an auditor need not trust the server.
"""

import hashlib
import json
import struct
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal, Inexact, InvalidOperation
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Integer, LargeBinary, Text, cast, func, literal_column, type_coerce

GENESIS = b""
"""What stands for the digest before the first entry."""

CONTENT_FIELDS = (
    "action",
    "actor",
    "holder",
    "fence",
    "reason",
    "payload_id",
    "payload_digest",
    "size",
    "serializer",
    "tags",
    "provenance",
    "storage_key",
    "storage_block_id",
    "pgresults_version",
    "prefect_version",
    "signature",
)
"""What an entry's content digest covers, in this order."""

LATER_FIELDS = ("derived_from",)
"""What it covers as well, each with its name, where that says something: what says nothing has the digest of old."""

_JSON_FIELDS = frozenset(("serializer", "tags", "provenance", *LATER_FIELDS))

_LENGTH = struct.Struct(">i")
_NONE = _LENGTH.pack(-1)
_PAYLOAD = struct.Struct(">i16si32si")
POSTGRES_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_EXACT = Context(prec=5000, traps=[InvalidOperation, Inexact])
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)
_NUMBER = "\0"  # no name in a `jsonb` object, so a number is never mistaken for one


def canonical_json(value: Any) -> bytes:
    """One text for one JSON value, however often it went through Postgres' ``jsonb`` and back.

    Raises: TypeError, ValueError, ArithmeticError or RecursionError for what ``jsonb`` cannot keep.
    """
    return _ENCODER.encode(_plain(value)).encode()


def content_digest(fields: Mapping[str, Any]) -> bytes:
    """The digest of what one statement says about every entry it appends; missing fields count as None."""
    return hashlib.sha256(framed(fields, CONTENT_FIELDS) + framed_later(fields)).digest()


def entry_digest(
    previous: bytes,
    storage_id: UUID,
    key: str,
    seq: int,
    version: int,
    at: datetime,
    expires_at: datetime | None,
    db_user: str,
    content: bytes,
) -> bytes:
    """The digest that binds an entry to all that came before it under its key."""
    parts = (
        _framed(previous),
        place_bytes(storage_id, key),
        struct.pack(">qq", seq, version),
        _time_bytes(at),
        expiry_bytes(expires_at),
        _framed(db_user.encode()),
        content,
    )
    return hashlib.sha256(b"".join(parts)).digest()


def place_bytes(storage_id: UUID, key: str) -> bytes:
    """An entry's storage and key, as its digest takes them."""
    return storage_id.bytes + _framed(key.encode())


def expiry_bytes(expires_at: datetime | None) -> bytes:
    """An entry's expiration, as its digest takes it."""
    return _framed(None if expires_at is None else _time_bytes(expires_at))


def entry_digest_sql(
    previous: ColumnElement[Any],
    place: ColumnElement[Any],
    seq: ColumnElement[Any],
    version: ColumnElement[Any],
    at: ColumnElement[Any],
    expiry: ColumnElement[Any],
    db_user: ColumnElement[Any],
    content: ColumnElement[Any],
) -> ColumnElement[bytes]:
    """`entry_digest` as an expression that the server computes under the row's lock.

    ``place`` and ``expiry`` are the bytes that the functions of these names give, computed here or there: where one
    statement writes one row, a dozen function calls of the server's are saved.
    """
    return func.sha256(
        _joined(
            _framed_sql(previous),
            place,
            func.int8send(seq),
            func.int8send(version),
            func.timestamptz_send(at),
            expiry,
            _framed_sql(func.convert_to(cast(db_user, Text), literal_column("'UTF8'"))),
            content,
        ),
        type_=LargeBinary,
    )


def place_sql(storage_id: ColumnElement[Any], key: ColumnElement[Any]) -> ColumnElement[bytes]:
    """`place_bytes` as an expression."""
    return _joined(func.uuid_send(storage_id), _framed_sql(func.convert_to(key, literal_column("'UTF8'"))))


def expiry_sql(expires_at: ColumnElement[Any]) -> ColumnElement[bytes]:
    """`expiry_bytes` as an expression."""
    return func.coalesce(
        _framed_sql(func.timestamptz_send(expires_at)), func.int4send(literal_column("-1", Integer)), type_=LargeBinary
    )


def framed(fields: Mapping[str, Any], names: Iterable[str]) -> bytes:
    """The bytes of some fields, which no other values share; missing fields count as None.

    What a field of JSON holds may be given as its canonical bytes.
    """
    parts: list[bytes] = []
    for name in names:
        value = fields.get(name)
        if value is None:
            parts.append(_NONE)
        else:
            data = value if type(value) is bytes else _content_bytes(name, value)
            parts.append(_LENGTH.pack(len(data)))
            parts.append(data)
    return b"".join(parts)


def framed_later(fields: Mapping[str, Any]) -> bytes:
    """The bytes of those `LATER_FIELDS` that say something; none where none does."""
    said = [name for name in LATER_FIELDS if fields.get(name) is not None]
    return b"".join([_framed(name.encode()) + framed(fields, (name,)) for name in said]) if said else b""


def framed_payload(payload_id: bytes, digest: bytes, size: int) -> bytes:
    """What `framed` gives of a version's ``payload_id``, ``payload_digest`` and ``size``, in a third of the time."""
    number = b"%d" % size
    return _PAYLOAD.pack(16, payload_id, 32, digest, len(number)) + number


def payload_digest(salt: bytes, sha256: bytes) -> bytes:
    """What the history keeps of a payload: of no use to guess it by, once the salt is erased."""
    return hashlib.sha256(salt + sha256).digest()


def _framed(data: bytes | None) -> bytes:
    """Length first, so that no two lists of fields share their bytes; None is not empty."""
    return _NONE if data is None else _LENGTH.pack(len(data)) + data


def _framed_sql(data: ColumnElement[Any]) -> ColumnElement[Any]:
    return func.int4send(func.octet_length(data)).op("||")(data)


def _joined(first: ColumnElement[Any], *further: ColumnElement[Any]) -> ColumnElement[bytes]:
    joined: ColumnElement[Any] = type_coerce(first, LargeBinary)
    for part in further:
        joined = joined.op("||")(type_coerce(part, LargeBinary))
    return joined


def _content_bytes(name: str, value: Any) -> bytes:
    if name in _JSON_FIELDS:  # a text there is a JSON text: it must not pass for the object that it spells
        return canonical_json(value)
    if isinstance(value, str):
        return value.encode()
    return value.bytes if isinstance(value, UUID) else b"%d" % value


def _time_bytes(moment: datetime) -> bytes:
    return struct.pack(">q", (moment - POSTGRES_EPOCH) // timedelta(microseconds=1))


def _plain(value: Any) -> Any:
    """The value with its numbers as exact decimal texts: ``jsonb`` keeps numbers, not how they were written."""
    match value:
        case None | bool():
            return value
        case str():
            return _text(value)
        case int() | float():
            number = Decimal(repr(value)).normalize(_EXACT)
            if not number.is_finite():
                raise ValueError(f"{value} is no JSON number")
            return {_NUMBER: str(number or Decimal(0))}
        case dict():
            return {_text(name): _plain(item) for name, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
    raise TypeError(f"{type(value).__name__} is no type of JSON")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"names in an object are texts, not {type(value).__name__}")
    if "\0" in value:
        raise ValueError("a text holds a NUL character, which Postgres cannot keep")
    return value
