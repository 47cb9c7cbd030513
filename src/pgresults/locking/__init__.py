"""Locks: the protocol of their managers, and two of them."""

from pgresults.locking.memory import MemoryLockManager
from pgresults.locking.postgres import PostgresLockManager
from pgresults.locking.protocol import LockManager

__all__ = ["LockManager", "MemoryLockManager", "PostgresLockManager"]
