"""Who holds what, who waits for whom, and taking a lock away."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from starlette.responses import Response

from pgresults.operations.locks import HeldLock
from pgresults.records.keys import require_key
from pgresults.sql.grants import Kind
from pgresults.web.views import View, because, change, page, see

_LIMIT = 100


@page("locks")
async def locks(view: View) -> Response:
    """The locks that are held, by key."""
    held = await view.storage.lock_manager().aheld_locks()
    after, only = view.asked("after") or "", view.asked("key")
    chosen = [lock for lock in held if lock.key > after and (only is None or lock.key == only)]
    return view.render(
        locks=chosen[:_LIMIT],
        count=len(held),
        waiting=sum(max(lock.waiters, len(lock.waiting_holders)) for lock in held),
        cycles=cycles(held),
        further=chosen[_LIMIT - 1].key if len(chosen) > _LIMIT else None,
        only=only,
        place_of=place_of,
    )


def place_of(lock: HeldLock) -> tuple[str, str]:
    """The host of a holder, and what else its name says; an empty host where it is another's own name."""
    host, colon, rest = lock.holder.partition(":")
    pid = rest.partition(":")[0]
    return (host, rest.removeprefix(f"{pid}:")) if colon and pid.isdecimal() else ("", lock.holder)


def cycles(held: Iterable[HeldLock]) -> list[Sequence[HeldLock]]:
    """Locks whose holders wait for each other: each holder waits for the next lock, the last one for the first."""
    waits: dict[str, list[HeldLock]] = {}
    for lock in held:
        for waiter in lock.waiting_holders:
            waits.setdefault(waiter, []).append(lock)
    found: list[Sequence[HeldLock]] = []
    done: set[str] = set()
    for start in waits:
        if start not in done:
            found += _from(start, waits, done)
    return found


def _from(start: str, waits: Mapping[str, Sequence[HeldLock]], done: set[str]) -> Iterator[Sequence[HeldLock]]:
    """The cycles on the ways from who waits; each holder is gone through once."""
    holders, way, left = [start], list[HeldLock](), [iter(waits[start])]
    while left:
        lock = next(left[-1], None)
        if lock is None:
            left.pop()
            done.add(holders.pop())
            del way[-1:]
        elif lock.holder in holders:
            yield [*way[holders.index(lock.holder) :], lock]
        elif lock.holder not in done:
            holders.append(lock.holder)
            way.append(lock)
            left.append(iter(waits.get(lock.holder, ())))


@change("locks", Kind.WRITER)
async def break_lock(view: View) -> Response:
    """Take a lock away from its holder, whose writes are refused from then on."""
    assert view.place.changing is not None  # noqa: S101 (`change` saw to it)
    key, reason = require_key(str((await view.request.form()).get("key", ""))), await because(view)
    await view.place.changing.lock_manager().abreak_lock(key, reason)
    return see(view.url("locks", broken=key))
