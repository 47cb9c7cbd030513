"""The methods of a result store that delete, prolong, erase and look back."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta

from pgresults.audit import changes
from pgresults.audit.entries import HistoryEntry
from pgresults.audit.log import LogEntry
from pgresults.audit.log import log as entries_of
from pgresults.audit.past import history_of
from pgresults.audit.sweeping import Taken, retain, sweep
from pgresults.database.programs import Program, aperform, perform
from pgresults.database.standbys import looking_back
from pgresults.operations.results import Listed
from pgresults.records.listings import Listing
from pgresults.storage.finding import expiring
from pgresults.storage.keyspace import Keyspace

Progress = Callable[[int], None]
"""Told now and then how many more are done."""


class HistoryMethods(ABC):
    """History, expirations and erasure: what a `ResultStore` does with what was stored."""

    @abstractmethod
    def _keyspace(self) -> Program[Keyspace]:
        """Where the results of the store lie."""

    def history(self, key: str, with_results: bool = False, stale_ok: timedelta | None = None) -> Listing[HistoryEntry]:
        """Everything that happened under a key, oldest first.

        Parameters:
            key: whose history.
            with_results: whether to read the results, too, as far as their payloads are kept.
            stale_ok: by how much the answer may be behind; see `find`.

        Raises: InvalidKey; StorageUnavailable; with results IntegrityError and SerializationError.
        """
        return perform(self._history(key, with_results, stale_ok))

    async def ahistory(
        self, key: str, with_results: bool = False, stale_ok: timedelta | None = None
    ) -> Listing[HistoryEntry]:
        """Everything that happened under a key, oldest first; see `history`."""
        return await aperform(self._history(key, with_results, stale_ok))

    def log(
        self,
        since: datetime | None = None,
        until: datetime | None = None,
        actor: str | None = None,
        action: str | None = None,
        prefix: str | None = None,
        tags: Iterable[str] | None = None,
        limit: int | None = None,
        stale_ok: timedelta | None = None,
    ) -> Listing[LogEntry]:
        """What happened under all keys, the newest first: all that meets every given condition, or `limit`.

        It is found page by page, each from the last entry of the one before on: what happens meanwhile neither leaves
        an entry out nor shows one twice.

        Parameters:
            since: the first moment (aware).
            until: the moment (aware) before which it happened.
            actor: who did it.
            action: what was done, as in `HistoryEntry`.
            prefix: what the keys begin with.
            tags: words that the version carries.
            limit: how many of the newest; None: all.
            stale_ok: how old the answer may be; see `history`.

        Raises: InvalidArgument, also for an action that there is not; StorageUnavailable.
        """
        return perform(self._log(since, until, actor, action, prefix, tags, limit, stale_ok))

    async def alog(
        self,
        since: datetime | None = None,
        until: datetime | None = None,
        actor: str | None = None,
        action: str | None = None,
        prefix: str | None = None,
        tags: Iterable[str] | None = None,
        limit: int | None = None,
        stale_ok: timedelta | None = None,
    ) -> Listing[LogEntry]:
        """What happened under all keys, the newest first; see `log`."""
        return await aperform(self._log(since, until, actor, action, prefix, tags, limit, stale_ok))

    def delete(self, key: str, reason: str | None = None) -> bool:
        """Take the live result of a key away; its history stays.

        Returns: whether there was one: what has expired is gone already, and its history will say so.
        Raises: InvalidKey; InvalidArgument for a reason that cannot be kept; LockedError; StorageUnavailable.
        """
        return perform(self._delete(key, reason))

    async def adelete(self, key: str, reason: str | None = None) -> bool:
        """Take the live result of a key away; see `delete`."""
        return await aperform(self._delete(key, reason))

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

    def expiring(
        self, within: timedelta, limit: int | None = None, stale_ok: timedelta | None = None
    ) -> Listing[Listed]:
        """What is live and expires within a time from now, the next one first.

        Parameters:
            within: the time.
            limit: how many at most; None: all.
            stale_ok: by how much the answer may be behind; see `find`.

        Raises: StorageUnavailable.
        """
        return perform(self._expiring(within, limit, stale_ok))

    async def aexpiring(
        self, within: timedelta, limit: int | None = None, stale_ok: timedelta | None = None
    ) -> Listing[Listed]:
        """What is live and expires within a time from now; see `expiring`."""
        return await aperform(self._expiring(within, limit, stale_ok))

    def sweep(self, batch_size: int = 1000, dry_run: bool = False, progress: Progress | None = None) -> Taken:
        """Delete what has expired with its payloads, and what rules of retention let go, batch by batch.

        History stays, and says of what went by rules by which ones.

        Safe to run from any number of processes at once, and to be interrupted: what is done is done. A key that
        another holder has locked is left to a later sweep.

        Parameters:
            batch_size: how many results one transaction takes.
            dry_run: only count them.
            progress: told after every batch how many it had.

        Returns: how many had expired; its ``by_rules`` is how many payloads went by rules, its ``held`` how many more
            results or payloads a hold kept.
        Raises: InvalidArgument; StorageUnavailable.
        """
        return perform(self._sweep(batch_size, dry_run, progress))

    async def asweep(self, batch_size: int = 1000, dry_run: bool = False, progress: Progress | None = None) -> Taken:
        """Delete what has expired with its payloads; see `sweep`."""
        return await aperform(self._sweep(batch_size, dry_run, progress))

    def retain(
        self,
        versions: int | None = None,
        age: timedelta | None = None,
        dry_run: bool = False,
        progress: Progress | None = None,
    ) -> Taken:
        """Take the payloads of superseded versions away; what is current and all history stay.

        A key that another holder has locked is left as it is.

        Parameters:
            versions: how many of a key's last versions keep their payload; None: this does not matter.
            age: how long a payload is kept after its version was superseded, deleted or expired; None: does not matter.
            dry_run: only count them.
            progress: told after every page of keys how many it had.

        Returns: how many payloads there were to take away; its ``held`` is how many more a hold kept.
        Raises: InvalidArgument when neither is given; StorageUnavailable.
        """
        return perform(self._retain(versions, age, dry_run, progress))

    async def aretain(
        self,
        versions: int | None = None,
        age: timedelta | None = None,
        dry_run: bool = False,
        progress: Progress | None = None,
    ) -> Taken:
        """Take the payloads of superseded versions away; see `retain`."""
        return await aperform(self._retain(versions, age, dry_run, progress))

    def _history(self, key: str, with_results: bool, stale_ok: timedelta | None) -> Program[Listing[HistoryEntry]]:
        return Listing(
            (yield from history_of((yield from self._keyspace()), key, with_results, stale_ok)), HistoryEntry
        )

    def _log(
        self,
        since: datetime | None,
        until: datetime | None,
        actor: str | None,
        action: str | None,
        prefix: str | None,
        tags: Iterable[str] | None,
        limit: int | None,
        stale_ok: timedelta | None,
    ) -> Program[Listing[LogEntry]]:
        storage = (yield from self._keyspace()).entries
        wanted = looking_back(storage.database, stale_ok)
        found = yield from entries_of(storage, since, until, actor, action, prefix, tags, limit, wanted)
        return Listing(found, LogEntry)

    def _delete(self, key: str, reason: str | None) -> Program[bool]:
        return (yield from changes.delete((yield from self._keyspace()), key, reason))

    def _touch(self, key: str, expiration: datetime | None) -> Program[None]:
        yield from changes.touch((yield from self._keyspace()), key, expiration)

    def _redact(self, key: str, reason: str) -> Program[int]:
        return (yield from changes.redact((yield from self._keyspace()), key, reason))

    def _expiring(self, within: timedelta, limit: int | None, stale_ok: timedelta | None) -> Program[Listing[Listed]]:
        storage = (yield from self._keyspace()).entries
        return Listing((yield from expiring(storage, within, limit, looking_back(storage.database, stale_ok))), Listed)

    def _sweep(self, batch_size: int, dry_run: bool, progress: Progress | None) -> Program[Taken]:
        keyspace, taken = (yield from self._keyspace()), Taken(0)
        for storage in {keyspace.payloads, keyspace.entries}:
            swept = yield from sweep(storage, batch_size, dry_run, progress)
            taken = Taken(taken + swept, taken.held + swept.held, taken.by_rules + swept.by_rules)
        return taken

    def _retain(
        self, versions: int | None, age: timedelta | None, dry_run: bool, progress: Progress | None
    ) -> Program[Taken]:
        return (yield from retain((yield from self._keyspace()).payloads, versions, age, dry_run, progress))
