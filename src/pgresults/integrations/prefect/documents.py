"""Prefect's result documents, taken apart into columns and put together again; no payload is deserialized."""

import binascii
import json
from collections.abc import Mapping
from itertools import chain
from typing import Any, NamedTuple
from uuid import UUID

from pgresults.arguments import aware_utc
from pgresults.integrations.prefect.strings import from_base64, from_text, joined, to_base64, to_text
from pgresults.operations.results import Upload
from pgresults.records.provenance import default_holder, recorded
from pgresults.records.records import VERSION
from pgresults.records.signing import Trust
from pgresults.serializers.base import DOCUMENT
from pgresults.sql.guards import Guard
from pgresults.sql.times import utc
from pgresults.storage.columns import json_text, parsed
from pgresults.storage.encoding import prepare, serializer_of
from pgresults.storage.postgres import PostgresStorage

BLOCK_STORAGE = "prefect"
"""The collection of results that a block keeps, unless it names another."""

_BASE64 = frozenset(("pickle", "compressed", "compressed/pickle", "compressed/json"))
"""The serializers whose payloads Prefect writes as base64."""

_MIDDLE = b',"result":"'
_FIELDS = frozenset(("storage_key", "expiration", "serializer", "prefect_version", "storage_block_id"))

_OLD_FIELDS = frozenset(("data", "serializer", "prefect_version"))


class Parts(NamedTuple):
    """What becomes of a blob: its payload, what its columns say, and what no column has a place for."""

    payload: bytes
    columns: dict[str, Any]
    further: dict[str, Any]


def take_apart(content: bytes, key: str) -> Parts:
    """The parts of a document that is to be stored under a key.

    A record gives its payload as raw bytes. The metadata that a key storage gets stays as it is and gives its
    expiration. Anything else stays as it is.
    """
    if (parts := _quickly(content, key)) is not None:
        return parts
    document = _object(content)
    try:
        if document.keys() == {"metadata", "result"}:
            serializer, text = document["metadata"]["serializer"], document["result"].encode()
            payload = _decoded(text) if serializer["type"] in _BASE64 else text
            return _record(document["metadata"], payload, key)
        if document.keys() >= _FIELDS:
            return Parts(content, _columns(document, key), {})
    except (ValueError, TypeError, AttributeError, KeyError):
        pass  # it only looks like one of Prefect's
    return Parts(content, {}, {})


def upload_of(
    storage: PostgresStorage,
    key: str,
    content: bytes,
    provenance: dict[str, Any],
    *,
    guard: Guard = Guard.NONE,
    described: Mapping[str, Any] | None = None,
) -> Upload:
    """A document ready to be stored.

    Parameters:
        storage: where it goes.
        key: under which key.
        content: the document, or any other bytes.
        provenance: what is known about it beside what is recorded anyway.
        guard: what the write has to prove about the key's lock.
        described: further columns, such as the proof's parameters.

    Raises: PayloadTooLarge.
    """
    payload, columns, further = take_apart(content, key)
    known = recorded(None) | provenance | ({"prefect": {"metadata": further}} if further else {})
    all_described = {**columns, "holder": default_holder(), "provenance": known, **(described or {})}
    return prepare(storage._trust, key, payload, all_described, storage.settings.max_payload_bytes, guard)


def put_together(columns: Mapping[str, Any], key: str, payload: bytes, trust: Trust) -> bytes:
    """The document of a version; what never was a record comes back as it is.

    Parameters:
        columns: what is said of the version where it is stored, or is going to be.
        key: under which key.
        payload: the bytes.
        trust: the storage that has it.
    """
    described, prefect_version = columns["serializer"], columns["prefect_version"]
    if described is None:
        return bytes(payload)
    serializer: dict[str, Any] = json.loads(described)
    if prefect_version is None:  # one of our own: in Prefect's terms its functions have other names
        ours = serializer_of(described, trust)
        serializer = ours.model_dump(mode="json", context=DOCUMENT)
        text = to_text(ours._to_text(payload).encode())
    else:
        text = to_base64(payload) if serializer["type"] in _BASE64 else to_text(payload)
    expiration, block_id = utc(columns["expires_at"]), columns["storage_block_id"]
    metadata = {
        "storage_key": columns["storage_key"] or key,
        "expiration": expiration.isoformat() if expiration else None,
        "serializer": serializer,
        "storage_block_id": str(block_id) if block_id else None,
    }
    if prefect_version is not None:
        metadata["prefect_version"] = prefect_version
    further = ((parsed(columns["provenance"]) or {}).get("prefect") or {}).get("metadata") or {}
    said = json.dumps(metadata | further).encode()
    return joined(chain((b'{"metadata": ', said, b', "result": "'), text, (b'"}',)))


def is_damaged(content: bytes) -> bool:
    """Whether a file is surely not what somebody meant to write: empty, or a document that breaks off."""
    return not content or (content.startswith(b'{"metadata"') and not _object(content))


def is_old_record(content: bytes) -> bool:
    """Whether a file is a record as the first versions wrote them, without metadata of its own: it stays as it is."""
    return _object(content).keys() >= _OLD_FIELDS


def _object(content: bytes) -> dict[str, Any]:
    """The JSON object that the bytes are, or an empty one."""
    if not content.startswith(b"{"):
        return {}
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _quickly(content: bytes, key: str) -> Parts | None:
    """The parts of a record as Prefect writes it; its payload is not parsed with the rest, for it may be large."""
    middle = content.find(_MIDDLE)
    if middle < 0 or not content.startswith(b'{"metadata":') or not content.endswith(b'"}'):
        return None
    try:
        metadata = json.loads(content[:middle] + b"}")["metadata"]
        text = memoryview(content)[middle + len(_MIDDLE) : -2]
        payload = from_base64(text) if metadata["serializer"]["type"] in _BASE64 else from_text(text)
        return _record(metadata, payload, key)
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def _record(metadata: dict[str, Any], payload: bytes, key: str) -> Parts:
    serializer = metadata["serializer"]
    if not isinstance(metadata["prefect_version"], str) or not isinstance(serializer["type"], str):
        raise TypeError("no record of Prefect's")
    further = {name: value for name, value in metadata.items() if name not in _FIELDS}
    return Parts(payload, _columns(metadata, key) | {"serializer": json_text(serializer)}, further)


def _columns(metadata: dict[str, Any], key: str) -> dict[str, Any]:
    expiration, block_id = metadata.get("expiration"), metadata.get("storage_block_id")
    storage_key = metadata.get("storage_key")
    return {
        "expires_at": aware_utc(expiration) if expiration is not None else None,
        "storage_key": storage_key if storage_key != key else None,
        "storage_block_id": UUID(block_id) if block_id is not None else None,
        "pgresults_version": VERSION,
        "prefect_version": metadata["prefect_version"],
    }


def _decoded(text: bytes) -> bytes:
    """The bytes of a base64 text; raises ValueError for anything else."""
    return binascii.a2b_base64(text.replace(b"\n", b""), strict_mode=True)
