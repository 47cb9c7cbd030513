"""The methods of a result store that keep evidence: holds, retention, and what shows that a history is as it was."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from pgresults.arguments import require_moment
from pgresults.audit import holding, retention
from pgresults.database.programs import Program, aperform, perform
from pgresults.operations.holds import Hold
from pgresults.operations.retention import Due, RetentionRule
from pgresults.records.keys import require_key
from pgresults.records.listings import Listing
from pgresults.storage.keyspace import Keyspace

if TYPE_CHECKING:
    from pgresults.audit.certificates import Certificate
    from pgresults.audit.proofs import Proof
    from pgresults.audit.reports import VerifyReport
    from pgresults.audit.seals import Seal

Progress = Callable[[int], None]
"""Told now and then how many more are done."""


class EvidenceMethods(ABC):
    """Holds, rules of retention, verifying, seals and proofs: what a `ResultStore` shows to others of its history."""

    @abstractmethod
    def _keyspace(self) -> Program[Keyspace]:
        """Where the results of the store lie."""

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

    def set_retention(
        self,
        prefix: str | None = None,
        tags: Iterable[str] | None = None,
        task: str | None = None,
        versions: int | None = None,
        age: timedelta | None = None,
        redact_after: timedelta | None = None,
        reason: str = "",
    ) -> UUID:
        """Set a rule of retention, which `sweep` carries out: what every rule that covers a key lets go is taken away.

        Without a rule nothing goes but what has expired. No rule takes away what another one keeps; a hold keeps
        everything.

        Parameters:
            prefix: for all keys that begin so; an empty one: the whole storage.
            tags: for all keys of which the newest version that was written has all of these.
            task: for all keys of which the newest version that was written is a result of this task.
            versions: how many of the newest versions keep their payloads.
            age: how long a payload is kept after its version was superseded or deleted. With ``versions``, what either
                keeps is kept. Without both, the rule keeps all that is superseded.
            redact_after: how long after the last write all payloads of the key are erased, the current one, too, as by
                `redact`; None: this rule keeps the key from that.
            reason: why; kept in the history.

        Returns: the rule's id. Give one of prefix, tags and task.
        Raises: InvalidArgument; ConfigurationError where the role may set none, or metadata lies apart;
            StorageUnavailable.
        """
        return perform(self._set_retention(prefix, tags, task, versions, age, redact_after, reason))

    async def aset_retention(
        self,
        prefix: str | None = None,
        tags: Iterable[str] | None = None,
        task: str | None = None,
        versions: int | None = None,
        age: timedelta | None = None,
        redact_after: timedelta | None = None,
        reason: str = "",
    ) -> UUID:
        """Set a rule of retention; see `set_retention`."""
        return await aperform(self._set_retention(prefix, tags, task, versions, age, redact_after, reason))

    def end_retention(self, id: UUID, reason: str) -> bool:  # noqa: A002 (the column's name)
        """End a rule of retention; what it alone has kept goes with the next sweep, if other rules let it.

        Parameters:
            id: as `set_retention` and `retention` give it.
            reason: why; kept in the history.

        Returns: whether there was such a rule in this storage.
        Raises: InvalidArgument; ConfigurationError where the role may end none; StorageUnavailable.
        """
        return perform(self._end_retention(id, reason))

    async def aend_retention(self, id: UUID, reason: str) -> bool:  # noqa: A002 (the column's name)
        """End a rule of retention; see `end_retention`."""
        return await aperform(self._end_retention(id, reason))

    def retention(self) -> Listing[RetentionRule]:
        """The rules of retention of the storage, the oldest first.

        Raises: ConfigurationError where metadata lies apart, or the role may not see them; StorageUnavailable.
        """
        return perform(self._retention())

    async def aretention(self) -> Listing[RetentionRule]:
        """The rules of retention of the storage; see `retention`."""
        return await aperform(self._retention())

    def retention_due(self, within: timedelta = timedelta(), limit: int | None = None) -> Listing[Due]:
        """What goes by the rules of retention, and when, the next one first; all keys are looked at.

        Parameters:
            within: up to how long from now; zero: what the next sweep takes.
            limit: how many; None: all.

        Raises: InvalidArgument; ConfigurationError as `retention`; StorageUnavailable.
        """
        return perform(self._retention_due(within, limit))

    async def aretention_due(self, within: timedelta = timedelta(), limit: int | None = None) -> Listing[Due]:
        """What goes by the rules of retention, and when; see `retention_due`."""
        return await aperform(self._retention_due(within, limit))

    def erase(
        self,
        key: str | None = None,
        prefix: str | None = None,
        tags: Iterable[str] | None = None,
        reason: str = "",
        backups_until: datetime | None = None,
        log_until: datetime | None = None,
    ) -> "Certificate":
        """Erase the payloads of all versions of everything about somebody, in one transaction, and certify it.

        It may be asked again, also where everything is erased: then it certifies that. The certificate is signed with
        the key that signs seals. All histories are recomputed before; where one was altered, nothing is erased.

        Parameters:
            key: one key.
            prefix: all keys that begin so, live or not.
            tags: all keys of which any version has had all of these.
            reason: why; kept in the histories and the certificate.
            backups_until: when (aware) the last backup is gone that has it; None: nobody says.
            log_until: when (aware) the server's write-ahead log and its archive have it no more; None: nobody says.

        Returns: the certificate; see `Certificate.check`. Give one of key, prefix and tags.
        Raises: MissingResult where there never was anything; OnHold or LockedError, then nothing is erased;
            IntegrityError for a history that was altered; InvalidArgument; ConfigurationError without the extra
            ``audit``, with a file that holds no key, and where metadata lies apart; StorageUnavailable.
        """
        return perform(self._erase(key, prefix, tags, reason, backups_until, log_until))

    async def aerase(
        self,
        key: str | None = None,
        prefix: str | None = None,
        tags: Iterable[str] | None = None,
        reason: str = "",
        backups_until: datetime | None = None,
        log_until: datetime | None = None,
    ) -> "Certificate":
        """Erase everything about somebody, and certify it; see `erase`."""
        return await aperform(self._erase(key, prefix, tags, reason, backups_until, log_until))

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

    def _set_retention(
        self,
        prefix: str | None,
        tags: Iterable[str] | None,
        task: str | None,
        versions: int | None,
        age: timedelta | None,
        redact_after: timedelta | None,
        reason: str,
    ) -> Program[UUID]:
        keyspace = yield from self._keyspace()
        return (yield from retention.set_rule(keyspace, prefix, tags, task, versions, age, redact_after, reason))

    def _end_retention(self, id_: UUID, reason: str) -> Program[bool]:
        return (yield from retention.end_rule((yield from self._keyspace()), id_, reason))

    def _retention(self) -> Program[Listing[RetentionRule]]:
        return Listing((yield from retention.rules((yield from self._keyspace()))), RetentionRule)

    def _retention_due(self, within: timedelta, limit: int | None) -> Program[Listing[Due]]:
        return Listing((yield from retention.due((yield from self._keyspace()), within, limit)), Due)

    def _erase(
        self,
        key: str | None,
        prefix: str | None,
        tags: Iterable[str] | None,
        reason: str,
        backups_until: datetime | None,
        log_until: datetime | None,
    ) -> "Program[Certificate]":
        from pgresults.audit.erasure import erase

        keyspace = yield from self._keyspace()
        return (yield from erase(keyspace, key, prefix, tags, reason, backups_until, log_until))

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
