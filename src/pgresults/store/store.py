"""`ResultStore`: everything about results under keys, as one class."""

from contextvars import ContextVar

from pgresults.store.batches import BatchMethods
from pgresults.store.runs import RunMethods

CURRENT_STORE: ContextVar["ResultStore | None"] = ContextVar("pgresults.store", default=None)
"""The store of the enclosing run."""


class ResultStore(RunMethods, BatchMethods):
    """Reads and writes results under keys; see `KeyedStore` for the parameters and ``docs/results.md``."""
