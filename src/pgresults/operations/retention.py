"""Setting rules of retention, listing what they say and what goes by them, and having it go."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from pgresults.operations import history
from pgresults.operations.requests import Execute, Operation
from pgresults.sql import history as changes
from pgresults.sql import retention as statements
from pgresults.sql.digests import content_digest
from pgresults.sql.guards import Guard
from pgresults.sql.holds import SETTLE


class RetentionRule(NamedTuple):
    """A rule for all keys that begin with a prefix, or whose newest version has all of some tags or is a task's.

    ``versions`` and ``age`` are what it keeps: the newest of them, and each so long after another took its place;
    ``redact_after`` is how long after the last write all is erased. ``actor`` is who set it by their own word,
    ``db_user`` by the server's.
    """

    id: UUID
    prefix: str | None
    tags: list[str] | None
    task: str | None
    versions: int | None
    age: timedelta | None
    redact_after: timedelta | None
    reason: str
    since: datetime
    actor: str
    db_user: str


class Due(NamedTuple):
    """What goes by rules: a superseded version's payload (``retain``), or all of a key's (``redact``, no version).

    ``due`` is when, aware, in UTC; ``bytes`` how much, in so many ``payloads``; ``held`` whether a hold keeps it;
    ``rules`` those that cover the key, all of which let it go.
    """

    key: str
    version: int | None
    action: str
    due: datetime
    payloads: int
    bytes: int
    held: bool
    rules: list[UUID]


class Carried(NamedTuple):
    """How many payloads a page of keys lost by rules, and how many more a hold kept."""

    gone: int
    held: int


class _Going(NamedTuple):
    key: str
    upto: int | None
    whole: bool
    payloads: int
    held: bool
    rules: list[UUID]

    @property
    def why(self) -> str:
        """What the entry says of the rules."""
        return f"by rule {', '.join(map(str, self.rules))}"


def set_rule(parameters: Mapping[str, Any]) -> Operation[UUID]:
    """Set a rule; gives its id."""
    return UUID(str((yield Execute(statements.SET, parameters))[0][0]))


def end_rule(parameters: Mapping[str, Any]) -> Operation[bool]:
    """End a rule; gives whether there was one."""
    return bool((yield Execute(statements.END, parameters))[0][0])


def rules(storage_id: UUID) -> Operation[list[RetentionRule]]:
    """The rules of a storage, the oldest first."""
    rows = yield Execute(statements.RULES, {"storage_id": storage_id})
    found = [RetentionRule(*row) for row in rows]
    return [
        one._replace(age=_span(one.age), redact_after=_span(one.redact_after), since=one.since.astimezone(UTC))
        for one in found
    ]


def _span(microseconds: Any) -> timedelta | None:
    return None if microseconds is None else timedelta(microseconds=microseconds)


def due(storage_id: UUID, within: timedelta, limit: int | None) -> Operation[list[Due]]:
    """What goes by rules within a time from now, the next one first."""
    rows = yield Execute(statements.DUE, {"storage_id": storage_id, "within": within, "limit": limit})
    found = [Due(*row) for row in rows]
    return [one._replace(due=one.due.astimezone(UTC), rules=[UUID(str(rule)) for rule in one.rules]) for one in found]


def keys_after(place: Mapping[str, Any]) -> Operation[list[str]]:
    """A page of keys after another."""
    rows = yield Execute(statements.KEYS, place)
    return [key for (key,) in rows]


def going(parameters: Mapping[str, Any]) -> Operation[Carried]:
    """How many payloads of some keys rules would take away now, and how many more a hold keeps."""
    found = [_Going(*row) for row in (yield Execute(statements.DUE_NOW, parameters))]
    held = sum(one.payloads for one in found if one.held)
    return Carried(sum(one.payloads for one in found) - held, held)


def carry_out(parameters: Mapping[str, Any]) -> Operation[Carried]:
    """Have go what rules let go of some keys. To be run in a transaction.

    No rule and no hold is placed meanwhile. The keys' rows are locked first, in the order of the keys; what is not got
    then is somebody else's and stays.
    """
    yield Execute(SETTLE, {**parameters, "key": ""})
    wanted = [_Going(*row) for row in (yield Execute(statements.DUE_NOW, parameters))]
    if not wanted:
        return Carried(0, 0)
    locking = {**parameters, "keys": [one.key for one in wanted if not one.held]}
    locked = {row[0] for row in (yield Execute(changes.LOCK_MANY, locking))}
    # What was written before a row was locked counts: a version that was the last one may have kept another.
    found = [_Going(*row) for row in (yield Execute(statements.DUE_NOW, parameters))]
    mine = [one for one in found if one.key in locked and not one.held]
    gone = 0
    for one in mine:
        if one.whole:
            gone += yield from _erase(parameters, one)
    dropping = [history.Superfluous(one.key, one.upto, one.payloads, False, one.why) for one in mine if not one.whole]
    if dropping:
        gone += yield from history.retain({**parameters, "action": "retain"}, dropping)
    return Carried(gone, sum(one.payloads for one in found if one.held))


def _erase(parameters: Mapping[str, Any], one: _Going) -> Operation[int]:
    entry = {**parameters, "action": "redact", "reason": one.why}
    entry |= {"key": one.key, "content": content_digest(entry)}
    yield Execute(changes.REDACT[Guard.NONE], entry)
    return int((yield Execute(changes.ERASE, entry))[0][0])
