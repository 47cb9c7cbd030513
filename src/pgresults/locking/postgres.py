"""Locks in Postgres: fenced, and gone with the process that held them."""

import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar
from uuid import UUID, uuid4

from pgresults.arguments import require_holder, require_number, require_text
from pgresults.database.database import Database
from pgresults.database.errors import StandbyError
from pgresults.database.observing import ACQUIRED, KEY, WAITING, About, observed
from pgresults.database.programs import (
    Program,
    aperform,
    aperform_or_undo,
    call,
    perform,
    perform_or_undo,
    wait_for,
)
from pgresults.database.targets import Target
from pgresults.errors import InvalidArgument, PgResultsError
from pgresults.locking import waiting
from pgresults.locking.deadline import Deadline, require_seconds
from pgresults.locking.granted import Grants
from pgresults.locking.leases import Renewal
from pgresults.locking.queues import Queues
from pgresults.locking.sessions import Session, Sessions
from pgresults.locking.waiting import WaitingRoom
from pgresults.locking.watch import Waiter, Watch
from pgresults.operations import locks
from pgresults.operations.breaking import break_and_record
from pgresults.operations.locks import Grant, Held, HeldLock, Place, Request
from pgresults.operations.requests import Operation
from pgresults.records.keys import require_key, storage_id
from pgresults.records.provenance import actor, default_holder
from pgresults.settings import Settings

logger = logging.getLogger(__name__)
T = TypeVar("T")

_MOMENTS, _MOMENT = 10, 0.005


