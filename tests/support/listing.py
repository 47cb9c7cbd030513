"""What a storage holds, for tests that look at all of it."""

from pgresults.database.programs import perform
from pgresults.operations.results import Listed
from pgresults.storage import PostgresStorage


def page(storage: PostgresStorage, prefix: str = "", after: str = "", limit: int = 100) -> list[Listed]:
    """A page of live results under a prefix, after a key."""
    return perform(storage._page(prefix, after, limit))
