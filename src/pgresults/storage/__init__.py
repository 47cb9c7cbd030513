"""Where results go, how they are encoded for it, and how a storage is found by what users say."""

from pgresults.server.embedded import EmbeddedPostgres
from pgresults.storage.postgres import NullStorage, PostgresStorage

__all__ = ["EmbeddedPostgres", "NullStorage", "PostgresStorage"]
