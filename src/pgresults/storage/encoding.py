"""A version as columns and columns as a record: everything about it that is computed outside of a transaction."""

import hashlib
import json
import os
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from pydantic import ValidationError

from pgresults.errors import IntegrityError, PayloadTooLarge, SerializationError
from pgresults.operations.awaiting import UNKNOWN, Ancestry
from pgresults.operations.payloads import Payload, sha256_of
from pgresults.operations.results import Found, Head, Own, Upload
from pgresults.records.provenance import actor
from pgresults.records.records import ResultRecord, ResultRecordMetadata
from pgresults.records.signing import Trust
from pgresults.serializers import Serializer
from pgresults.serializers.parts import Arrived
from pgresults.serializers.permits import Permit, named_by_data, within_permit
from pgresults.sql.digests import (
    CONTENT_FIELDS,
    expiry_bytes,
    framed,
    framed_later,
    framed_payload,
    payload_digest,
    place_bytes,
)
from pgresults.sql.guards import Guard
from pgresults.sql.times import expiry
from pgresults.storage.checking import require_intact, require_signed
from pgresults.storage.columns import canonical, json_text, parsed

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
        "derived_from",
        "holder",
        "fence",
        "reason",
    )
)

_BEFORE_PAYLOAD, _AFTER_PAYLOAD, _AT_LAST = CONTENT_FIELDS[:5], CONTENT_FIELDS[8:-1], CONTENT_FIELDS[-1:]
"""What an entry's content digest covers, beside the payload: what is alike for many, and at last the signature."""

_UNSIGNED = framed({}, _AT_LAST)
_VARIANT, _RANDOM = 0x4000_8000_0000_0000_0000, ~0xF000_C000_0000_0000_0000
"""What makes an id of random bits one of version 4, and the bits that stay random."""


def prepare(
    trust: Trust,
    key: str,
    payload: Payload,
    described: Mapping[str, Any],
    limit: int,
    guard: Guard = Guard.NONE,
    lineage: Ancestry = UNKNOWN,
) -> Upload:
    """Make a payload ready to be stored: its digests, its salt, its signature, and what is said about it.

    Parameters:
        trust: the storage where it goes, and what signs there.
        key: under which key.
        payload: the bytes, or a file of them.
        described: further columns: the provenance as an object, the serializer as a JSON text.
        limit: bytes that a payload may have.
        guard: what the write has to prove about the key's lock.
        lineage: what it was computed from.

    Raises: PayloadTooLarge.
    """
    return Said(trust, described, limit).upload(key, payload, guard, lineage)


class Said:
    """What is said alike of versions in one storage, computed once for all of them.

    Parameters:
        trust: the storage where they go, and what signs there.
        described: columns: the provenance as an object, the serializer as a JSON text.
        limit: bytes that a payload may have.
    """

    def __init__(self, trust: Trust, described: Mapping[str, Any], limit: int) -> None:
        columns = {**_NOTHING_DESCRIBED, "action": "write", **described, "storage_id": trust.storage_id}
        columns["actor"], columns["expiry_bytes"] = actor(), expiry_bytes(columns["expires_at"])
        self._provenance, serializer = columns["provenance"], columns["serializer"]
        columns["provenance"] = text = None if self._provenance is None else json_text(self._provenance)
        self._covered = {"serializer": serializer and canonical(serializer), "provenance": text and canonical(text)}
        self._trust, self._alike, self._limit = trust, columns, limit
        covered = {**columns, **self._covered}
        self._before, self._after = framed(covered, _BEFORE_PAYLOAD), framed(covered, _AFTER_PAYLOAD)
        self._later = framed_later(columns)

    def upload(self, key: str, payload: Payload, guard: Guard = Guard.NONE, lineage: Ancestry = UNKNOWN) -> Upload:
        """A version ready to be stored; see `prepare`."""
        if (size := len(payload)) > self._limit:
            raise PayloadTooLarge(
                f"the payload of {key!r} has {size:,} bytes, the limit is {self._limit:,} "
                "(PGRESULTS_MAX_PAYLOAD_BYTES); a compressed serializer may help",
                key=key,
                size=size,
                limit=self._limit,
            )
        random, sha256 = os.urandom(32), sha256_of(payload)
        salt = random[:16]
        payload_id = (int.from_bytes(random[16:], "big") & _RANDOM | _VARIANT).to_bytes(16, "big")
        proof = payload_digest(salt, sha256)
        signature, signed = None, _UNSIGNED
        if self._trust.keys:
            its_own = {"key": key, "payload_id": payload_id, "sha256": sha256, "size": size}
            signature = self._trust.sign({**self._alike, **self._covered, **its_own})
            signed = framed({"signature": signature}, _AT_LAST)
        covered = b"".join((self._before, framed_payload(payload_id, proof, size), self._after, signed))
        content, place = hashlib.sha256(covered + self._later).digest(), place_bytes(self._trust.storage_id, key)
        own = Own(key, payload_id, size, payload, salt, sha256, proof, content, place, signature)
        return Upload(own, self._alike, self._provenance, guard, lineage.awaiting(covered), lineage.origin)


