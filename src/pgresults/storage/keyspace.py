"""Where the results of a store lie: their payloads, and the entries under whose keys they are found."""

from dataclasses import dataclass

from pgresults.locking.protocol import LockManager
from pgresults.serializers import Serializer
from pgresults.storage.postgres import PostgresStorage


@dataclass(frozen=True, slots=True)
class Keyspace:
    """What a store's programs work on.

    Parameters:
        payloads: where results go.
        apart: where metadata is kept under the key, pointing to the payload; None: beside the payload.
        serializer: for payloads that name none.
        locks: who has the work on a key; None: no locks.
    """

    payloads: PostgresStorage
    apart: PostgresStorage | None
    serializer: Serializer
    locks: LockManager | None = None

    @property
    def entries(self) -> PostgresStorage:
        """Where keys are looked up."""
        return self.apart or self.payloads
