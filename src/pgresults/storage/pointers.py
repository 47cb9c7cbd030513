"""Metadata that is kept apart from its payload: an entry under the key that points to where the payload lies."""

from typing import Any

from pgresults.errors import IntegrityError
from pgresults.records.records import ResultRecord
from pgresults.storage.misses import payload_replaced


def pointed_to(pointer: ResultRecord[Any]) -> str:
    """The key under which the payload of an entry lies.

    Raises: IntegrityError when the entry is none.
    """
    target = pointer.result.get("storage_key") if isinstance(pointer.result, dict) else None
    if not isinstance(target, str):
        key = pointer.metadata.storage_key
        raise IntegrityError(f"what stands under {key!r} does not point to a payload", key=key)
    return target


def same_payload(record: ResultRecord[Any], pointer: ResultRecord[Any], key: str) -> ResultRecord[Any]:
    """The record, if it still is the one that an earlier entry pointed to.

    Raises: MissingResult when a later one has taken its place.
    """
    if record.metadata.sha256 != pointer.result.get("sha256"):
        raise payload_replaced(key, pointer.metadata.version, record.metadata.storage_key)
    return record


def known_by(pointer: ResultRecord[Any], record: ResultRecord[Any]) -> ResultRecord[Any]:
    """A record whose metadata is kept apart: others are computed from the version that points to it."""
    record.metadata._known_as(pointer._origin)
    return record
