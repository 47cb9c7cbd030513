"""`Transaction`: work under a key, whose results are stored together with those of its tree or not at all."""

import copy
import logging
from collections.abc import Sequence
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Any, Final, Self

from pgresults.database.caller_transactions import Caller, require_caller
from pgresults.database.programs import Program, aperform, perform, wait_for
from pgresults.errors import (
    ConfigurationError,
    InvalidArgument,
    MissingContextError,
    PgResultsError,
    SerializationError,
    StorageUnavailable,
)
from pgresults.locking.deadline import Deadline
from pgresults.records.keys import require_key
from pgresults.records.provenance import HOLDER, transaction_holder
from pgresults.records.records import ResultRecord
from pgresults.store.run_options import ENCLOSING_LOCKS
from pgresults.store.store import CURRENT_STORE, ResultStore
from pgresults.store.writing import Draft, Staged
from pgresults.transactions.hooks import Hook, run_hook
from pgresults.transactions.locks import Claim, TreeLocks
from pgresults.transactions.states import CommitMode, IsolationLevel, TransactionState
from pgresults.transactions.writes import store_all, were_stored

_CURRENT: ContextVar["Transaction | None"] = ContextVar("pgresults.transaction", default=None)


class _NotSet:
    """What stands for an argument that was not given, where None is a value."""

    def __repr__(self) -> str:
        return "NotSet"


NOT_SET: Final = _NotSet()


