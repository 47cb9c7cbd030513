"""The methods of a result store that prolong, erase and look back."""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, TypeAlias

from pydantic import Field

from pgresults.arguments import require_text
from pgresults.audit.entries import HistoryEntry
from pgresults.audit.past import entries_of
from pgresults.audit.queries import QueryMethods, bound, chosen_conditions, require_moment
from pgresults.audit.seals import Seal
from pgresults.audit.sweeping import retain, sweep
from pgresults.audit.verifying import VerifyReport, seal, verify
from pgresults.database.database import Database, Start
from pgresults.database.programs import Program, aperform, call, perform, together
from pgresults.errors import InvalidArgument, MissingResult
from pgresults.locking.postgres import PostgresLockManager
from pgresults.operations import history as operations
from pgresults.operations.requests import Operation
from pgresults.operations.results import Listed
from pgresults.records.keys import require_key
from pgresults.records.provenance import actor
from pgresults.serializers import PickleSerializer, Serializer
from pgresults.sql.digests import content_digest
from pgresults.sql.guards import Guard
from pgresults.storage.encoding import require_live
from pgresults.storage.postgres import PostgresStorage

Place: TypeAlias = tuple[PostgresStorage, str]
"""A key in a storage."""

Change: TypeAlias = Callable[[dict[str, Any], Guard], Operation[Any]]
"""An operation that changes a key's place, given the parameters of its statements and what they prove."""

Progress = Callable[[int], None]
"""Told now and then how many more are done."""


