"""`transaction`: how a block of the user's code becomes a transaction."""

import logging
from typing import Any

from pgresults.database.caller_transactions import Caller
from pgresults.store.store import ResultStore
from pgresults.transactions.states import CommitMode, IsolationLevel
from pgresults.transactions.transaction import Transaction


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
        write_on_commit: whether anything is stored at all; without a staged value that is None.
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
