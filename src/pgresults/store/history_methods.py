"""The methods of a result store that delete, prolong, erase and look back."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from pgresults.arguments import require_moment
from pgresults.audit import changes, holding
from pgresults.audit.entries import HistoryEntry
from pgresults.audit.past import history_of
from pgresults.audit.sweeping import Taken, retain, sweep
from pgresults.database.programs import Program, aperform, perform
from pgresults.database.standbys import looking_back
from pgresults.operations.holds import Hold
from pgresults.operations.results import Listed
from pgresults.records.keys import require_key
from pgresults.records.listings import Listing
from pgresults.storage.finding import expiring
from pgresults.storage.keyspace import Keyspace

if TYPE_CHECKING:
    from pgresults.audit.proofs import Proof
    from pgresults.audit.reports import VerifyReport
    from pgresults.audit.seals import Seal

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

    def invalidate(
        self,
        prefix: str | None = None,
        tags: Iterable[str] | None = None,
        task: str | None = None,
        flow: str | None = None,
        reason: str | None = None,
    ) -> int:
        """Delete all live results that meet every given condition, in one transaction; their history stays.

        Parameters:
            prefix: what their keys begin with.
            tags: words they all carry.
            task: the name of the task that wrote them.
            flow: the name of the flow that wrote them.
            reason: why; kept in the history; None: by which conditions.

        Returns: how many there were.
        Raises: InvalidArgument when no condition is given; LockedError where the store has a lock manager and another
            holder the lock of one of them: then none is deleted; StorageUnavailable.
        """
        return perform(self._invalidate(prefix, tags, task, flow, reason))

    async def ainvalidate(
        self,
        prefix: str | None = None,
        tags: Iterable[str] | None = None,
        task: str | None = None,
        flow: str | None = None,
        reason: str | None = None,
    ) -> int:
        """Delete all results that meet every given condition; see `invalidate`."""
        return await aperform(self._invalidate(prefix, tags, task, flow, reason))

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
        """Delete what has expired with its payloads, batch by batch; its history stays.

        Safe to run from any number of processes at once, and to be interrupted: what is done is done. A key that
        another holder has locked is left to a later sweep.

        Parameters:
            batch_size: how many results one transaction takes.
            dry_run: only count them.
            progress: told after every batch how many it had.

        Returns: how many there were; its ``held`` is how many more a hold kept.
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

    def hold(
        self,
        key: str | None = None,
        prefix: str | None = None,
        tags: Iterable[str] | None = None,
        reason: str = "",
        until: datetime | None = None,
    ) -> UUID:
        """Have nobody take something away: delete, invalidate and redact are refused, sweep and retain pass it over.

        All versions are held, also those that come later; new ones can still be written.

        Parameters:
            key: a key, whether anything is there yet or not.
            prefix: all keys that begin so; an empty one: the whole storage.
            tags: all keys of which any version has, had or will have all of these.
            reason: why; kept in the history, and said to whoever is refused.
            until: when it ends (aware); None: when it is released.

        Returns: the hold's id. Give one of key, prefix and tags.
        Raises: InvalidArgument; ConfigurationError where the role may place none; StorageUnavailable.
        """
        return perform(self._hold(key, prefix, tags, reason, until))

    async def ahold(
        self,
        key: str | None = None,
        prefix: str | None = None,
        tags: Iterable[str] | None = None,
        reason: str = "",
        until: datetime | None = None,
    ) -> UUID:
        """Have nobody take something away; see `hold`."""
        return await aperform(self._hold(key, prefix, tags, reason, until))

    def release_hold(
        self,
        key: str | None = None,
        prefix: str | None = None,
        tags: Iterable[str] | None = None,
        reason: str = "",
        id: UUID | None = None,  # noqa: A002 (the column's name)
    ) -> int:
        """Release the holds that cover just what is given, whoever placed them; others may still cover it.

        Parameters:
            key: of holds on this key.
            prefix: of holds on this prefix.
            tags: of holds on just these tags.
            reason: why; kept in the history.
            id: of one hold, as `hold` and `holds` give it.

        Returns: how many were released. Give one of key, prefix, tags and id.
        Raises: InvalidArgument; ConfigurationError where the role may release none; StorageUnavailable.
        """
        return perform(self._release_hold(key, prefix, tags, reason, id))

    async def arelease_hold(
        self,
        key: str | None = None,
        prefix: str | None = None,
        tags: Iterable[str] | None = None,
        reason: str = "",
        id: UUID | None = None,  # noqa: A002 (the column's name)
    ) -> int:
        """Release the holds that cover just what is given; see `release_hold`."""
        return await aperform(self._release_hold(key, prefix, tags, reason, id))

    def holds(self) -> Listing[Hold]:
        """The holds of the storage that stand, the oldest first.

        Raises: ConfigurationError where metadata lies apart, or the role may not see them; StorageUnavailable.
        """
        return perform(self._holds())

    async def aholds(self) -> Listing[Hold]:
        """The holds of the storage that stand; see `holds`."""
        return await aperform(self._holds())

    def verify(
        self,
        key: str | None = None,
        since: "Seal | datetime | None" = None,
        against: "Seal | None" = None,
        progress: Progress | None = None,
        chain: "Iterable[Seal]" = (),
    ) -> "VerifyReport":
        """Recompute what the history and the payloads must be, and report what is not.

        Parameters:
            key: only this key; None: all keys of the storage, and of the one where metadata is kept apart.
            since: only entries that came after a seal or a moment (aware), and their payloads; None: all.
            against: a seal; what it covers must still be what it was. Seals are those of the payloads' storage.
            progress: told now and then how many more keys are done.
            chain: seals, each of which must name and continue the one before it in time; what they cover must still be
                what it was. A key that followed another is endorsed by that one.

        Returns: what was checked and found.
        Raises: IntegrityError for a seal that is not genuine; ConfigurationError; InvalidArgument; StorageUnavailable.
        """
        return perform(self._verify(key, since, against, progress, chain))

    async def averify(
        self,
        key: str | None = None,
        since: "Seal | datetime | None" = None,
        against: "Seal | None" = None,
        progress: Progress | None = None,
        chain: "Iterable[Seal]" = (),
    ) -> "VerifyReport":
        """Recompute what the history and the payloads must be, and report what is not; see `verify`."""
        return await aperform(self._verify(key, since, against, progress, chain))

    def seal(self, progress: Progress | None = None, previous: "Seal | None" = None) -> "Seal":
        """Sign a root over all entries that are certainly committed; keep it where the database's users cannot reach.

        The key is in the file that the setting ``seal_key`` names, which is made where there is none.

        Parameters:
            progress: told now and then how many more entries are done.
            previous: the seal that this one is to continue and name; what that covers is recomputed.

        Returns: the seal; its ``ahead`` counts what no seal can cover, which is logged as well.
        Raises: IntegrityError where what the previous one covers is not there as it was; ConfigurationError without the
            extra ``audit`` or with a file that holds no key; StorageUnavailable.
        """
        return perform(self._seal(progress, previous))

    async def aseal(self, progress: Progress | None = None, previous: "Seal | None" = None) -> "Seal":
        """Sign a root over all entries that are certainly committed; see `seal`."""
        return await aperform(self._seal(progress, previous))

    def prove(self, key: str, version: int | None = None, *, seal: "Seal", salt: bool = True) -> "Proof":
        """Show that a version of a key was sealed, to somebody without the database: see `Proof.check`.

        Parameters:
            key: whose.
            version: which; None: the newest one.
            seal: that covers it; it has to be genuine.
            salt: whether the proof says what the payload's salted digest is made of, as far as the payload is there.
                With it one can check a payload, and test guesses at it, also when that is erased one day.

        Returns: the proof, some kilobytes in size.
        Raises: MissingResult, also for a version that is newer than the seal; IntegrityError for a seal that is not
            genuine and where what it covers is not as it was; InvalidKey; InvalidArgument; StorageUnavailable.
        """
        return perform(self._prove(key, version, seal, salt))

    async def aprove(self, key: str, version: int | None = None, *, seal: "Seal", salt: bool = True) -> "Proof":
        """Show that a version of a key was sealed; see `prove`."""
        return await aperform(self._prove(key, version, seal, salt))

    def _history(self, key: str, with_results: bool, stale_ok: timedelta | None) -> Program[Listing[HistoryEntry]]:
        return Listing(
            (yield from history_of((yield from self._keyspace()), key, with_results, stale_ok)), HistoryEntry
        )

    def _delete(self, key: str, reason: str | None) -> Program[bool]:
        return (yield from changes.delete((yield from self._keyspace()), key, reason))

    def _touch(self, key: str, expiration: datetime | None) -> Program[None]:
        yield from changes.touch((yield from self._keyspace()), key, expiration)

    def _redact(self, key: str, reason: str) -> Program[int]:
        return (yield from changes.redact((yield from self._keyspace()), key, reason))

    def _invalidate(
        self, prefix: str | None, tags: Iterable[str] | None, task: str | None, flow: str | None, reason: str | None
    ) -> Program[int]:
        return (yield from changes.invalidate((yield from self._keyspace()), prefix, tags, task, flow, reason))

    def _expiring(self, within: timedelta, limit: int | None, stale_ok: timedelta | None) -> Program[Listing[Listed]]:
        storage = (yield from self._keyspace()).entries
        return Listing((yield from expiring(storage, within, limit, looking_back(storage.database, stale_ok))), Listed)

    def _sweep(self, batch_size: int, dry_run: bool, progress: Progress | None) -> Program[Taken]:
        keyspace, taken, held = (yield from self._keyspace()), 0, 0
        for storage in {keyspace.payloads, keyspace.entries}:
            swept = yield from sweep(storage, batch_size, dry_run, progress)
            taken, held = taken + swept, held + swept.held
        return Taken(taken, held)

    def _retain(
        self, versions: int | None, age: timedelta | None, dry_run: bool, progress: Progress | None
    ) -> Program[Taken]:
        return (yield from retain((yield from self._keyspace()).payloads, versions, age, dry_run, progress))

    def _hold(
        self,
        key: str | None,
        prefix: str | None,
        tags: Iterable[str] | None,
        reason: str,
        until: datetime | None,
    ) -> Program[UUID]:
        return (yield from holding.hold((yield from self._keyspace()), key, prefix, tags, reason, until))

    def _release_hold(
        self,
        key: str | None,
        prefix: str | None,
        tags: Iterable[str] | None,
        reason: str,
        id: UUID | None,  # noqa: A002 (the column's name)
    ) -> Program[int]:
        return (yield from holding.release((yield from self._keyspace()), key, prefix, tags, reason, id))

    def _holds(self) -> Program[Listing[Hold]]:
        return Listing((yield from holding.holds((yield from self._keyspace()))), Hold)

    def _verify(
        self,
        key: str | None,
        since: "Seal | datetime | None",
        against: "Seal | None",
        progress: Progress | None,
        chain: "Iterable[Seal]",
    ) -> "Program[VerifyReport]":
        from pgresults.audit.seals import Seal
        from pgresults.audit.verifying import verify

        if since is not None and not isinstance(since, Seal):
            since = require_moment(since, "since")
        checked = None if key is None else require_key(key)
        return (yield from verify((yield from self._keyspace()), checked, since, against, progress, chain))

    def _seal(self, progress: Progress | None, previous: "Seal | None") -> "Program[Seal]":
        from pgresults.audit.sealing import seal

        return (yield from seal((yield from self._keyspace()).payloads, previous, progress))

    def _prove(self, key: str, version: int | None, seal: "Seal", salt: bool) -> "Program[Proof]":
        from pgresults.audit.proving import prove

        return (yield from prove((yield from self._keyspace()).payloads, key, version, seal, salt))