def metadata_of(head: Head, key: str, default: Serializer, trust: Trust) -> ResultRecordMetadata:
    """The metadata of a live result; a payload stored without metadata gets the default serializer.

    Raises: SerializationError for a serializer that cannot be used; IntegrityError for what nobody could have written.
    """
    try:
        return _metadata(head, key, default, trust)
    except SerializationError:
        raise
    except (ValidationError, ValueError) as error:
        raise IntegrityError(
            f"what is said of {key!r}, version {head.version}, is damaged: {error}", key=key, version=head.version
        ) from error


def _metadata(head: Head, key: str, default: Serializer, trust: Trust) -> ResultRecordMetadata:
    return ResultRecordMetadata(
        storage_key=head.storage_key or key,
        expiration=expiry(head.expires_at),
        serializer=default if head.serializer is None else serializer_of(head.serializer, trust),
        pgresults_version=head.pgresults_version or "unknown",
        prefect_version=head.prefect_version,
        storage_block_id=head.storage_block_id,
        version=head.version,
        created_at=head.created_at,
        size=head.size,
        sha256=head.sha256.hex() if head.sha256 else None,
        provenance=parsed(head.provenance),
    )


def decode(found: Found, key: str, default: Serializer, trust: Trust, *, spend: bool = False) -> ResultRecord[Any]:
    """The record of a live result, its payload and signature verified before anything is deserialized.

    ``spend`` says that a large payload is not needed any more.

    Raises: IntegrityError; SerializationError.
    """
    payload = require_intact(found, key)
    require_signed(found.head, key, trust)
    return loaded(metadata_of(found.head, key, default, trust), payload, trust, spend=spend)


def loaded(metadata: ResultRecordMetadata, payload: Arrived, trust: Trust, *, spend: bool = False) -> ResultRecord[Any]:
    """The record of a payload that was checked, within the bounds of its storage.

    Raises: SerializationError; PayloadTooLarge.
    """
    try:
        with within_permit(trust.permit):
            return ResultRecord._from_payload(metadata, payload, spend=spend)
    except SerializationError as error:
        key = metadata.storage_key
        raise SerializationError(
            f"version {metadata.version} of {key!r} cannot be loaded. {error} Else compute it again and write it (a "
            f"task does so by itself), take its bytes with storage.read_path({key!r}), or store.delete({key!r}).",
            key=key,
            result_type=error.result_type,
            serializer_type=error.serializer_type,
        ) from (error.__cause__ or error)


@lru_cache(maxsize=256)
def _serializer(description: str, _permit: Permit, _classes: int) -> Serializer:
    if not isinstance(fields := json.loads(description), dict):
        raise SerializationError(f"the record names no serializer, but has {description[:80]} in that place")
    with named_by_data():
        return Serializer.model_validate(fields)


def serializer_of(description: str, trust: Trust) -> Serializer:
    """The serializer that a record names; nothing is imported for that unless the program or its settings name it.

    Raises: SerializationError when it is not known or refused here.
    """
    try:
        with within_permit(trust.permit):
            return _serializer(description, trust.permit, Serializer._registrations)
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise SerializationError(f"the record names a serializer that cannot be used here: {reason}") from error
