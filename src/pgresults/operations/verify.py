"""Reading a page of keys with all that belongs to them, as it was at one moment."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice
from operator import itemgetter
from typing import Any, NamedTuple
from uuid import UUID

from pgresults.operations.requests import Execute, Operation, Row, Stream
from pgresults.sql import verify as statements
from pgresults.sql.times import utc

MAINTENANCE = UUID(int=0)
"""The storage whose one key has an entry for every time that the history was open to change."""

MAINTENANCE_NAME = "pgresults/maintenance"
"""What it is registered as."""

_NEVER = datetime.max.replace(tzinfo=UTC)
_LAST = 2**63 - 1


ANY_TRANSACTION = 2**63 - 1
"""The bound of who has no numbers of transactions to compare, but only times: several servers, each with its own."""


class Span(NamedTuple):
    """Which entries: those after a transaction number or a time; a seal covers the others."""

    bound: int
    until: datetime

    def until_later(self, by: timedelta) -> "Span":
        """As many transactions, up to a later time."""
        return self._replace(until=self.until + by)


class Window(NamedTuple):
    """A transaction for which the history was open to changes; ``at`` is None where no time of ours says when."""

    at: datetime | None
    db_user: str
    reason: str | None


class Leaf(NamedTuple):
    """What a seal covers of an entry."""

    key: str
    seq: int
    digest: bytes
    at: datetime
    xid: int = 0


class Task(NamedTuple):
    """A key to verify: from which entry on, and about how many of them there are."""

    key: str
    first: int
    entries: int


class StoredPayload:
    """What is known of a payload once its chunks have been read and dropped."""

    def __init__(self, salt: bytes | None, sha256: bytes | None) -> None:
        self.salt = salt
        self.sha256 = sha256
        self.size = 0
        self.chunks = 0
        self.in_order = True
        self._content = hashlib.sha256()

    def add(self, chunk: int, data: bytes) -> None:
        """Take the next chunk in."""
        self.in_order &= chunk == self.chunks
        self.chunks += 1
        self.size += len(data)
        self._content.update(data)

    @property
    def content_sha256(self) -> bytes:
        """The digest of what is there."""
        return self._content.digest()


@dataclass
class Page:
    """Some keys with their entries in order, their heads and payloads, all as they were at one moment.

    ``before`` are the digests of the entries that come right before; ``stray`` the payloads that no entry names.
    ``horizon`` is the first transaction to come, ``now`` the server's time as it sends it. Of the last key, ``rest``
    is what is left to be read.
    """

    entries: dict[str, list[dict[str, Any]]]
    rest: Task | None = None
    before: dict[str, bytes] = field(default_factory=dict)
    heads: dict[str, dict[str, Any]] = field(default_factory=dict)
    payloads: dict[tuple[str, UUID], StoredPayload] = field(default_factory=dict)
    stray: list[tuple[str, UUID]] = field(default_factory=list)
    horizon: int = 0
    now: bytes = b""

    def take_chunk(self, row: Row) -> None:
        """Take the next chunk of a payload in."""
        key, payload_id, chunk, data, salt, sha256 = row
        self.payloads.setdefault((key, payload_id), StoredPayload(salt, sha256)).add(chunk, data)


def tasks(storage_id: UUID, after: str | None, limit: int, span: Span | None) -> Operation[list[Task]]:
    """The next keys to verify, in order, the empty one among them if somebody has made one; none at the end."""
    place: dict[str, Any] = {"storage_id": storage_id, "after": after or "", "limit": limit}
    if span is None:
        rows = yield Execute(statements.FIRST_KEYS if after is None else statements.NEXT_KEYS, place)
    else:
        since = statements.FIRST_KEYS_SINCE if after is None else statements.NEXT_KEYS_SINCE
        rows = yield Execute(since, place | span._asdict())
    return [Task(key, first, max(1, entries)) for key, first, entries in rows]


def one_task(storage_id: UUID, key: str, span: Span | None) -> Operation[list[Task] | None]:
    """One key to verify, or none where it has no such entries; None for a key without any."""
    if span is None:
        return [Task(key, statements.FIRST, 1)]
    rows = yield Execute(statements.FIRST_SINCE, {"storage_id": storage_id, "key": key, **span._asdict()})
    first, first_of_all = rows[0]
    if first_of_all is None:
        return None
    return [] if first is None else [Task(key, first, 1)]


def page(storage_id: UUID, tasks: Sequence[Task], limit: int, *, partial: bool) -> Operation[Page]:
    """Read keys with all that belongs to them. To be run in a transaction of its own.

    Parameters:
        storage_id: where they are.
        tasks: the keys; those after one of which there is more to read are left out.
        limit: how many entries of a key to read at most.
        partial: whether only later entries are wanted, so that nothing is known of those that are not read.
    """
    yield Execute(statements.SNAPSHOT, {})
    place: dict[str, Any] = {"storage_id": storage_id, "limit": limit}
    read = yield from _read_entries(place, tasks)
    place["keys"] = list(read.entries)
    followers = [task for task in tasks if task.key in read.entries and task.first > 1]
    if followers:
        given = {"keys": [task.key for task in followers], "firsts": [task.first for task in followers]}
        read.before = dict((yield Execute(statements.BEFORE, place | given)))
    for row in (yield Execute(statements.HEADS, place)):
        head = dict(zip(statements.HEAD_NAMES, row, strict=True))
        read.heads[head["key"]] = head
    named = {(key, one["payload_id"]) for key, chain in read.entries.items() for one in chain if one["payload_id"]}
    pairs = {"keys": [key for key, _ in named], "payload_ids": [payload_id for _, payload_id in named]}
    yield Stream(statements.PAYLOADS, place | pairs, read.take_chunk)
    if not partial:
        place["keys"] = [key for key in read.entries if read.rest is None or key != read.rest.key]
        read.stray = [(key, payload_id) for key, payload_id in (yield Execute(statements.STRAY, place))]
    read.horizon, read.now = (yield Execute(statements.HORIZON, {}))[0]
    return read


def _read_entries(place: dict[str, Any], tasks: Sequence[Task]) -> Operation[Page]:
    given = {"keys": [task.key for task in tasks], "firsts": [task.first for task in tasks]}
    read = Page({task.key: [] for task in tasks})
    for row in (yield Execute(statements.ENTRIES, place | given)):
        entry = dict(zip(statements.ENTRY_NAMES, row, strict=True))
        read.entries[entry["key"]].append(entry)
    for number, (key, chain) in enumerate(read.entries.items(), 1):
        chain.sort(key=itemgetter("seq"))
        if len(chain) == place["limit"] and chain[-1]["seq"] < _LAST:
            read.rest = Task(key, chain[-1]["seq"] + 1, place["limit"])
            read.entries = dict(islice(read.entries.items(), number))
            break
    return read


def has_history(storage_id: UUID) -> Operation[bool]:
    """Whether a storage has any entry."""
    return bool((yield Execute(statements.HAS_HISTORY, {"storage_id": storage_id}))[0][0])


def count_since(storage_id: UUID, span: Span) -> Operation[tuple[int, datetime | None]]:
    """How many entries of a storage a seal of that span does not cover, and of when the oldest of them is."""
    rows = yield Execute(statements.COUNT_SINCE, {"storage_id": storage_id, **span._asdict()})
    return int(rows[0][0]), utc(rows[0][1])


def is_registered(storage_id: UUID, name: str) -> Operation[bool]:
    """Whether a storage is registered under its name."""
    return (yield Execute(statements.NAME, {"storage_id": storage_id})) == [(name,)]


def windows(span: Span | None) -> Operation[list[Window]]:
    """When the history was open to changes, of all storages at once; since what a seal covers, or ever."""
    parameters = (Span(0, _NEVER) if span is None else span)._asdict()
    rows = yield Execute(statements.WINDOWS, {"storage_id": MAINTENANCE, **parameters})
    return [Window(utc(at), db_user, reason) for at, db_user, reason in rows]


class Guard(NamedTuple):
    """A trigger that keeps the history, or what is on hold: of which table, and whether that is a partition."""

    name: str
    table: str
    is_partition: bool

    @property
    def on(self) -> str:
        """How it is to be on."""
        return "ENABLE ALWAYS" if self.name in ("append_only", "kept") else "ENABLE"


def missing_guards() -> Operation[list[Guard]]:
    """The triggers that should keep the history, and what is on hold, and are gone or off."""
    return [Guard(*row) for row in (yield Execute(statements.GUARDS, {}))]


def certain() -> Operation[Span]:
    """Up to where all transactions have ended."""
    rows = yield Execute(statements.CERTAIN, {})
    return Span(*rows[0])


def ahead(storage_id: UUID) -> Operation[int]:
    """How many entries name a transaction that is yet to come: no seal would cover them."""
    rows = yield Execute(statements.AHEAD, {"storage_id": storage_id})
    return int(rows[0][0])


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
