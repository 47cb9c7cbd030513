"""Reading a page of keys with all that belongs to them, as it was at one moment."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from pgresults import verify_statements as statements
from pgresults.operations.requests import Execute, Operation, Row, Stream

MAINTENANCE = UUID(int=0)
"""The storage whose one key has an entry for every time that the history was open to change."""


class Span(NamedTuple):
    """Which entries: those after a transaction number or a time; a seal covers the others."""

    bound: int
    until: datetime


class Leaf(NamedTuple):
    """What a seal covers of an entry."""

    key: str
    seq: int
    digest: bytes
    at: datetime


class StoredPayload:
    """What is known of a payload once its chunks have been read and dropped."""

    def __init__(self, salt: bytes | None, sha256: bytes | None) -> None:
        self.salt = salt
        self.sha256 = sha256
        self.size = 0
        self._content = hashlib.sha256()

    def add(self, data: bytes) -> None:
        """Take the next chunk in."""
        self.size += len(data)
        self._content.update(data)

    @property
    def content_sha256(self) -> bytes:
        """The digest of what is there."""
        return self._content.digest()


@dataclass
class Page:
    """Some keys with their entries in order, their heads and their payloads."""

    keys: list[str]
    entries: list[dict[str, Any]] = field(default_factory=list)
    heads: dict[str, dict[str, Any]] = field(default_factory=dict)
    payloads: dict[tuple[str, UUID], StoredPayload] = field(default_factory=dict)

    def take_chunk(self, row: Row) -> None:
        """Take the next chunk of a payload in."""
        key, payload_id, _, data, salt, sha256 = row
        self.payloads.setdefault((key, payload_id), StoredPayload(salt, sha256)).add(data)


def page(storage_id: UUID, after: str, limit: int, key: str | None, span: Span | None) -> Operation[Page]:
    """Read a page of keys; empty at the end. To be run in a transaction of its own."""
    yield Execute(statements.SNAPSHOT, {})
    place: dict[str, Any] = {"storage_id": storage_id, **(span._asdict() if span else {})}
    if key is None:
        listing = statements.KEYS_SINCE if span else statements.ALL_KEYS
        keys = [row[0] for row in (yield Execute(listing, {**place, "after": after, "limit": limit}))]
    else:
        keys = [key]
    read = Page(keys)
    if keys:
        yield from _fill(read, {**place, "keys": keys}, since=span is not None)
    return read


def _fill(read: Page, place: dict[str, Any], *, since: bool) -> Operation[None]:
    names = (*statements.ENTRY_NAMES, "predecessor")
    rows = yield Execute(statements.ENTRIES_SINCE if since else statements.ENTRIES, place)
    read.entries = [dict(zip(names, row, strict=True)) for row in rows]
    for row in (yield Execute(statements.HEADS, place)):
        head = dict(zip(statements.HEAD_NAMES, row, strict=True))
        read.heads[head["key"]] = head
    if since:
        named = list({entry["payload_id"] for entry in read.entries if entry["payload_id"]})
        yield Stream(statements.PAYLOADS_NAMED, {**place, "payload_ids": named}, read.take_chunk)
    else:
        yield Stream(statements.PAYLOADS, place, read.take_chunk)


def certain() -> Operation[Span]:
    """Up to where all transactions have ended."""
    rows = yield Execute(statements.CERTAIN, {})
    return Span(*rows[0])


def count_keys(storage_id: UUID) -> Operation[int]:
    """How many keys there are or were."""
    rows = yield Execute(statements.COUNT_KEYS, {"storage_id": storage_id})
    return int(rows[0][0])


def leaves(storage_ids: Sequence[UUID], span: Span, sink: Callable[[UUID, Leaf], None]) -> Operation[None]:
    """Hand every entry that a seal of that span covers over, in order."""
    for storage_id in storage_ids:

        def hand_over(row: Row, of: UUID = storage_id) -> None:
            sink(of, Leaf(*row))

        yield Stream(statements.LEAVES, {"storage_id": storage_id, **span._asdict()}, hand_over)
