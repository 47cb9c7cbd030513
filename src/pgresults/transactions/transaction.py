"""`Transaction`: work under a key, whose results are stored together with those of its tree or not at all."""

import copy
import logging
import threading
from collections.abc import Iterable, Sequence
from contextvars import ContextVar
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from pgresults.database.caller_transactions import Caller, require_caller
from pgresults.database.programs import Program, aperform, aperform_or_undo, perform, perform_or_undo, wait_for
from pgresults.errors import InvalidArgument
from pgresults.leaving import Leave, Within
from pgresults.locking.deadline import require_seconds
from pgresults.records.keys import require_key
from pgresults.records.lineage import GivenParent, require_parents
from pgresults.records.provenance import HOLDER, transaction_holder
from pgresults.records.records import ResultRecord
from pgresults.store.run_options import ENCLOSING_LOCKS
from pgresults.store.store import CURRENT_STORE, ResultStore
from pgresults.store.writing import Staged
from pgresults.transactions import refusals
from pgresults.transactions.hooks import Hook
from pgresults.transactions.locks import Claim, TreeLocks
from pgresults.transactions.states import CommitMode, IsolationLevel, TransactionState
from pgresults.transactions.trees import NOT_SET, Member

_CURRENT: ContextVar["Transaction | None"] = ContextVar("pgresults.transaction", default=None)

_ENDING = threading.Lock()
"""Whoever joins a transaction comes before its end or sees that it is over."""