class PostgresLockManager:
    """A `LockManager` whose locks end with their holder's process, and whose holders prove them when they write.

    Parameters:
        database: where the locks are; see `PostgresStorage`.
        name: the storage whose keys are locked.
        schema: the schema that holds the tables; None: that of the settings.
        settings: pool sizes and time-outs; by default from the environment.
    """

    def __init__(
        self,
        database: Target | Database,
        name: str = "default",
        schema: str | None = None,
        settings: Settings | None = None,
    ) -> None:
        self.database = database if isinstance(database, Database) else Database(database, schema, settings)
        self.name = name
        self._open()

    def _open(self) -> None:
        self._pid = os.getpid()
        self._storage_id = storage_id(self.name)
        self._sessions = Sessions(self.database)
        self._waiting = WaitingRoom(self.database)
        self._watch = Watch(self.database, self._storage_id)
        self._queues = Queues()
        self._grants = Grants(self.database.settings.max_locks)
        self._renewal = Renewal(self.database, self._grants.leases, self._lose)

    def acquire_lock(
        self, key: str, holder: str, acquire_timeout: float | None = None, hold_timeout: float | None = None
    ) -> bool:
        """Take the lock; see `LockManager`.

        Raises: InvalidKey; InvalidArgument; ConfigurationError when this process holds too many; StorageUnavailable.
        """
        wish = self._wish(key, holder, hold_timeout)
        return perform_or_undo(self._acquire(wish, acquire_timeout), lambda: self._decline(wish))

    async def aacquire_lock(
        self, key: str, holder: str, acquire_timeout: float | None = None, hold_timeout: float | None = None
    ) -> bool:
        """Take the lock; see `acquire_lock`."""
        wish = self._wish(key, holder, hold_timeout)
        return await aperform_or_undo(self._acquire(wish, acquire_timeout), lambda: self._decline(wish))

    def release_lock(self, key: str, holder: str) -> None:
        """Give the lock back.

        Raises: InvalidArgument (a ``ValueError``) when the holder does not have it; StorageUnavailable.
        """
        perform(self._release(key, holder))

    async def arelease_lock(self, key: str, holder: str) -> None:
        """Give the lock back; see `release_lock`."""
        await aperform(self._release(key, holder))

    def is_locked(self, key: str) -> bool:
        """Whether anybody holds the lock and lives."""
        return perform(self._state(key)) is not None

    async def ais_locked(self, key: str) -> bool:
        """Whether anybody holds the lock and lives."""
        return await aperform(self._state(key)) is not None

    def is_lock_holder(self, key: str, holder: str) -> bool:
        """Whether this holder has the lock."""
        return perform(self._holder_of(key)) == require_holder(holder)

    async def ais_lock_holder(self, key: str, holder: str) -> bool:
        """Whether this holder has the lock."""
        return await aperform(self._holder_of(key)) == require_holder(holder)

    def wait_for_lock(self, key: str, timeout: float | None = None) -> bool:
        """Wait until nobody holds the lock; see `LockManager`."""
        return perform(self._wait(key, timeout))

    async def await_for_lock(self, key: str, timeout: float | None = None) -> bool:
        """Wait until nobody holds the lock; see `LockManager`."""
        return await aperform(self._wait(key, timeout))

    def held_locks(self) -> list[HeldLock]:
        """Who holds what, since when, in which process, and how many wait, by key.

        Raises: StorageUnavailable.
        """
        return perform(self._held_locks())

    async def aheld_locks(self) -> list[HeldLock]:
        """Who holds what; see `held_locks`."""
        return await aperform(self._held_locks())

    def break_lock(self, key: str, reason: str) -> Held:
        """Take a lock away from its holder, whose writes are refused from then on; recorded in the key's history.

        Parameters:
            key: whose lock.
            reason: why; kept in the entry, with the lock's holder and fence.

        Returns: who had it.
        Raises: InvalidKey; InvalidArgument without a reason, or when nobody has it; StorageUnavailable.
        """
        return perform(self._break(key, reason))

    async def abreak_lock(self, key: str, reason: str) -> Held:
        """Take a lock away from its holder; see `break_lock`."""
        return await aperform(self._break(key, reason))

    def forget_released(self, batch_size: int = 1000) -> int:
        """Delete what is left of locks that were released: a batch of rows, to be called until it returns 0.

        Parameters:
            batch_size: how many rows at most.

        Returns: how many it were.
        Raises: StorageUnavailable.
        """
        return perform(self._forget_released(batch_size))

    async def aforget_released(self, batch_size: int = 1000) -> int:
        """Delete what is left of locks that were released; see `forget_released`."""
        return await aperform(self._forget_released(batch_size))

    def _guards(self, database: Database, storage_id: UUID) -> bool:
        """Whether these locks are those of a storage's keys, so that one transaction can prove and change."""
        return self._storage_id == storage_id and self.database == database

    def _grant(self, key: str, holder: str) -> Grant | None:
        """What this process was granted for a holder, for a write to prove."""
        self._notice_fork()
        return self._grants.get(key, holder)

    def _latest_grant(self, key: str) -> Grant | None:
        """What this process was granted of a key last, whoever the holder."""
        self._notice_fork()
        return self._grants.latest(key)

    def _state(self, key: str) -> Program[Held | None]:
        """Who holds a key's lock and lives."""
        self._notice_fork()
        place = self._place(key)
        try:
            return (yield from call(self.database, lambda _: locks.state(place)))
        except StandbyError:
            return None

    def _holder_of(self, key: str) -> Program[str | None]:
        held = yield from self._state(key)
        return None if held is None else held.holder

    def _let_go(self, grant: Grant) -> Program[None]:
        """Let go of a grant whose row is released in a transaction of the caller's; who waits for it waits for that."""
        self._grants.pop(grant.place.key, grant.holder)
        yield from self._put_out(grant)

    def close(self) -> None:
        """End this process's sessions, and with them the locks it holds."""
        self._renewal.stop()
        self._sessions.close()
        self._waiting.close()

    async def aclose(self) -> None:
        """End this process's sessions, and with them the locks it holds."""
        self._renewal.stop()
        await self._sessions.aclose()
        await self._waiting.aclose()

    def __repr__(self) -> str:
        return f"PostgresLockManager({self.database!r}, name={self.name!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PostgresLockManager) and (self.name, self.database) == (other.name, other.database)

    def __hash__(self) -> int:
        return hash((self.name, self.database))

    def __getstate__(self) -> dict[str, Any]:
        return {"database": self.database, "name": self.name}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._open()

    def _notice_fork(self) -> None:
        """Begin anew in a forked child: nobody there will ever leave the queues in which its parent's threads stood."""
        if self._pid != os.getpid():
            self._open()

    def _about(self, place: Place) -> About:
        said = {"pgresults.storage": self.name}
        if self.database.settings.telemetry_keys:
            said[KEY] = place.key
        return About(self.database.described, said)

    def _place(self, key: str) -> Place:
        return Place(self._storage_id, require_key(key))

    def _wish(self, key: str, holder: str, hold_timeout: float | None) -> "_Wish":
        self._notice_fork()
        hold_timeout = require_seconds(hold_timeout, "hold_timeout")
        return _Wish(self._place(key), require_holder(holder), hold_timeout, time.monotonic())

    def _acquire(self, wish: "_Wish", acquire_timeout: float | None) -> Program[bool]:
        deadline = Deadline.after(acquire_timeout, "acquire_timeout")
        held = yield from self._try_first(wish)
        if held is True or deadline.passed():
            return held is True
        return (yield from self._await_turn(wish, deadline))

    @observed(WAITING, lambda self, wish, _: self._about(wish.place), lambda taken: {ACQUIRED: taken})
    def _await_turn(self, wish: "_Wish", deadline: Deadline) -> Program[bool]:
        key = wish.place.key
        waiter = self._watch.waiter(key, wish.holder)
        try:
            if not (yield from self._queues.enter(key, waiter.place, deadline)):
                return False
            return (yield from self._contend(wish, waiter, deadline))
        finally:
            self._queues.leave(key, waiter.place)
            self._watch.left(waiter)

    def _decline(self, wish: "_Wish") -> Program[None]:
        """Give back what may have been granted in the moment in which its acquirer was interrupted or cancelled."""
        token = wish.token
        if token is None:
            return
        self._grants.forget(token)
        with suppress(PgResultsError):
            yield from self._on_session(lambda session: locks.release(wish.place, token, session.id))

    def _try_first(self, wish: "_Wish") -> Program[bool | Held | None]:
        """Try, and for a moment again where nobody has the lock: what is left of it may just be swept away."""
        for _ in range(_MOMENTS):
            held = yield from self._try(wish)
            if held is True or (isinstance(held, Held) and not held.free):
                break
            yield from waiting.pause(_MOMENT)
        return held

    def _contend(self, wish: "_Wish", waiter: Waiter, deadline: Deadline) -> Program[bool]:
        """Try and wait in turn until the lock is ours or the time is up."""
        while True:
            held = yield from self._try(wish)
            if held is True or deadline.passed():
                return held is True
            waiter.check()
            if isinstance(held, Held):
                yield from self._await_change(wish.place, held, waiter.waited, deadline)

    def _try(self, wish: "_Wish") -> Program[bool | Held | None]:
        """Try once: True when the lock is ours, else who has it, or None when that changed in this moment."""
        if self._grant(wish.place.key, wish.holder) is None:
            self._grants.require_room()
        wish.token = token = uuid4()
        outcome = yield from self._on_session(lambda session: locks.try_acquire(self._request(wish, token, session)))
        if isinstance(outcome, Grant):
            self._accept(outcome, time.monotonic() - wish.begun)
            return True
        wish.token = None
        if outcome is None or outcome.free or outcome.holder != wish.holder:
            return outcome
        self._share(wish, outcome)
        return True

    def _share(self, wish: "_Wish", held: Held) -> None:
        """Know what this holder was granted elsewhere, so that its writes here prove it, too."""
        known = self._grant(wish.place.key, wish.holder)
        if held.token is not None and (known is None or known.token != held.token):
            self._grants.add(Grant(wish.place, held.holder, held.fence, held.token, held.session, held.beacon))

    def _request(self, wish: "_Wish", token: UUID, session: Session) -> Request:
        seconds = wish.hold_timeout
        renewed = session.pooled and seconds is None
        if renewed:
            seconds = self.database.settings.lease
        hold = None if seconds is None else timedelta(seconds=seconds)
        return Request(
            wish.place, wish.holder, token, session.id, not session.pooled, actor(), os.getpid(), hold, renewed
        )

    def _accept(self, grant: Grant, waited: float) -> None:
        self._grants.add(grant)
        if grant.renewed:
            self._renewal.ensure_running()
        known = (grant.place.key, grant.holder, waited, grant.fence)
        if grant.taken_over_from is None:
            logger.info("lock of %r acquired by %s after %.3f s, fence %d", *known)
        else:
            logger.warning(
                "lock of %r acquired by %s after %.3f s, fence %d, taken over from %s", *known, grant.taken_over_from
            )

    def _await_change(self, place: Place, held: Held, waited: float, deadline: Deadline) -> Program[None]:
        """Wait until a lock may have become free: its beacon out, its time or ours up."""
        times = [waiting.next_look(waited), deadline.left(), None if held.free else held.expires_in]
        seconds = max(0.001, min(time for time in times if time is not None))
        if held.free:
            return self._waiting.wait(lambda: locks.wait_for_row(place, seconds), seconds)
        if (beacon := held.beacon) is None:
            return self._waiting.pause(seconds)
        return self._waiting.wait(lambda: locks.wait(beacon, seconds), seconds)

    def _wait(self, key: str, timeout: float | None, holder: str | None = None) -> Program[bool]:
        deadline, place = Deadline.after(timeout), self._place(key)
        held = yield from self._state(key)
        if held is None or deadline.passed():
            return held is None
        return (yield from self._await_release(place, held, default_holder() if holder is None else holder, deadline))

    @observed(WAITING, lambda self, place, *_: self._about(place), lambda free: {ACQUIRED: free})
    def _await_release(self, place: Place, held: Held | None, holder: str, deadline: Deadline) -> Program[bool]:
        waiter = self._watch.waiter(place.key, holder)
        try:
            while held is not None and not deadline.passed():
                waiter.check()
                yield from self._await_change(place, held, waiter.waited, deadline)
                held = yield from self._state(place.key)
            return held is None
        finally:
            self._watch.left(waiter)

    def _release(self, key: str, holder: str) -> Program[None]:
        self._notice_fork()
        place, grant = self._place(key), self._grants.get(key, require_holder(holder))
        token = grant.token if grant is not None else (yield from self._token_elsewhere(key, holder))
        doubt = _Doubt(grant is not None and grant.in_doubt)
        try:
            session_id, released = yield from self._on_session(
                lambda session: _release_on(session, place, holder, token, doubt)
            )
        except PgResultsError:
            self._grants.doubt(grant)
            raise
        except BaseException:
            # Interrupted or cancelled: nobody else would ever release a lock whose process lives on.
            yield from self._on_session(lambda session: locks.release(place, token, session.id))
            self._grants.pop(key, holder)
            raise
        self._grants.pop(key, holder)
        if grant is not None and not (released and session_id == grant.session):
            yield from self._put_out(grant)
        if not released:
            self._lose(grant)
            raise _not_the_holder(key, holder)
        logger.info("lock of %r released by %s", key, holder)

    def _held_locks(self) -> Program[list[HeldLock]]:
        try:
            return (yield from call(self.database, lambda _: locks.held_locks(self._storage_id, self.name)))
        except StandbyError:
            return []

    def _break(self, key: str, reason: str) -> Program[Held]:
        if not require_text(reason, "reason"):
            raise InvalidArgument("a lock is broken for a reason: say which", argument="reason", value=reason)
        place, said = self._place(key), {"action": "break", "actor": actor(), "reason": reason}
        broken = yield from call(self.database, lambda _: break_and_record(place, said), atomic=True, repeatable=False)
        if broken is None:
            raise InvalidArgument(f"nobody holds the lock of {key!r}", argument="key", value=key)
        logger.warning("lock of %r, fence %d, broken: %s had it", key, broken.fence, broken.holder)
        return broken

    def _forget_released(self, batch_size: int) -> Program[int]:
        require_number(batch_size, "batch_size", 100_000)
        return call(self.database, lambda _: locks.forget(self._storage_id, batch_size))

    def _token_elsewhere(self, key: str, holder: str) -> Program[UUID]:
        """The token of a lock that this holder was granted in another process."""
        held = yield from self._state(key)
        token = None
        if held is not None and held.holder == holder:
            fence = held.fence
            token = yield from call(self.database, lambda _: locks.token_of(self._place(key), fence))
        if token is None:
            raise _not_the_holder(key, holder)
        return token

    def _put_out(self, grant: Grant) -> Program[None]:
        """Put a grant's beacon out, unless it went out with its session."""
        return self._on_session(lambda session: _put_out_on(session, grant))

    def _on_session(self, start: Callable[[Session], Operation[T]]) -> Program[T]:
        return wait_for(lambda: self._sessions.run(start), lambda: self._sessions.arun(start))

    def _lose(self, grant: Grant | None) -> None:
        if grant is not None:
            self._grants.lapse(grant)
            logger.warning("lock of %r, fence %d, lost by %s", grant.place.key, grant.fence, grant.holder)


@dataclass(slots=True)
class _Wish:
    """What an acquirer wants.

    ``begun`` is when it came, on this process's clock; ``token`` is that of a try which the server may have granted.
    """

    place: Place
    holder: str
    hold_timeout: float | None
    begun: float
    token: UUID | None = None


@dataclass
class _Doubt:
    """Whether an earlier try to release may have been carried out, whose answer was lost."""

    repeated: bool


def _release_on(
    session: Session, place: Place, holder: str, token: UUID, doubt: _Doubt
) -> Operation[tuple[UUID, bool]]:
    repeated, doubt.repeated = doubt.repeated, True
    released = yield from locks.release(place, token, session.id)
    if not released and repeated:
        released = yield from locks.was_released(place, holder, token)
    return session.id, released


def _put_out_on(session: Session, grant: Grant) -> Operation[None]:
    if grant.beacon is not None and grant.session == session.id:
        yield from locks.put_out(grant.beacon)


def _not_the_holder(key: str, holder: str) -> InvalidArgument:
    return InvalidArgument(f"{holder!r} does not hold the lock of {key!r}", argument="holder", value=holder)
