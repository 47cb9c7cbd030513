"""Prefect's transactions as one: what a tree of them writes to Postgres waits for the root, and is stored together.

Prefect commits a tree from the leaves to the root and calls the storage for each result alone, so what a member hands
over before it is the root's turn is kept, by a hook that is put behind the root's own. Kept is only what surely is
asked for again: blocks may lie within others, which do with bytes and keys what they like.
"""

import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from inspect import unwrap
from typing import Any, NamedTuple

from prefect import transactions
from prefect.results import ResultRecord
from prefect.transactions import IsolationLevel, TransactionState, get_transaction

from pgresults.database.database import Database
from pgresults.database.programs import Program, call, perform
from pgresults.errors import LockLostError, PgResultsError
from pgresults.locking import PostgresLockManager
from pgresults.operations.results import Upload, write_all
from pgresults.sql.guards import Guard
from pgresults.storage.postgres import PostgresStorage

logger = logging.getLogger(__name__)
_KINDS = [getattr(transactions, name, None) for name in ("Transaction", "AsyncTransaction")]  # 3.1 has one of them
_COMMITS = frozenset(unwrap(kind.commit).__code__ for kind in _KINDS if kind is not None)
_ENDED = (TransactionState.COMMITTED, TransactionState.ROLLED_BACK)


class Write(NamedTuple):
    """A version ready to be stored."""

    storage: PostgresStorage
    upload: Upload

    @property
    def key(self) -> str:
        """Under which it will stand."""
        return self.upload.key


class Tree:
    """What the members of a tree have handed over before the root's turn.

    Parameters:
        arrives: whether what is written to a block surely arrives here, under the key that it is written to.
    """

    def __init__(self, arrives: Callable[[Any], bool]) -> None:
        self.ended = False
        self.given_up = False
        self._arrives = arrives
        self._writes: list[Write] = []
        self._members: list[Any] = []
        self._keys: set[str] = set()
        self._releases: list[Callable[[], Program[None]]] = []

    @classmethod
    def of(cls, root: Any) -> "Tree | None":
        """What waits for a root, or did."""
        hooks = root.on_commit_hooks
        return next((hook.tree for hook in hooks if isinstance(hook, _AtCommit)), None)

    @classmethod
    def running(cls) -> "Tree | None":
        """What waits, or did, for the root of the tree that is open here."""
        root = get_transaction()
        return None if root is None else cls.of(root)

    @classmethod
    def begin(cls, root: Any, arrives: Callable[[Any], bool]) -> "Tree":
        """Have what is handed over from now on wait for a root."""
        tree = cls(arrives)
        root.on_commit_hooks.append(_AtCommit(tree))
        root.on_rollback_hooks.append(_AtRollback(tree))
        return tree

    def keep(self, member: Any, write: Write) -> None:
        """Keep what a member wrote."""
        self._members.append(member)
        self._keys.add(member.key)
        self._writes.append(write)

    def keep_lock(self, key: str, release: Callable[[], Program[None]]) -> bool:
        """Put off the release of a lock whose key's result waits here; False where none does."""
        waits = not self.ended and self.concerns(key)
        if waits:
            self._releases.append(release)
        return waits

    def concerns(self, key: str) -> bool:
        """Whether a member has handed something over for a key."""
        return key in self._keys

    def upload(self, storage: PostgresStorage, key: str) -> Upload | None:
        """What waits to be stored under a key."""
        if self.ended:
            return None
        waiting = (write.upload for write in reversed(self._writes) if write.storage == storage and write.key == key)
        return next(waiting, None)

    def is_left_to(self, root: Any) -> bool:
        """Whether the root itself is surely going to write to one of our blocks, with which everything is stored."""
        if not (root.store and root.key and root.write_on_commit):
            return False
        return self._arrives(root.store.result_storage) or self._arrives(root.store.metadata_storage)

    def storing(self, root: Any, last: Sequence[Write] = ()) -> Program[None]:
        """Store everything, in one transaction for each database, and release the locks that waited.

        Raises: LockLostError when one of the locks was lost; PgResultsError when a member was rolled back;
            StorageUnavailable.
        """
        if any(member.is_rolled_back() for member in members(root)):
            raise PgResultsError("a nested transaction could not be committed, so nothing of the whole tree was stored")
        writes: dict[Database, list[Write]] = {}
        for write in (*self._writes, *last):
            writes.setdefault(write.storage.database, []).append(write)
        for database, together in writes.items():
            yield from _store(database, together)
        self.ended = True
        for release in self._releases:
            try:
                yield from release()
            except (PgResultsError, ValueError) as error:
                logger.warning("a lock ended before its release: %s", error)

    def give_up(self) -> None:
        """Undo what Prefect takes for done: the members are not committed, so that their rollback takes place."""
        if self.ended:
            return
        self.ended = self.given_up = True
        for member, write in zip(self._members, self._writes, strict=True):
            member.store.cache.pop(write.key, None)
            if member.is_committed():
                member.state = TransactionState.STAGED


