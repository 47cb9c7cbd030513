"""The result store: one class, and the programs that its methods carry out."""

from pgresults.store.store import ResultStore

__all__ = ["ResultStore"]
