"""Prolonging leases: locks that a pooler keeps from having a beacon live by being renewed in time."""

import logging
import os
import threading
from collections.abc import Callable, Iterable
from datetime import timedelta
from functools import partial
from uuid import UUID

from pgresults.database.database import Database
from pgresults.errors import PgResultsError
from pgresults.operations.locks import Grant, renew
from pgresults.operations.requests import Operation

logger = logging.getLogger(__name__)


class Renewal:
    """A thread that renews a process's leases at a third of their time, while there are any.

    Parameters:
        database: where the locks are.
        leases: gives the grants to renew.
        lost: is told each grant that is no longer ours.
    """

    def __init__(
        self, database: Database, leases: Callable[[], Iterable[Grant]], lost: Callable[[Grant], None]
    ) -> None:
        self._database = database
        self._leases = leases
        self._lost = lost
        self._thread: threading.Thread | None = None
        self._pid = 0
        self._wake = threading.Event()

    def ensure_running(self) -> None:
        """Start the thread unless it runs in this process."""
        if self._thread is None or not self._thread.is_alive() or self._pid != os.getpid():
            self._pid = os.getpid()
            self._wake = threading.Event()
            self._thread = threading.Thread(target=self._work, args=(self._wake,), name="pgresults-leases", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Let the thread end."""
        self._wake.set()

    def _work(self, stopped: threading.Event) -> None:
        while not stopped.wait(self._database.settings.lease / 3):
            grants = {grant.token: grant for grant in self._leases()}
            if not grants:
                continue
            try:
                kept = self._renew(grants)
            except PgResultsError as error:
                logger.warning("leases could not be renewed, will try again: %s", error)
                continue
            for token in grants.keys() - kept:
                self._lost(grants[token])

    def _renew(self, grants: dict[UUID, Grant]) -> set[UUID]:
        hold = timedelta(seconds=self._database.settings.lease)
        by_session: dict[UUID, list[UUID]] = {}
        for grant in grants.values():
            by_session.setdefault(grant.session, []).append(grant.token)
        kept: set[UUID] = set()
        for session, tokens in by_session.items():
            kept |= self._database.run(partial(_begin, session, tokens, hold))
        return kept


def _begin(session: UUID, tokens: list[UUID], hold: timedelta, _: bool) -> Operation[set[UUID]]:
    return renew(session, tokens, hold)