class Transaction:
    """Work under a key; enter it with ``with`` or ``async with``. See `transaction` for the parameters.

    Its methods exist twice where they touch the database: ``name`` blocks, ``aname`` is for an event loop.
    """

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
        Deadline.after(lock_timeout, "lock_timeout")
        if connection is not None:
            require_caller(connection)
        if store is not None and not isinstance(store, ResultStore):
            raise InvalidArgument(
                f"store is a ResultStore, not {type(store).__name__}: give ResultStore(result_storage=...)",
                argument="store",
                value=store,
            )
        self.key = None if key is None else require_key(key)
        self.store = store if store is not None or key is None else _store_around()
        self.overwrite = overwrite
        self.write_on_commit = write_on_commit
        self.logger = logger or logging.getLogger("pgresults.transactions")
        self.state = TransactionState.PENDING
        self.children: list[Transaction] = []
        self.on_commit_hooks: list[Hook] = []
        self.on_rollback_hooks: list[Hook] = []
        self._commit_mode = CommitMode.of(commit_mode, "commit_mode")
        self._isolation_level = IsolationLevel.of(isolation_level, "isolation_level")
        self._connection = connection
        self._lock_timeout = lock_timeout
        self._values: dict[str, Any] = {}
        self._staged: Any = NOT_SET
        self._parent: Transaction | None = None
        self._locks = TreeLocks("", self.logger)
        self._claim: Claim | None = None
        self._entered: tuple[Token[Transaction | None], Token[str | None], Token[Any]] | None = None
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
    def holder(self) -> str:
        """The name under which the whole tree holds locks, in whichever thread or task."""
        return self._locks.holder

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
        return self._parent

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
        if self._parent is not None:
            return self._parent.get(name, default)
        if default is NOT_SET:
            raise InvalidArgument(f"the transaction keeps no value named {name!r}", argument="name", value=name)
        return default

    def stage(
        self,
        value: Any,
        on_rollback_hooks: Sequence[Hook] = (),
        on_commit_hooks: Sequence[Hook] = (),
    ) -> None:
        """Have a value, or a `ResultRecord` of the same key, stored at the commit.

        Parameters:
            value: the result; a later one replaces it.
            on_rollback_hooks: called with the transaction when it is rolled back, the last one first.
            on_commit_hooks: called with the transaction before its results are stored.

        Raises: MissingContextError when it has not begun or is rolled back. Does nothing when it is committed.
        """
        if self.is_committed():
            return
        if self._entered is None or self.is_rolled_back():
            raise MissingContextError(f"a transaction that is {self.state.value} cannot stage: enter it with `with`")
        self._staged = value
        self.on_rollback_hooks.extend(on_rollback_hooks)
        self.on_commit_hooks.extend(on_commit_hooks)
        self.state = TransactionState.STAGED

    def read(self) -> ResultRecord[Any]:
        """Read the result that is stored under the key.

        Raises: ConfigurationError without a key; what `ResultStore.read` raises.
        """
        key, store = self._place()
        return store.read(key, holder=self.holder)

    async def aread(self) -> ResultRecord[Any]:
        """Read the result that is stored under the key; see `read`."""
        key, store = self._place()
        return await store.aread(key, holder=self.holder)

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
        return perform(self._rollback())

    async def arollback(self) -> bool:
        """Store nothing, and call the rollback hooks; see `rollback`."""
        return await aperform(self._rollback())

    def __enter__(self) -> Self:
        self._enter()
        try:
            perform(self._begin())
        except BaseException:
            self._leave()
            raise
        return self

    async def __aenter__(self) -> Self:
        self._enter()
        try:
            await aperform(self._begin())
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            perform(self._end(failed=error is not None))
        finally:
            self._leave()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await aperform(self._end(failed=error is not None))
        finally:
            self._leave()

    def __repr__(self) -> str:
        return f"<Transaction {self.key!r} {self.state.value}>"

    def _require_locks(self) -> None:
        if self.isolation_level is IsolationLevel.SERIALIZABLE and self.store and self.store.lock_manager is None:
            raise ConfigurationError(
                "isolation level SERIALIZABLE needs a store with a lock manager, e.g. "
                "ResultStore(result_storage=storage, lock_manager=storage.lock_manager())",
                setting="lock_manager",
            )

    def _place(self) -> tuple[str, ResultStore]:
        if self.key is None or self.store is None:
            raise ConfigurationError("a transaction without a key has no result to read", setting="key")
        return self.key, self.store

    def _enter(self) -> None:
        if self._entered is not None or not self.is_pending():
            raise MissingContextError("a transaction can be entered once: make a new one with transaction(...)")
        self._parent = _CURRENT.get()
        self._require_locks()
        self._locks = TreeLocks(transaction_holder(), self.logger) if self._parent is None else self._parent._locks
        locks = ENCLOSING_LOCKS.get() if self.store is None else self.store.lock_manager
        self._entered = (_CURRENT.set(self), HOLDER.set(self.holder), ENCLOSING_LOCKS.set(locks))

    def _leave(self) -> None:
        if self._entered is not None:
            current, holder, locks = self._entered
            self._entered = None
            _CURRENT.reset(current)
            HOLDER.reset(holder)
            ENCLOSING_LOCKS.reset(locks)

    def _begin(self) -> Program[None]:
        """Take the key's lock, if asked, and see whether there is anything left to do."""
        self.state = TransactionState.ACTIVE
        if self.key is None or self.store is None:
            return
        store, key, manager = self.store, self.key, self.store.lock_manager
        if self.isolation_level is IsolationLevel.SERIALIZABLE and manager is not None:
            self._claim = yield from self._locks.take(Claim(manager, key), self.lock_timeout)
        if self.overwrite:
            return
        try:
            there = yield from wait_for(lambda: store.exists(key), lambda: store.aexists(key))
        except BaseException:
            yield from self._give_back([self])
            raise
        if there:
            self.state = TransactionState.COMMITTED
            yield from self._give_back([self])

    def _end(self, *, failed: bool) -> Program[None]:
        """What happens when the block is left."""
        try:
            if failed:
                yield from self._rollback()
            elif self.commit_mode is CommitMode.EAGER:
                yield from self._commit()
            elif self._parent is None:
                yield from (self._rollback() if self.commit_mode is CommitMode.OFF else self._commit())
        finally:
            if self._parent is not None:
                yield from self._join(self._parent)

    def _join(self, parent: "Transaction") -> Program[None]:
        """Leave the rest to the parent; a rollback of one is a rollback of both."""
        parent.add_child(self)
        if self.is_rolled_back():
            yield from parent._rollback()
        elif parent.is_rolled_back():
            yield from self._rollback()

    def _commit(self) -> Program[bool]:
        members, staged = self._unfinished(), []
        if not members:
            return False
        try:
            for member in members:
                for hook in member.on_commit_hooks:
                    yield from run_hook(hook, member)
            staged = yield from self._encode(members)
            yield from store_all(staged, self.connection, self._locks.grants(_claims(members)))
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

    def _were_stored(self, staged: Sequence[Staged]) -> Program[bool]:
        try:
            return (yield from were_stored(staged))
        except StorageUnavailable as error:
            self.logger.warning("whether transaction %r was stored is not known: %s", self.key, error)
            return False

    def _finish(self, members: Sequence["Transaction"], staged: Sequence[Staged]) -> Program[None]:
        for member in members:
            member.state = TransactionState.COMMITTED
        yield from self._give_back(members, by_caller=bool(staged) and self.connection is not None)

    def _encode(self, members: Sequence["Transaction"]) -> Program[list[Staged]]:
        staged: list[Staged] = []
        for member in members:
            if member.key is not None and member.store is not None and member._has_something_to_write():
                draft = member._draft(member.key, member.store)
                staged.extend((yield from member.store._encode(draft, self.holder)))
        return staged

    def _has_something_to_write(self) -> bool:
        return self.write_on_commit and self._staged is not NOT_SET

    def _draft(self, key: str, store: ResultStore) -> Draft:
        if isinstance(self._staged, Draft):
            return self._staged._replace(storage_key=key)
        if isinstance(self._staged, ResultRecord):
            return Draft.of(self._staged)._replace(storage_key=key)
        return store._draft(self._staged, key)

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

    def _run_rollback_hook(self, hook: Hook, member: "Transaction") -> Program[None]:
        """Call a hook; its failure does not keep the others from being called."""
        try:
            yield from run_hook(hook, member)
        except Exception:
            self.logger.exception("a rollback hook of transaction %r failed", member.key)

    def _give_back(self, members: Sequence["Transaction"], *, by_caller: bool = False) -> Program[None]:
        """Let the members' locks go; ``by_caller``: they are released in the caller's transaction already."""
        claims = _claims(members)
        for member in members:
            member._claim = None
        return self._locks.give_back(claims, by_caller=by_caller)

    def _unfinished(self) -> list["Transaction"]:
        """The transactions of its tree that are neither committed nor rolled back, children before parents."""
        below = [member for child in self.children for member in child._unfinished()]
        return below if self.state.is_final else [*below, self]


