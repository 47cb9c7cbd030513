"""Seals over histories, and statements that tamper with them."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from pgresults.audit.seals import Seal
from pgresults.store import ResultStore

TOMORROW = datetime.now(UTC) + timedelta(days=1)


def seal_over(store: ResultStore, entries: int) -> Seal:
    """A seal over so many entries: it leaves out what is younger than any transaction of the server, whosever."""
    while (seal := store.seal()).entries < entries:
        pass
    return seal


Sql = Callable[[str], None]
HISTORY = "pgresults.history"
