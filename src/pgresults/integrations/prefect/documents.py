"""Prefect's result documents, taken apart into columns and put together again; no payload is deserialized."""

import binascii
import json
from collections.abc import Mapping
from typing import Any, NamedTuple
from uuid import UUID

from pgresults.arguments import aware_utc
from pgresults.operations.results import Head, Upload
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
_LINE = 76
"""The length of a line of base64; in a JSON string two more characters end it."""

_PIECE = 512 * (_LINE + 2)
"""How much text is decoded at a time: whole lines, or a multiple of four characters."""

_FIELDS = frozenset(("storage_key", "expiration", "serializer", "prefect_version", "storage_block_id"))


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


def put_together(head: Head, key: str, payload: bytes, trust: Trust) -> bytes:
    """The document of a stored version; what never was a record comes back as it is."""
    if head.serializer is None:
        return bytes(payload)
    serializer: dict[str, Any] = json.loads(head.serializer)
    if head.prefect_version is None:  # one of our own: in Prefect's terms its functions have other names
        ours = serializer_of(head.serializer, trust)
        serializer = ours.model_dump(mode="json", context=DOCUMENT)
        quoted = [json.dumps(ours._to_text(payload)).encode()]
    else:
        quoted = _quoted(serializer, payload)
    expiration = utc(head.expires_at)
    metadata = {
        "storage_key": head.storage_key or key,
        "expiration": expiration.isoformat() if expiration else None,
        "serializer": serializer,
        "storage_block_id": str(head.storage_block_id) if head.storage_block_id else None,
    }
    if head.prefect_version is not None:
        metadata["prefect_version"] = head.prefect_version
    further = ((parsed(head.provenance) or {}).get("prefect") or {}).get("metadata") or {}
    return b"".join((b'{"metadata": ', json.dumps(metadata | further).encode(), b', "result": ', *quoted, b"}"))


def is_damaged(content: bytes) -> bool:
    """Whether a file is surely not what somebody meant to write: empty, or a document that breaks off."""
    return not content or (content.startswith(b'{"metadata"') and not _object(content))


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
    """The parts of a record as Prefect writes it, without parsing the payload as JSON, which would take most time."""
    middle = content.find(_MIDDLE)
    if middle < 0 or not content.startswith(b'{"metadata":') or not content.endswith(b'"}'):
        return None
    try:
        metadata = json.loads(content[:middle] + b"}")["metadata"]
        if metadata["serializer"]["type"] not in _BASE64:
            return None
        return _record(metadata, _decoded_lines(memoryview(content)[middle + len(_MIDDLE) : -2]), key)
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


def _decoded_lines(text: memoryview) -> bytes:
    """The bytes of a base64 text as it stands in a JSON string, with or without lines; raises ValueError for others.

    Small pieces stay in the processor's cache, and where the lines end is known without looking for it.
    """
    if bytes(text[-2:]) == b"\\n":
        text = text[:-2]
    return b"".join(_decoded_piece(text[start : start + _PIECE]) for start in range(0, len(text), _PIECE))


def _decoded_piece(text: memoryview) -> bytes:
    piece = bytearray(text)
    ends = len(piece[_LINE :: _LINE + 2])
    if piece[_LINE :: _LINE + 2] == b"\\" * ends and piece[_LINE + 1 :: _LINE + 2] == b"n" * ends:
        del piece[_LINE + 1 :: _LINE + 2]
        del piece[_LINE :: _LINE + 1]
    return binascii.a2b_base64(piece, strict_mode=True)


def _quoted(serializer: dict[str, Any], payload: bytes) -> list[bytes]:
    """A payload as the JSON string that stands for it in Prefect's documents, in parts: a large one is copied once."""
    if serializer["type"] in _BASE64:
        return [b'"', binascii.b2a_base64(payload, newline=False), b'"']
    return [json.dumps(payload.decode()).encode()]
