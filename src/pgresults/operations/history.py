"""Asking what was under a key, prolonging what is, and taking away for good."""

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from pgresults.errors import IntegrityError
from pgresults.operations.requests import Execute, Operation
from pgresults.operations.results import Found, Head, Listed, as_taken_away, clear_way, further_chunks
from pgresults.serializers.parts import Arrived
from pgresults.sql import history as statements
from pgresults.sql.compiled import Statement
from pgresults.sql.digests import canonical_json, content_digest, payload_digest
from pgresults.sql.guards import Guard
from pgresults.sql.holds import SETTLE
from pgresults.sql.results import READ_PAST_CHUNKS

_KEYS_A_STATEMENT = 1000
_TEXTS = ("serializer", "tags", "provenance", "derived_from")


class Entry(NamedTuple):
    """An entry of a key's history; ``provenance`` is a JSON text, ``sha256`` None when there is no payload any more."""

    seq: int
    version: int
    action: str
    at: datetime
    actor: str
    db_user: str
    holder: str | None
    fence: int | None
    reason: str | None
    expires_at: datetime | None
    size: int | None
    tags: list[str] | None
    provenance: str | None
    digest: bytes
    payload_id: UUID | None
    sha256: bytes | None


class Removal(NamedTuple):
    """How a payload went: by which action, when, and by whom."""

    action: str
    at: datetime
    actor: str


class Past(NamedTuple):
    """A key's head as it was, with its payload unless that is gone, and then how it went."""

    found: Found
    removal: Removal | None


def entries(storage_id: UUID, key: str) -> Operation[list[Entry]]:
    """The history of a key, oldest first."""
    rows = yield Execute(statements.HISTORY, {"storage_id": storage_id, "key": key})
    return [Entry(*row) for row in rows]


def read_version(storage_id: UUID, key: str, version: int) -> Operation[Past | None]:
    """A version as it was last described; None where there is no such version."""
    place = {"storage_id": storage_id, "key": key}
    return (yield from _read_past(statements.READ_VERSION, place, {"version": version}))


def read_as_of(storage_id: UUID, key: str, moment: datetime) -> Operation[Past | None]:
    """What a key's head was at a moment; None where there was none."""
    place = {"storage_id": storage_id, "key": key}
    return (yield from _read_past(statements.READ_AS_OF, place, {"moment": moment}))


def _read_past(statement: Statement, place: dict[str, Any], parameters: dict[str, Any]) -> Operation[Past | None]:
    rows = yield Execute(statement, place | parameters)
    if not rows:
        return None
    *columns, seq, proof, salt, first = rows[0]
    head = Head(*columns)
    if head.payload_id is None or head.expired:
        return Past(Found((yield from as_taken_away(place, head, seq)), None), None)
    payload = None if first is None else (yield from _whole(place, head, first))
    if payload is None:
        return Past(Found(head, None), (yield from _removal(place, seq, head.version)))
    if payload_digest(salt or b"", head.sha256 or b"") != proof:
        raise IntegrityError(
            f"the payload of {place['key']!r}, version {head.version}, is not the one that its history names: "
            "run `pgresults verify`",
            key=place["key"],
            version=head.version,
        )
    return Past(Found(head, payload), None)


def _removal(place: dict[str, Any], seq: int, version: int) -> Operation[Removal | None]:
    for action, at, actor, of, reason in (yield Execute(statements.REMOVALS, {**place, "seq": seq})):
        if takes_away(action, of, reason, version):
            return Removal(action, at, actor)
    return None


def takes_away(action: str, of: int, reason: str | None, version: int) -> bool:
    """Whether an entry takes the payload of an earlier entry's version away."""
    match action:
        case "redact":
            return True
        case "expire":
            return of == version
        case "retain":
            return retained_upto(reason) >= version
    return False


def _whole(place: dict[str, Any], head: Head, first: bytes) -> Operation[Arrived | None]:
    """The payload that begins with a chunk; None when the others went meanwhile."""
    if head.size is None or head.size <= len(first):
        return first
    return (yield from further_chunks(READ_PAST_CHUNKS, {**place, "payload_id": head.payload_id}, first))


def exists_as_of(storage_id: UUID, key: str, moment: datetime) -> Operation[bool]:
    """Whether a key had a live result at a moment."""
    rows = yield Execute(statements.EXISTS_AS_OF, {"storage_id": storage_id, "key": key, "moment": moment})
    return bool(rows and rows[0][0])


def touch(entry: Mapping[str, Any], guard: Guard) -> Operation[bool]:
    """Give a live result another expiration; False where there is none. To be run in a transaction."""
    while rows := (yield Execute(statements.LOCK_LIVE, entry)):
        said = {**entry, "content": content_of(entry["key"], rows[0], entry)}
        if (yield Execute(statements.TOUCH[guard], said)):
            return True
        yield from clear_way(entry, guard)
    return False


def content_of(key: str, row: Iterable[Any], entry: Mapping[str, Any]) -> bytes:
    """The content digest of an entry that says again of a version what its row says.

    Raises: IntegrityError for a row that no write of ours could have left.
    """
    said = dict(zip(statements.DESCRIBED, row, strict=True))
    try:
        objects = {name: said[name] and canonical_json(json.loads(said[name])) for name in _TEXTS}
    except (TypeError, ValueError, ArithmeticError, RecursionError) as error:
        raise IntegrityError(f"what is said of {key!r} is damaged: {error}; run `pgresults verify`", key=key) from error
    return content_digest({**said, **objects, **entry})


