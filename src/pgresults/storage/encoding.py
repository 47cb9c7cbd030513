"""Records to rows and rows to records: everything about a version that is computed outside of a transaction."""

import hashlib
import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any
from uuid import UUID

from pydantic import ValidationError
from pydantic_core import to_json

from pgresults.errors import IntegrityError, MissingResult, PayloadTooLarge, SerializationError
from pgresults.operations.results import Found, Head, Upload
from pgresults.records.provenance import actor
from pgresults.records.records import ResultRecord, ResultRecordMetadata
from pgresults.records.signing import Trust
from pgresults.serializers import Serializer
from pgresults.serializers.names import pickle_allowed
from pgresults.sql.digests import canonical_json, content_digest, expiry_bytes, payload_digest, place_bytes
from pgresults.sql.guards import Guard

_NOTHING_DESCRIBED: dict[str, Any] = dict.fromkeys(
    (
        "expires_at",
        "expires_in",
        "serializer",
        "tags",
        "provenance",
        "storage_key",
        "storage_block_id",
        "pgresults_version",
        "prefect_version",
        "signature",
        "holder",
        "fence",
        "reason",
    )
)

_DECODE = json.JSONDecoder().raw_decode  # the server puts no space around what it prints


def prepare(
    trust: Trust, key: str, payload: bytes, described: Mapping[str, Any], limit: int, guard: Guard = Guard.NONE
) -> Upload:
    """Make a payload ready to be stored: its digests, its salt, its signature, and what is said about it.

    Parameters:
        trust: the storage where it goes, and what signs there.
        key: under which key.
        payload: the bytes.
        described: further columns: the provenance as an object, the serializer as a JSON text.
        limit: bytes that a payload may have.
        guard: what the write has to prove about the key's lock.

    Raises: PayloadTooLarge.
    """
    if len(payload) > limit:
        raise PayloadTooLarge(
            f"the payload of {key!r} has {len(payload):,} bytes, the limit is {limit:,} (PGRESULTS_MAX_PAYLOAD_BYTES); "
            "a compressed serializer may help",
            key=key,
            size=len(payload),
            limit=limit,
        )
    random, sha256 = os.urandom(32), hashlib.sha256(payload).digest()
    salt = random[:16]
    columns = {
        **_NOTHING_DESCRIBED,
        "action": "write",
        **described,
        "storage_id": trust.storage_id,
        "key": key,
        "actor": actor(),
        "payload_id": UUID(bytes=random[16:], version=4),
        "payload_digest": payload_digest(salt, sha256),
        "sha256": sha256,
        "size": len(payload),
        "data": payload,
        "salt": salt,
        "place_bytes": place_bytes(trust.storage_id, key),
    }
    columns["expiry_bytes"] = expiry_bytes(columns["expires_at"])
    serializer, provenance = columns["serializer"], columns["provenance"]
    columns["provenance"] = text = None if provenance is None else json_text(provenance)
    covered = {**columns, "serializer": serializer and canonical(serializer), "provenance": text and canonical(text)}
    columns["signature"] = covered["signature"] = trust.sign(covered)
    columns["content"] = content_digest(covered)
    return Upload(columns, provenance, guard)


def require_live(found: Found | None, key: str) -> Found:
    """What was found, if it is live.

    Raises: MissingResult with the reason.
    """
    if found is None or found.head.version == 0:
        raise MissingResult(f"no result under {key!r}: never written", key=key, reason="never written")
    head = found.head
    if head.payload_id is not None and not head.expired:
        return found
    if head.expired:
        raise _miss(key, "expired", utc(head.expires_at), None)
    reason = {"delete": "deleted", "expire": "expired", "redact": "redacted"}[head.action]
    raise _miss(key, reason, utc(head.at), head.actor)


def _miss(key: str, reason: str, at: datetime | None, by: str | None) -> MissingResult:
    who = f" by {by}" if by else ""
    when = f" at {at}" if at else ""
    raise MissingResult(f"no result under {key!r}: {reason}{when}{who}", key=key, reason=reason, at=at, by=by)


def require_intact(found: Found, key: str) -> bytes:
    """The payload of a live result.

    Raises: IntegrityError when it is not what was written.
    """
    head, payload = found
    if payload is None or len(payload) != head.size or hashlib.sha256(payload).digest() != head.sha256:
        raise IntegrityError(
            f"the payload of {key!r}, version {head.version}, is not what was written: its digest does not match. "
            "It was not unpickled; an earlier version may be intact: see `pgresults history`.",
            key=key,
            version=head.version,
        )
    return payload  # type: ignore[return-value] # a bytearray where it came in chunks


def metadata_of(head: Head, key: str, default: Serializer) -> ResultRecordMetadata:
    """The metadata of a live result; a payload stored without metadata gets the default serializer."""
    return ResultRecordMetadata(
        storage_key=head.storage_key or key,
        expiration=utc(head.expires_at),
        serializer=default if head.serializer is None else serializer_of(head.serializer),
        pgresults_version=head.pgresults_version or "unknown",
        prefect_version=head.prefect_version,
        storage_block_id=head.storage_block_id,
        version=head.version,
        created_at=head.created_at,
        size=head.size,
        sha256=head.sha256.hex() if head.sha256 else None,
        provenance=parsed(head.provenance),
    )


def require_signed(head: Head, key: str, trust: Trust) -> None:
    """Refuse a version that is not signed as its storage demands.

    Raises: IntegrityError.
    """
    if not trust.keys:
        return
    columns: dict[str, Any] = {**head._asdict(), "key": key}
    for name in ("serializer", "tags", "provenance"):
        columns[name] = columns[name] and canonical(columns[name])
    trust.verify(columns, head.signature, head.version)


def decode(found: Found, key: str, default: Serializer, trust: Trust) -> ResultRecord[Any]:
    """The record of a live result, its payload and signature verified before anything is deserialized.

    Raises: IntegrityError; SerializationError.
    """
    payload = require_intact(found, key)
    require_signed(found.head, key, trust)
    with pickle_allowed(trust.allow_pickle):
        return ResultRecord._from_payload(metadata_of(found.head, key, default), payload)


def utc(moment: datetime | None) -> datetime | None:
    """The moment in UTC, whatever the session's time zone; a naive one is in UTC already."""
    if moment is None:
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def json_text(value: Any) -> str:
    """A JSON object as the text of a column."""
    return to_json(value).decode()


def parsed(text: str | None) -> Any:
    """What a column of JSON holds."""
    return None if text is None else _DECODE(text)[0]


@lru_cache(maxsize=256)
def canonical(text: str) -> bytes:
    """The canonical bytes of a JSON text, as digests take them; see `canonical_json`.

    Remembered, because one write after the other has the same serializer and comes from the same process.
    """
    return canonical_json(json.loads(text))


@lru_cache(maxsize=256)
def _serializer(description: str, _classes: int) -> Serializer:
    return Serializer.model_validate_json(description)


def serializer_of(description: str) -> Serializer:
    """The serializer that a record names.

    Raises: SerializationError when it is not known or refused here.
    """
    try:
        return _serializer(description, Serializer._registrations)
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise SerializationError(f"the record names a serializer that cannot be used here: {reason}") from error
