"""`CallTransaction`: the transaction of a task's call."""

from collections.abc import Sequence
from typing import TypeVar

from pgresults.database.programs import Program, failure_in
from pgresults.records.provenance import HOLDER, default_holder
from pgresults.store.store import ResultStore
from pgresults.store.writing import Staged
from pgresults.transactions.gathering import Gathering
from pgresults.transactions.locks import TreeLocks
from pgresults.transactions.states import IsolationLevel, TransactionState
from pgresults.transactions.transaction import Transaction
from pgresults.transactions.trees import Member

T = TypeVar("T")


class CallTransaction(Transaction):
    """The transaction of a task's call, whose function may handle the failure of what it calls.

    What is stored within it waits for it only where its own result is stored, too; else it is as if it were not there.

    Parameters:
        key: where the result goes; None: it is not stored.
        store: what it is stored with.
        isolation_level: see `transaction`.
        overwrite: whether a live result is of no interest.
        lock_timeout: seconds to wait for the lock; None: as the settings say.
        gathering: where its results may wait to be stored with others; None: they do not.
    """

    def __init__(
        self,
        key: str | None,
        store: ResultStore | None,
        isolation_level: IsolationLevel | None,
        overwrite: bool,
        lock_timeout: float | None,
        gathering: Gathering | None = None,
    ) -> None:
        super().__init__(key, store, isolation_level=isolation_level, overwrite=overwrite, lock_timeout=lock_timeout)
        self._gathering = gathering

    def around(self, work: Program[T]) -> Program[T]:
        """Carry a program out within the transaction."""
        try:  # all of it: an interruption at the first line of a `finally` would leave the rest out
            self._enter()
            result = yield from self._carry_out(work)
            self._leave()
            return result  # noqa: TRY300
        except BaseException:
            self._leave()
            raise

    def _carry_out(self, work: Program[T]) -> Program[T]:
        begun = False
        try:
            yield from self._begin()
            begun = True
            result = yield from work
            yield from self._end(None)
            return result  # noqa: TRY300 (see `around`)
        except BaseException as error:
            if not begun:
                yield from self._give_back([self])
            elif not self._over:
                yield from self._end(failure_in(error))
            raise

    def has_lock(self) -> bool:
        """Whether it holds the lock of its key, before which somebody else may have stored a result."""
        return self._claim is not None

    def found(self) -> Program[None]:
        """There is a result already: nothing is left to do."""
        self.state = TransactionState.COMMITTED
        return self._give_back([self])

    def _holds_children(self) -> bool:
        return self.key is not None

    def _tree_locks(self) -> TreeLocks:
        return super()._tree_locks() if self.key is not None else TreeLocks(default_holder(), self.logger)

    def _holder_inside(self) -> str | None:
        return self.holder if self.key is not None else HOLDER.get()

    def _store(self, members: Sequence[Member], staged: Sequence[Staged]) -> Program[None]:
        if self._gathering is None or not staged or _are_at_stake(members, staged):
            return super()._store(members, staged)
        return self._gathering.take(staged)

    def _is_done(self) -> Program[bool]:
        """Never: whoever makes one has looked."""
        return False
        yield

    def _lose_child(self, _: BaseException | None) -> Program[None]:
        """Nothing: the failure is the function's to handle."""
        return
        yield


def _are_at_stake(members: Sequence[Member], staged: Sequence[Staged]) -> bool:
    """Whether more than time would be lost with results: somebody waits for a lock, or was told, or could not be."""
    databases = [version.storage.database for version in staged]
    told = any(member.on_commit_hooks or member.on_rollback_hooks or member._claim for member in members)
    return told or any(database != databases[0] for database in databases)