class Transaction(Member):
    """Work under a key; enter it with ``with`` or ``async with``. See `transaction` for the parameters.

    Its methods exist twice where they touch the database: ``name`` blocks, ``aname`` is for an event loop.
    """

    children: list["Transaction"]

    def __init__(
        self,
        key: str | None = None,
        store: ResultStore | None = None,
        commit_mode: CommitMode | None = None,
        isolation_level: IsolationLevel | None = None,
        overwrite: bool = False,
        write_on_commit: bool = True,
        logger: logging.Logger | logging.LoggerAdapter[Any] | None = None,
        connection: Caller | None = None,
        lock_timeout: float | None = None,
    ) -> None:
        require_seconds(lock_timeout, "lock_timeout")
        if connection is not None:
            require_caller(connection)
        if store is not None and not isinstance(store, ResultStore):
            raise InvalidArgument(
                f"store is a ResultStore of pgresults, not {type(store).__module__}.{type(store).__qualname__}: give "
                "pgresults.ResultStore(result_storage=...)",
                argument="store",
                value=store,
            )
        super().__init__(
            None if key is None else require_key(key),
            store if store is not None or key is None else _store_around(),
            write_on_commit,
            logger or logging.getLogger("pgresults.transactions"),
        )
        self.overwrite = overwrite
        self._commit_mode = CommitMode.of(commit_mode, "commit_mode")
        self._isolation_level = IsolationLevel.of(isolation_level, "isolation_level")
        self._connection = connection
        self._lock_timeout = lock_timeout
        self._values: dict[str, Any] = {}
        self._around: Transaction | None = None
        """What it was entered in."""
        self._parent: Transaction | None = None
        """What stores its results; None: itself."""
        self._over = False
        """Whether its block was left."""
        self._undone_by: BaseException | None = None
        """The failure of a child that took everything back."""
        self._entered: Within | None = None
        """The variables of the context, as they were before."""
        self._held: object = None
        self._require_locks()

    @property
    def commit_mode(self) -> CommitMode:
        """When what was staged is stored: as given, else as the parent's, else LAZY."""
        if self._commit_mode is not None:
            return self._commit_mode
        return CommitMode.LAZY if self._parent is None else self._parent.commit_mode

    @property
    def isolation_level(self) -> IsolationLevel:
        """Whether its key is locked: as given, else as the parent's, else READ_COMMITTED."""
        if self._isolation_level is not None:
            return self._isolation_level
        return IsolationLevel.READ_COMMITTED if self._parent is None else self._parent.isolation_level

    @property
    def lock_timeout(self) -> float | None:
        """For how many seconds it waits for its key's lock: as given, else as its parent, else as the settings say."""
        if self._lock_timeout is not None or self._parent is None:
            return self._lock_timeout
        return self._parent.lock_timeout

    @property
    def connection(self) -> Caller | None:
        """The caller's connection whose database transaction the writes join; the parent's if none was given."""
        if self._connection is not None or self._parent is None:
            return self._connection
        return self._parent.connection

    def is_pending(self) -> bool:
        """Whether it has not begun."""
        return self.state is TransactionState.PENDING

    def is_active(self) -> bool:
        """Whether it has begun and nothing is staged."""
        return self.state is TransactionState.ACTIVE

    def is_staged(self) -> bool:
        """Whether a value waits to be stored."""
        return self.state is TransactionState.STAGED

    def is_committed(self) -> bool:
        """Whether a result is stored under its key, by itself or by an earlier one."""
        return self.state is TransactionState.COMMITTED

    def is_rolled_back(self) -> bool:
        """Whether nothing of it was or will be stored."""
        return self.state is TransactionState.ROLLED_BACK

    def get_parent(self) -> "Transaction | None":
        """The transaction it was entered in."""
        return self._around

    def add_child(self, child: "Transaction") -> None:
        """Take over what a child staged, to commit it or to roll it back with its own."""
        self.children.append(child)

    def set(self, name: str, value: Any) -> None:
        """Keep a value for the hooks and for child transactions."""
        self._values[name] = value

    def get(self, name: str, default: Any = NOT_SET) -> Any:
        """A copy of a value that this transaction or one around it keeps.

        Raises: InvalidArgument (a ``ValueError``) when there is none and no default.
        """
        if name in self._values:
            return copy.deepcopy(self._values[name])
        if self._around is not None:
            return self._around.get(name, default)
        if default is NOT_SET:
            raise InvalidArgument(f"the transaction keeps no value named {name!r}", argument="name", value=name)
        return default

    def stage(
        self,
        value: Any,
        on_rollback_hooks: Sequence[Hook] | None = (),
        on_commit_hooks: Sequence[Hook] | None = (),
        derived_from: Iterable[GivenParent] | None = None,
    ) -> None:
        """Have a value, or a `ResultRecord` under the key that it names, stored at the commit as it is now.

        Parameters:
            value: the result; a later one replaces it. What is done to the object afterwards changes nothing. A record
                that names another key than the transaction's is stored there: the transaction's own key stays as it is.
            on_rollback_hooks: called with the transaction when it is rolled back, the last one first.
            on_commit_hooks: called with the transaction before its results are stored.
            derived_from: the versions it is computed from, as for `ResultStore.write`; a transaction stands for what it
                stores, be it in the same commit.

        Raises: MissingContextError when it has not begun or is rolled back. Does nothing when it is committed.
        """
        if self.is_committed():
            return
        if self._undone_by is not None:
            raise refusals.rolled_back(self.key, self._undone_by) from self._undone_by
        if self._entered is None or self.is_rolled_back():
            raise refusals.not_within(self.state)
        self._staged = self._taken(value, require_parents(derived_from))
        self.on_rollback_hooks.extend(on_rollback_hooks or ())
        self.on_commit_hooks.extend(on_commit_hooks or ())
        self.state = TransactionState.STAGED

    def read(self) -> ResultRecord[Any] | None:
        """Read the result that is stored under the key; None without a key.

        Raises: what `ResultStore.read` raises.
        """
        return perform(self._read())

    async def aread(self) -> ResultRecord[Any] | None:
        """Read the result that is stored under the key; see `read`."""
        return await aperform(self._read())

    def commit(self) -> bool:
        """Store what it and its children staged, in one database transaction.

        Returns: whether it did; False when it was committed or rolled back already, or a value cannot be serialized.
        Raises: what kept it from being stored, after everything is rolled back.
        """
        return perform(self._commit())

    async def acommit(self) -> bool:
        """Store what it and its children staged; see `commit`."""
        return await aperform(self._commit())

    def rollback(self) -> bool:
        """Store nothing, and call the rollback hooks of it and its children, the last one first.

        Returns: whether it did; False when it was committed or rolled back already.
        """
        return perform(self._give_up())

    async def arollback(self) -> bool:
        """Store nothing, and call the rollback hooks; see `rollback`."""
        return await aperform(self._give_up())

    def __enter__(self) -> Self:
        self._enter()
        try:
            perform_or_undo(self._begin(), lambda: self._give_back([self]))
        except BaseException:
            self._leave()
            raise
        return self

    async def __aenter__(self) -> Self:
        self._enter()
        try:
            await aperform_or_undo(self._begin(), lambda: self._give_back([self]))
        except BaseException:
            self._leave()
            raise
        return self

    def _exit(self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None) -> None:
        try:
            perform(self._end(error))
        except BaseException as interruption:
            if not self._over:  # before it had begun
                perform(self._end(interruption))
            raise
        finally:
            self._leave()

    if TYPE_CHECKING:
        __exit__ = _exit
    else:
        __exit__ = Leave(_exit)

    async def __aexit__(
        self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None
    ) -> None:
        try:
            await aperform(self._end(error))
        finally:
            self._leave()

    def __repr__(self) -> str:
        return f"<Transaction {self.key!r} {self.state.value}>"

    def _require_locks(self) -> None:
        if self.isolation_level is IsolationLevel.SERIALIZABLE and self.store and self.store.lock_manager is None:
            raise refusals.without_locks()

    def _read(self) -> Program[ResultRecord[Any] | None]:
        if self.key is None or self.store is None:
            return None
        key, store = self.key, self.store
        return (
            yield from wait_for(
                lambda: store.read(key, holder=self.holder), lambda: store.aread(key, holder=self.holder)
            )
        )

    def _place(self) -> tuple[str, ResultStore]:
        assert self.key is not None  # noqa: S101 (who asks has looked, and a store goes with every key)
        assert self.store is not None  # noqa: S101
        return self.key, self.store

    def _enter(self) -> None:
        if self._entered is not None or not self.is_pending():
            raise refusals.entered_before()
        self._around = _CURRENT.get()
        self._parent = self._tree_around()
        self._require_locks()
        self._locks = self._tree_locks() if self._parent is None else self._parent._locks
        locks = ENCLOSING_LOCKS.get() if self.store is None else self.store.lock_manager
        values: tuple[tuple[ContextVar[Any], Any], ...] = (
            (_CURRENT, self),
            (HOLDER, self._holder_inside()),
            (ENCLOSING_LOCKS, locks),
        )
        self._entered = Within(values)
        self._entered.enter()

    def _leave(self) -> None:
        """Have the context be as it was before."""
        if self._entered is not None:
            self._entered.leave()
        self._entered = None
        self._held = None  # nobody need be told any more; a signal's exception would be lost there

    def _awaits_entry(self) -> bool:
        return self.is_pending()

    def _let_go(self) -> None:
        """Whatever kept the block from being left: nothing of it stays stored, taken or current."""
        if self._entered is None:
            return
        self._leave()
        try:
            perform(self._end(InterruptedError("the block was given up before it could be left")))
        except Exception as error:
            self.logger.warning("transaction %r was interrupted, and could not be undone: %s", self.key, error)

    def _tree_around(self) -> "Transaction | None":
        """The innermost transaction around that stores what was staged within it, and whose block goes on."""
        around = self._around
        while around is not None and (around._over or not around._holds_children()):
            around = around._around
        return around

    def _holds_children(self) -> bool:
        """Whether the results of transactions within it are stored with its own."""
        return True

    def _tree_locks(self) -> TreeLocks:
        """The locks of the tree that begins here."""
        return TreeLocks(transaction_holder(), self.logger)

    def _holder_inside(self) -> str | None:
        """The holder that stands for whoever is within it."""
        return self.holder

    def _begin(self) -> Program[None]:
        """Take the key's lock, if asked, and see whether there is anything left to do."""
        self.state = TransactionState.ACTIVE
        if self.key is None or self.store is None:
            return
        manager = self.store.lock_manager
        try:
            if self.isolation_level is IsolationLevel.SERIALIZABLE and manager is not None:
                self._claim = Claim(manager, self.key)
                if not (yield from self._locks.take(self._claim, self.lock_timeout)):
                    self._claim = None
            if (yield from self._is_done()):
                self.state = TransactionState.COMMITTED
                yield from self._give_back([self])
        except BaseException:
            yield from self._give_back([self])
            raise

    def _is_done(self) -> Program[bool]:
        """Whether there is a live result that is not to be replaced."""
        key, store = self._place()
        return not self.overwrite and (yield from wait_for(lambda: store.exists(key), lambda: store.aexists(key)))

    def _lacks_result(self, staged: Sequence[Staged]) -> Program[bool]:
        """Whether nothing was staged, nor stored under its key meanwhile, nor is about to be: then None is stored."""
        if self.state is not TransactionState.ACTIVE:
            return False
        key, store = self._place()
        place = (yield from store._keyspace()).entries
        if any(version.storage == place and version.upload.key == key for version in staged):
            return False
        return not (yield from self._is_done())

    def _end(self, failure: BaseException | None) -> Program[None]:
        """What happens when the block is left, normally or with a failure; nothing stays open, whatever comes."""
        try:
            yield from self._end_block(failure)
        except BaseException:
            yield from self._rollback()
            if self._parent is None:
                yield from self._locks.give_back_rest()
            raise

    def _end_block(self, failure: BaseException | None) -> Program[None]:
        with _ENDING:
            self._over = True
        unheard = self._undone_by if failure is None else None
        try:
            yield from self._settle(failed=failure is not None or unheard is not None)
            if unheard is not None:
                raise refusals.rolled_back(self.key, unheard) from unheard
        except BaseException as error:
            yield from self._hand_over(error)
            raise
        yield from self._hand_over(failure)

    def _hand_over(self, failure: BaseException | None) -> Program[None]:
        """Leave the rest to what is around; ``failure``: why there is none, if it was not asked for."""
        yield from self._join()
        if self._around is not None and self.is_rolled_back():
            yield from self._around._lose_child(failure)

    def _settle(self, *, failed: bool) -> Program[None]:
        if failed:
            yield from self._rollback()
        elif self.commit_mode is CommitMode.EAGER:
            yield from self._commit()
        elif self._parent is None:
            yield from (self._rollback() if self.commit_mode is CommitMode.OFF else self._commit())

    def _join(self) -> Program[None]:
        """Leave the rest to the parent or, where its block was left meanwhile, to what is around that, if anything."""
        while (parent := self._parent) is not None:
            with _ENDING:
                late = parent._over
                if not late:
                    parent.add_child(self)
            if parent.is_rolled_back():
                yield from self._rollback()
            if not late or self.is_rolled_back():
                return
            self._parent = parent._parent
            yield from self._settle(failed=False)

    def _lose_child(self, failure: BaseException | None) -> Program[None]:
        """Take everything back with a child; ``failure``: for which reason, if it was not asked to."""
        if not self._over:
            if self._undone_by is None:
                self._undone_by = failure
            yield from self._rollback()

    def _give_up(self) -> Program[bool]:
        """Take everything back because the user says so, who need not be told of it any more."""
        self._undone_by = None
        return (yield from self._rollback())


def _store_around() -> ResultStore:
    """The store of the enclosing transaction, else of the enclosing run, else the default one."""
    outer = _CURRENT.get()
    return (outer and outer.store) or CURRENT_STORE.get() or ResultStore()


def get_transaction() -> Transaction | None:
    """The innermost transaction around the caller, or None."""
    return _CURRENT.get()