class HistoryMethods(QueryMethods):
    """What a store does with the history of its keys."""

    serializer: Serializer = Field(default_factory=PickleSerializer)

    def history(self, key: str, with_results: bool = False) -> list[HistoryEntry]:
        """Everything that happened under a key, oldest first.

        Parameters:
            key: whose history.
            with_results: whether to read the results, too, as far as their payloads are kept.

        Raises: InvalidKey; StorageUnavailable; with results IntegrityError and SerializationError.
        """
        return perform(self._history(key, with_results))

    async def ahistory(self, key: str, with_results: bool = False) -> list[HistoryEntry]:
        """Everything that happened under a key, oldest first; see `history`."""
        return await aperform(self._history(key, with_results))

    def touch(self, key: str, expiration: datetime | None) -> None:
        """Give a live result another expiration; its payload and version stay.

        Parameters:
            key: where it is.
            expiration: when it ceases to be live (aware); None: never.

        Raises: MissingResult with the reason; LockedError; InvalidArgument for a naive time; StorageUnavailable.
        """
        perform(self._touch(key, expiration))

    async def atouch(self, key: str, expiration: datetime | None) -> None:
        """Give a live result another expiration; see `touch`."""
        await aperform(self._touch(key, expiration))

    def redact(self, key: str, reason: str) -> int:
        """Erase the payloads of all versions of a key for good; the entries stay and still verify.

        The bytes leave the server's files with the next ``VACUUM FULL`` of its ``payload`` table, and its backups and
        write-ahead logs when those are dropped.

        Parameters:
            key: what to erase.
            reason: why; kept in the history.

        Returns: how many versions had a payload.
        Raises: MissingResult for a key that never was; LockedError; StorageUnavailable.
        """
        return perform(self._redact(key, reason))

    async def aredact(self, key: str, reason: str) -> int:
        """Erase the payloads of all versions of a key for good; see `redact`."""
        return await aperform(self._redact(key, reason))

    def invalidate(
        self,
        prefix: str | None = None,
        tags: Iterable[str] | None = None,
        task: str | None = None,
        flow: str | None = None,
    ) -> int:
        """Delete all live results that meet every given condition, in one transaction; their history stays.

        Parameters:
            prefix: what their keys begin with.
            tags: words they all carry.
            task: the name of the task that wrote them.
            flow: the name of the flow that wrote them.

        Returns: how many there were.
        Raises: InvalidArgument when no condition is given; LockedError where the store has a lock manager and another
            holder the lock of one of them: then none is deleted; StorageUnavailable.
        """
        return perform(self._invalidate(prefix, tags, task, flow))

    async def ainvalidate(
        self,
        prefix: str | None = None,
        tags: Iterable[str] | None = None,
        task: str | None = None,
        flow: str | None = None,
    ) -> int:
        """Delete all results that meet every given condition; see `invalidate`."""
        return await aperform(self._invalidate(prefix, tags, task, flow))

    def expiring(self, within: timedelta, limit: int | None = None) -> list[Listed]:
        """What is live and expires within a time from now, the next one first.

        Parameters:
            within: the time.
            limit: how many at most; None: all.

        Raises: StorageUnavailable.
        """
        return perform(self._expiring(within, limit))

    async def aexpiring(self, within: timedelta, limit: int | None = None) -> list[Listed]:
        """What is live and expires within a time from now; see `expiring`."""
        return await aperform(self._expiring(within, limit))

    def sweep(self, batch_size: int = 1000, dry_run: bool = False, progress: Progress | None = None) -> int:
        """Delete what has expired with its payloads, batch by batch; its history stays.

        Safe to run from any number of processes at once, and to be interrupted: what is done is done. A key that
        another holder has locked is left to a later sweep.

        Parameters:
            batch_size: how many results one transaction takes.
            dry_run: only count them.
            progress: told after every batch how many it had.

        Returns: how many there were.
        Raises: InvalidArgument; StorageUnavailable.
        """
        return perform(self._sweep(batch_size, dry_run, progress))

    async def asweep(self, batch_size: int = 1000, dry_run: bool = False, progress: Progress | None = None) -> int:
        """Delete what has expired with its payloads; see `sweep`."""
        return await aperform(self._sweep(batch_size, dry_run, progress))

    def retain(
        self,
        versions: int | None = None,
        age: timedelta | None = None,
        dry_run: bool = False,
        progress: Progress | None = None,
    ) -> int:
        """Take the payloads of superseded versions away; what is current and all history stay.

        A key that another holder has locked is left as it is.

        Parameters:
            versions: how many of a key's last versions keep their payload; None: this does not matter.
            age: how long a payload is kept after its version was superseded, deleted or expired; None: does not matter.
            dry_run: only count them.
            progress: told after every page of keys how many it had.

        Returns: how many payloads there were to take away.
        Raises: InvalidArgument when neither is given; StorageUnavailable.
        """
        return perform(self._retain(versions, age, dry_run, progress))

    async def aretain(
        self,
        versions: int | None = None,
        age: timedelta | None = None,
        dry_run: bool = False,
        progress: Progress | None = None,
    ) -> int:
        """Take the payloads of superseded versions away; see `retain`."""
        return await aperform(self._retain(versions, age, dry_run, progress))

    def verify(
        self,
        key: str | None = None,
        since: Seal | datetime | None = None,
        against: Seal | None = None,
        progress: Progress | None = None,
    ) -> VerifyReport:
        """Recompute what the history and the payloads must be, and report what is not.

        Parameters:
            key: only this key; None: all keys of the storage.
            since: only entries that came after a seal or a moment (aware), and their payloads; None: all.
            against: a seal; what it covers must still be what it was.
            progress: told now and then how many more keys are done.

        Returns: what was checked and found.
        Raises: IntegrityError for a seal that is not genuine; ConfigurationError; InvalidArgument; StorageUnavailable.
        """
        return perform(self._verify(key, since, against, progress))

    async def averify(
        self,
        key: str | None = None,
        since: Seal | datetime | None = None,
        against: Seal | None = None,
        progress: Progress | None = None,
    ) -> VerifyReport:
        """Recompute what the history and the payloads must be, and report what is not; see `verify`."""
        return await aperform(self._verify(key, since, against, progress))

    def seal(self, progress: Progress | None = None) -> Seal:
        """Sign a root over all entries that are certainly committed; keep it where the database's users cannot reach.

        The key is in the file that the setting ``seal_key`` names, which is made where there is none.

        Parameters:
            progress: told now and then how many more entries are done.

        Raises: ConfigurationError without the extra ``audit`` or with a file that holds no key; IntegrityError for
            entries that no seal could cover; StorageUnavailable.
        """
        return perform(self._seal(progress))

    async def aseal(self, progress: Progress | None = None) -> Seal:
        """Sign a root over all entries that are certainly committed; see `seal`."""
        return await aperform(self._seal(progress))

    def _verify(
        self,
        key: str | None,
        since: Seal | datetime | None,
        against: Seal | None,
        progress: Progress | None,
    ) -> Program[VerifyReport]:
        if since is not None and not isinstance(since, Seal):
            since = require_moment(since, "since")
        checked = None if key is None else require_key(key)
        return (yield from verify((yield from self.ready()), checked, since, against, progress))

    def _history(self, key: str, with_results: bool) -> Program[list[HistoryEntry]]:
        return (yield from entries_of((yield from self.indexed()), self.serializer, key, with_results))

    def _sweep(self, batch_size: int, dry_run: bool, progress: Progress | None) -> Program[int]:
        total = 0
        for storage in {(yield from self.ready()), (yield from self.indexed())}:
            total += yield from sweep(storage, batch_size, dry_run, progress)
        return total

    def _retain(
        self, versions: int | None, age: timedelta | None, dry_run: bool, progress: Progress | None
    ) -> Program[int]:
        return (yield from retain((yield from self.ready()), versions, age, dry_run, progress))

    def _seal(self, progress: Progress | None) -> Program[Seal]:
        return (yield from seal((yield from self.ready()), progress))

    @abstractmethod
    def places(self, key: str) -> Program[list[Place]]:
        """Where something of a live result lies; its own key's place comes first."""

    @abstractmethod
    def past_places(self, key: str) -> Program[list[Place]]:
        """Where something of any version lies; its own key's place comes first."""

    def changing(
        self, places: Sequence[Place], entry: dict[str, Any], begin: Change, *, atomic: bool = False
    ) -> Program[Any]:
        """Change every place of a key together; the first one's lock is proven.

        Parameters:
            places: where.
            entry: what the history is to say.
            begin: begins the change of a place, given its parameters and what they prove.
            atomic: whether the change of one place has several statements.

        Returns: what the change of the first place gave.
        """
        storage, key = places[0]
        proof = yield from self._prove(key, entry["holder"], storage.database, storage.id)
        steps = [_step(storage, key, {**entry, **proof.parameters}, begin, proof.guard)]
        steps += [_step(where, name, entry, begin, Guard.NONE) for where, name in places[1:]]
        return (yield from together(steps, atomic=atomic))[0]

    def _touch(self, key: str, expiration: datetime | None) -> Program[None]:
        moment = None if expiration is None else require_moment(expiration, "expiration")
        places = yield from self.places(key)
        entry = {**said("touch", self.generate_default_holder()), "expires_at": moment}
        if not (yield from self.changing(places, entry, operations.touch, atomic=True)):
            require_live((yield from places[0][0].fetch(key)), key)
            raise MissingResult(f"no result under {key!r}: it went this moment", key=key, reason="deleted")

    def _redact(self, key: str, reason: str) -> Program[int]:
        if require_text(reason, "reason") is None:
            raise InvalidArgument("say why the result is erased: reason is kept", argument="reason", value=reason)
        places = yield from self.past_places(key)
        entry = said("redact", self.generate_default_holder(), reason)
        erased: int | None = yield from self.changing(places, entry, operations.redact, atomic=True)
        if erased is None:
            raise MissingResult(f"no result under {key!r}: never written", key=key, reason="never written")
        return erased

    def _invalidate(
        self, prefix: str | None, tags: Iterable[str] | None, task: str | None, flow: str | None
    ) -> Program[int]:
        storage, holder = (yield from self.indexed()), self.generate_default_holder()
        given = chosen_conditions(prefix=prefix, tags=tags, task=task, flow=flow)
        if not given:
            raise InvalidArgument("say what to invalidate: a prefix, tags, a task or a flow", argument="prefix")
        entry = said("delete", holder, f"invalidated by {', '.join(sorted(given))}")
        parameters = {**entry, "content": content_digest(entry), "storage_id": storage.id, **bound(given)}
        guarded = isinstance(self.lock_manager, PostgresLockManager) and self.lock_manager.guards(
            storage.database, storage.id
        )
        return (
            yield from call(
                storage.database,
                lambda _: operations.invalidate(parameters, frozenset(given), guarded=guarded),
                repeatable=False,
            )
        )

    def _expiring(self, within: timedelta, limit: int | None) -> Program[list[Listed]]:
        storage = yield from self.indexed()
        if not isinstance(within, timedelta):
            raise InvalidArgument("within is a timedelta", argument="within", value=within)
        return (yield from call(storage.database, lambda _: operations.expiring(storage.id, within, limit)))


def said(action: str, holder: str, reason: str | None = None) -> dict[str, Any]:
    """What an entry says that stores no version."""
    return {"action": action, "actor": actor(), "holder": holder, "fence": None, "reason": reason}


def _step(
    storage: PostgresStorage, key: str, entry: dict[str, Any], begin: Change, guard: Guard
) -> tuple[Database, Start[Any]]:
    columns = {**entry, "content": content_digest(entry), "storage_id": storage.id, "key": key}
    return storage.database, lambda _: begin(columns, guard)