def _claims(members: Sequence[Transaction]) -> list[Claim]:
    return [member._claim for member in members if member._claim is not None]


def _store_around() -> ResultStore:
    """The store of the enclosing transaction, else of the enclosing run, else the default one."""
    outer = _CURRENT.get()
    return (outer and outer.store) or CURRENT_STORE.get() or ResultStore()


def get_transaction() -> Transaction | None:
    """The innermost transaction around the caller, or None."""
    return _CURRENT.get()


def transaction(
    key: str | None = None,
    store: ResultStore | None = None,
    commit_mode: CommitMode | None = None,
    isolation_level: IsolationLevel | None = None,
    overwrite: bool = False,
    write_on_commit: bool = True,
    logger: logging.Logger | logging.LoggerAdapter[Any] | None = None,
    connection: Caller | None = None,
    lock_timeout: float | None = None,
) -> Transaction:
    """A transaction to be entered: ``with transaction(...) as txn`` or ``async with transaction(...) as txn``.

    Parameters:
        key: where its result goes; None: it only groups its children. A live result there makes it committed at once.
        store: what it writes with; None: the store of the enclosing transaction or run.
        commit_mode: when it stores what was staged; None: as the enclosing transaction does, at the root LAZY.
        isolation_level: SERIALIZABLE locks the key from begin to end; None: as the enclosing transaction does, at the
            root READ_COMMITTED.
        overwrite: run although there is a live result.
        write_on_commit: whether a staged value is stored at all.
        logger: where rollbacks are reported.
        connection: a connection or session of the caller's (SQLAlchemy's or psycopg's). The writes join its database
            transaction: they are stored when the caller commits, and with the caller's own rows.
        lock_timeout: seconds to wait for the key's lock, then LockedError is raised; None: as the enclosing
            transaction does, at the root as the settings say.

    Raises: ConfigurationError; InvalidArgument; InvalidKey. Entering it: LockedError, and DeadlockDetected where the
        lock's holder waits for a lock of this tree.
    """
    return Transaction(
        key, store, commit_mode, isolation_level, overwrite, write_on_commit, logger, connection, lock_timeout
    )


atransaction = transaction
"""`transaction`, under the name that goes with ``async with``."""