class _Hook:
    """A hook of Prefect's; it does not log that it runs."""

    log_on_run = False

    def __init__(self, tree: Tree) -> None:
        self.tree = tree


class _AtCommit(_Hook):
    def __call__(self, root: Any) -> None:
        if not self.tree.ended and not self.tree.is_left_to(root):
            perform(self.tree.storing(root))


class _AtRollback(_Hook):
    def __call__(self, _root: Any) -> None:
        self.tree.give_up()


class Writer(NamedTuple):
    """A transaction that is about to store its result, and the root of its tree."""

    transaction: Any
    root: Any

    @classmethod
    def of(cls, key: str) -> "Writer | None":
        """Whose result is stored under a key; None outside of a commit."""
        root = get_transaction()
        if root is None:
            return None
        for matches in (_is_for, _has_staged):  # in a large tree the second question takes far longer
            for member in members(root):
                if matches(member, key) and _writes(member):
                    return cls(member, root)
        return None

    def logged(self) -> dict[str, Any]:
        """What Prefect's log says of the transaction's run: ids and names of its task and flow."""
        return dict(getattr(self.transaction.logger, "extra", None) or {})

    def proof(self, storage: PostgresStorage, key: str) -> tuple[Guard, dict[str, Any]]:
        """What the write has to prove about the lock that the transaction took, and the proof's parameters.

        Raises: LockLostError when this process knows already that it was lost.
        """
        manager = self.transaction.store.lock_manager
        locked = self.transaction.isolation_level is IsolationLevel.SERIALIZABLE and self.transaction.key == key
        if not (locked and isinstance(manager, PostgresLockManager) and manager._guards(storage.database, storage.id)):
            return Guard.NONE, {}
        # Prefect 3.1 does not say who the holder is: it is who took the lock last in this process.
        holder = getattr(self.transaction, "_holder", None)
        grant = manager._latest_grant(key) if holder is None else manager._grant(key, holder)
        if grant is None:
            raise LockLostError(f"the lock of {key!r} was lost: nothing was written", key=key, holder=holder)
        return Guard.FENCE, {"holder": grant.holder, "fence": grant.fence, "token": grant.token}

    def storing(self, block: Any, write: Write, arrives: Callable[[Any], bool]) -> Program[None]:
        """Store what a block is given, unless more of the tree surely follows: then keep it until that is there, too.

        Parameters:
            block: which one.
            write: what it is given.
            arrives: see `Tree`.

        Raises: what `Tree.storing` raises.
        """
        committing = _is_committing(self.root)  # else somebody writes beside what waits
        tree = Tree.of(self.root) if committing else None
        tree = None if tree is None or tree.ended else tree
        if committing and (self.transaction is not self.root or self._is_followed(block, arrives)):
            (tree or Tree.begin(self.root, arrives)).keep(self.transaction, write)
        elif tree is None:
            yield from write.storage._store(write.upload)
        else:
            yield from tree.storing(self.root, [write])

    def _is_followed(self, block: Any, arrives: Callable[[Any], bool]) -> bool:
        """Whether a root's payload is written, whose metadata surely follows."""
        store = self.root.store
        return block is store.result_storage and block is not store.metadata_storage and arrives(store.metadata_storage)


def _is_committing(root: Any) -> bool:
    """Whether a transaction is being committed: no state of Prefect's says so, only the call that goes on.

    Prefect 3.1 has another thread call the block while the one that commits waits.
    """
    return _is_committed_from(root, sys._getframe()) or any(
        _is_committed_from(root, frame) for frame in sys._current_frames().values()
    )


def _is_committed_from(root: Any, frame: Any) -> bool:
    while frame is not None:
        if frame.f_code in _COMMITS and frame.f_locals.get("self") is root:
            return True
        frame = frame.f_back
    return False


def members(root: Any) -> Iterator[Any]:
    """A transaction and all below it, in the order in which they commit."""
    for child in root.children:
        yield from members(child)
    yield root


def _is_for(member: Any, key: str) -> bool:
    return member.key is not None and member.key.lstrip("/") == key


def _has_staged(member: Any, key: str) -> bool:
    staged = member._staged_value
    return isinstance(staged, ResultRecord) and staged.metadata.storage_key == key


def _writes(member: Any) -> bool:
    """Whether a transaction is yet to end, and to store its result."""
    return bool(member.store and member.key and member.write_on_commit) and member.state not in _ENDED


def _store(database: Database, writes: Sequence[Write]) -> Program[None]:
    for storage in dict.fromkeys(write.storage for write in writes):
        yield from storage._register()
    uploads = [write.upload for write in writes]
    yield from call(database, lambda repeated: write_all(uploads, repeated=repeated), atomic=True)