def redact(entry: Mapping[str, Any], guard: Guard) -> Operation[int | None]:
    """Erase the payloads of all versions; None for a key that never was. To be run in a transaction.

    The key's head is locked first: what is erased then is all there is.
    """
    while rows := (yield Execute(statements.LOCK_HEAD, entry)):
        action, anything_left = rows[0]
        if action == "redact" and not anything_left:
            return 0
        if (yield Execute(statements.REDACT[guard], entry)):
            return int((yield Execute(statements.ERASE, entry))[0][0])
        yield from clear_way(entry, guard)
    return None


def invalidate(entry: Mapping[str, Any], chosen: frozenset[str], *, guarded: bool) -> Operation[int]:
    """Take the current versions of all live results that meet the chosen conditions away.

    Parameters:
        entry: what to say of each, with the conditions' values.
        chosen: the conditions.
        guarded: whether no other holder may have a lock of any of them.

    Raises: LockedError; then nothing is taken away.
    """
    while True:
        number, obstacle = (yield Execute(statements.invalidate(chosen, guarded=guarded), entry))[0]
        if obstacle is None:
            return int(number)
        yield from clear_way({**entry, "key": obstacle}, Guard.NOT_HELD)


def delete_all(entry: Mapping[str, Any], keys: Sequence[str], *, guarded: bool) -> Operation[int]:
    """Take the current versions of several keys away, in a transaction of their own; see `invalidate`."""
    deleted = 0
    for start in range(0, len(keys), _KEYS_A_STATEMENT):
        some = {**entry, "keys": list(keys[start : start + _KEYS_A_STATEMENT])}
        deleted += yield from invalidate(some, frozenset(("keys",)), guarded=guarded)
    return deleted


def expiring(storage_id: UUID, within: timedelta, limit: int | None) -> Operation[list[Listed]]:
    """What is live and ceases to be within a time, the next one first."""
    rows = yield Execute(statements.EXPIRING, {"storage_id": storage_id, "within": within, "limit": limit})
    listed = [Listed(*row) for row in rows]
    return [
        one._replace(expires_at=one.expires_at and one.expires_at.replace(tzinfo=UTC), created_at=_utc(one.created_at))
        for one in listed
    ]


def _utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC)


def expired(storage_id: UUID, holder: str) -> Operation[tuple[int, int]]:
    """How many results a sweep would take, and how many more are on hold."""
    rows = yield Execute(statements.EXPIRED, {"storage_id": storage_id, "holder": holder})
    free, held = rows[0]
    return int(free), int(held)


def sweep(parameters: Mapping[str, Any]) -> Operation[int]:
    """Take the payloads of a batch of expired results."""
    rows = yield Execute(statements.SWEEP, parameters)
    return int(rows[0][0])


class Superfluous(NamedTuple):
    """A key, the last version that is to lose its payload (None: no version is), and how many of them have one.

    ``held``: a hold covers the key, so that nothing goes. ``why``: what the entry says besides.
    """

    key: str
    upto: int | None
    payloads: int
    held: bool
    why: str = ""


def superfluous(parameters: Mapping[str, Any]) -> Operation[list[Superfluous]]:
    """A page of keys after another, with what they need not keep."""
    rows = yield Execute(statements.SUPERFLUOUS, parameters)
    return [Superfluous(*row) for row in rows]


def retain(entry: Mapping[str, Any], superfluous: Iterable[Superfluous]) -> Operation[int]:
    """Take the payloads of superseded versions away; gives how many. To be run in a transaction."""
    given = list(superfluous)
    upto = {one.key: one.upto for one in given if one.upto is not None}
    why = {one.key: one.why for one in given}
    yield Execute(SETTLE, {**entry, "key": ""})
    rows = yield Execute(statements.LOCK_MANY, {**entry, "keys": list(upto)})
    reasons: dict[str, str] = {}
    contents: list[bytes] = []
    for key, *said in rows:
        reason = retained(upto[key], why[key])
        with suppress(IntegrityError):  # it stays as it is, for `verify` to report, and stops no other key
            contents.append(content_of(key, said, {**entry, "reason": reason}))
            reasons[key] = reason
    parameters = {**entry, "keys": list(reasons), "reasons": list(reasons.values()), "contents": contents}
    yield Execute(statements.RETAIN, parameters | {"reason": None})
    versions = [upto[key] for key in reasons]
    dropped = yield Execute(statements.DROP, {**entry, "keys": list(reasons), "versions": versions})
    return int(dropped[0][0])


_RETAINED = "payloads of versions up to "
_DIGITS = 19  # of the largest version; a text of the caller's may have more than Python reads


def retained(upto: int, why: str = "") -> str:
    """What an entry says that tells which versions lost their payloads, and why."""
    return f"{_RETAINED}{upto}" + (f", {why}" if why else "")


def retained_upto(reason: str | None) -> int:
    """The last version that such an entry speaks of."""
    number = (reason or "").removeprefix(_RETAINED).partition(",")[0]
    return int(number) if number.isdecimal() and len(number) <= _DIGITS else 0
