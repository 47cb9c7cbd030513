"""`Member`: a transaction as a part of a tree, which is stored or taken back as a whole."""

import logging
from collections.abc import Sequence
from typing import Any, Final

from pgresults.database.caller_transactions import Caller
from pgresults.database.observing import About, observed
from pgresults.database.programs import Program
from pgresults.errors import PgResultsError, SerializationError, StorageUnavailable
from pgresults.interruptions import is_interruption
from pgresults.operations.awaiting import UNKNOWN, Ancestry
from pgresults.records.lineage import Origin, Parent
from pgresults.records.provenance import RUN
from pgresults.store.store import ResultStore
from pgresults.store.writing import Draft, Staged
from pgresults.transactions.hooks import Hook, run_hook
from pgresults.transactions.locks import Claim, TreeLocks
from pgresults.transactions.states import TransactionState
from pgresults.transactions.writes import store_all, were_stored


class _NotSet:
    """What stands for an argument that was not given, where None is a value."""

    def __repr__(self) -> str:
        return "NotSet"


NOT_SET: Final = _NotSet()


class Member:
    """What a transaction staged, with what those inside of it did.

    Parameters:
        key: where its result goes; None: it has none.
        store: what it is stored with.
        write_on_commit: whether it is stored at all.
        logger: where rollbacks are reported.
    """

    def __init__(
        self,
        key: str | None,
        store: ResultStore | None,
        write_on_commit: bool,
        logger: logging.Logger | logging.LoggerAdapter[Any],
    ) -> None:
        self.key = key
        self.store = store
        self.write_on_commit = write_on_commit
        self.logger = logger
        self.state = TransactionState.PENDING
        self.children: list[Any] = []
        self.on_commit_hooks: list[Hook] = []
        self.on_rollback_hooks: list[Hook] = []
        self._staged: Any = NOT_SET
        self._origin: Origin | None = None
        """The version that it stores, as others know it."""
        self._run = RUN.get()  # the tree is stored within that of its root, or within none
        self._locks = TreeLocks("", logger)
        self._claim: Claim | None = None

    @property
    def connection(self) -> Caller | None:
        """The caller's connection whose database transaction the writes join."""
        raise NotImplementedError

    @property
    def holder(self) -> str:
        """The name under which the whole tree holds locks, in whichever thread or task."""
        return self._locks.holder

    @observed(
        "commit",
        lambda self: About(None, {}) if self._unfinished() else None,
        lambda committed: {"pgresults.committed": committed},
    )
    def _commit(self) -> Program[bool]:
        members, staged = self._unfinished(), []
        if not members:
            return False
        try:
            for member in members:
                for hook in member.on_commit_hooks:
                    yield from run_hook(hook, member)
            staged = yield from self._encode(members)
            yield from self._store(members, staged)
        except SerializationError as error:
            self.logger.warning("transaction %r is rolled back: %s", self.key, error)
            yield from self._rollback()
            return False
        except PgResultsError:
            yield from self._rollback()
            raise
        except BaseException:
            # Cancelled or interrupted, perhaps when all was stored already.
            if self.connection is None and (yield from self._were_stored(staged)):
                yield from self._finish(members, staged)
            else:
                yield from self._rollback()
            raise
        yield from self._finish(members, staged)
        return True

    def _store(self, members: Sequence["Member"], staged: Sequence[Staged]) -> Program[None]:
        """Store what the members staged, together or not at all."""
        return store_all(staged, self.connection, self._locks.grants(_claims(members)))

    def _were_stored(self, staged: Sequence[Staged]) -> Program[bool]:
        try:
            return (yield from were_stored(staged))
        except StorageUnavailable as error:
            self.logger.warning("whether transaction %r was stored is not known: %s", self.key, error)
            return False

    def _finish(self, members: Sequence["Member"], staged: Sequence[Staged]) -> Program[None]:
        for member in members:
            member.state = TransactionState.COMMITTED
        yield from self._give_back(members, by_caller=bool(staged) and self.connection is not None)

    def _encode(self, members: Sequence["Member"]) -> Program[list[Staged]]:
        staged: list[Staged] = []
        for member in members:
            store, draft = member.store, member._staged
            if store is None or member.key is None or not member.write_on_commit:
                continue
            if draft is NOT_SET and (yield from member._lacks_result(staged)):
                draft = store._drafted(None, member.key)._replace(run=member._run)
            if draft is not NOT_SET:
                staged.extend((yield from store._encode(draft, self.holder)))
        return staged

    def _lacks_result(self, _staged: Sequence[Staged]) -> Program[bool]:
        """Whether it ended well with nothing staged, so that None is to say that it did."""
        return False
        yield

    def _taken(self, value: Any, derived_from: tuple[Parent, ...] = ()) -> Draft | None:
        """The value as it is now; None where nothing is stored."""
        if self.key is None or self.store is None or not self.write_on_commit:
            return None
        draft = self.store._drafted(value, self.key)
        if draft.ancestry is UNKNOWN:
            draft = draft._replace(ancestry=Ancestry(derived_from, Origin(self.key), complete=True))
        self._origin = draft.ancestry.origin
        return self.store._taken(draft)

    def _rollback(self) -> Program[bool]:
        members = self._unfinished()
        if not members:
            return False
        for member in reversed(members):
            member.state = TransactionState.ROLLED_BACK
        try:
            for member in reversed(members):
                for hook in reversed(member.on_rollback_hooks):
                    yield from self._run_rollback_hook(hook, member)
        finally:
            yield from self._give_back(members)
        return True

    def _run_rollback_hook(self, hook: Hook, member: "Member") -> Program[None]:
        """Call a hook; its failure does not keep the others from being called."""
        try:
            yield from run_hook(hook, member)
        except Exception as error:
            if is_interruption(error):
                raise
            self.logger.exception("a rollback hook of transaction %r failed", member.key)

    def _give_back(self, members: Sequence["Member"], *, by_caller: bool = False) -> Program[None]:
        """Let the members' locks go; ``by_caller``: they are released in the caller's transaction already."""
        return self._locks.give_back(_claims(members), by_caller=by_caller)

    def _unfinished(self) -> list["Member"]:
        """The transactions of its tree that are neither committed nor rolled back, children before parents."""
        below = [member for child in self.children for member in child._unfinished()]
        return below if self.state.is_final else [*below, self]


def _claims(members: Sequence[Member]) -> list[Claim]:
    return [member._claim for member in members if member._claim is not None]
