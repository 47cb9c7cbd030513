"""Checking a payload before anything is deserialized: its digest, and its signature where a key is set."""

import hashlib
from typing import Any

from pgresults.errors import IntegrityError
from pgresults.operations.results import Found, Head
from pgresults.records.signing import Trust
from pgresults.serializers.parts import Arrived
from pgresults.storage.columns import canonical


def require_intact(found: Found, key: str) -> Arrived:
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
    return payload


def require_signed(head: Head, key: str, trust: Trust) -> None:
    """Refuse a version that is not signed as its storage demands.

    Raises: IntegrityError.
    """
    if not trust.keys:
        return
    columns: dict[str, Any] = {**head._asdict(), "key": key}
    try:
        for name in ("serializer", "tags", "provenance"):
            columns[name] = columns[name] and canonical(columns[name])
    except (TypeError, ValueError, ArithmeticError, RecursionError) as error:
        raise IntegrityError(
            f"what is said of {key!r}, version {head.version}, is nothing that could have been signed: {error}",
            key=key,
            version=head.version,
        ) from error
    trust.verify(columns, head.signature, head.version)
