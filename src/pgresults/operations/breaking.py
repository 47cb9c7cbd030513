"""Taking a lock away from its holder, and saying so in the key's history."""

from collections.abc import Mapping
from typing import Any

from pgresults.operations.history import content_of
from pgresults.operations.locks import Held, Place, break_lock, seize, state
from pgresults.operations.requests import Execute, Operation
from pgresults.sql import breaking as statements
from pgresults.sql.digests import content_digest


def break_and_record(place: Place, said: Mapping[str, Any]) -> Operation[Held | None]:
    """Take a lock away; gives who had it, or None where nobody does. To be run in a transaction.

    Parameters:
        place: whose lock.
        said: action, actor and reason of the entry; holder and fence are those of the broken lock.
    """
    held = yield from state(place)
    if held is None or not (yield from seize(place, held.fence)):
        return None
    entry = {**said, **place._asdict(), "holder": held.holder, "fence": held.fence}
    while not (yield from _record(entry)):
        pass  # a first entry of somebody else's came in between
    yield from break_lock(place, held.fence)  # which the server has nobody do without the entry
    return held


def _record(entry: Mapping[str, Any]) -> Operation[bool]:
    rows = yield Execute(statements.LOCK_KEY, entry)
    statement = statements.RECORD_BREAK if rows else statements.RECORD_FIRST_BREAK
    content = content_of(entry["key"], rows[0], entry) if rows else content_digest(entry)
    return bool((yield Execute(statement, {**entry, "content": content})))
