"""The locks of Prefect's results; those of a tree of transactions are kept until the tree is stored."""

import logging
from functools import cache
from typing import Any

from pgresults import locking
from pgresults.database.database import Database
from pgresults.database.programs import Program
from pgresults.errors import InvalidArgument
from pgresults.integrations.prefect.trees import Tree

logger = logging.getLogger(__name__)


class PostgresLockManager(locking.PostgresLockManager):
    """A lock manager for Prefect; it can be pickled, and a process has one for a storage, wherever it came from.

    Prefect releases the lock of a nested transaction as soon as it has handed its result over. Where that result waits
    for the rest of its tree, the lock waits, too.
    """

    def _release(self, key: str, holder: str) -> Program[None]:
        tree = Tree.running()
        if tree is not None and tree.keep_lock(key, lambda: super(PostgresLockManager, self)._release(key, holder)):
            return
        try:
            yield from super()._release(key, holder)
        except InvalidArgument as error:
            # In the rollback of a tree it would keep Prefect from rolling the other members back.
            if tree is None or not (tree.given_up and tree.concerns(key)):
                raise
            logger.warning("%s: it was lost", error)

    def __reduce__(self) -> tuple[Any, ...]:
        return locks_of, (self.database, self.name)


@cache
def locks_of(database: Database, name: str) -> PostgresLockManager:
    """This process's manager of the locks of a storage."""
    return PostgresLockManager(database, name)
