"""Results of many small calls that wait a short while, so that they are stored together."""

import asyncio
import threading
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import TypeAlias

from pgresults.database.database import Database
from pgresults.database.observing import observed
from pgresults.database.programs import Program, call, perform, wait_for
from pgresults.errors import PgResultsError, StorageUnavailable
from pgresults.operations.bulk import write_runs
from pgresults.operations.requests import Operation
from pgresults.operations.results import Upload, Written
from pgresults.store.writing import Staged, number
from pgresults.transactions.writes import about_versions, store_all

_MOST_ITEMS = 500
_MOST_BYTES = 2 * 1024 * 1024

Tree: TypeAlias = Sequence[Staged]
"""What a call and those within it stored: in one database, all of it or nothing."""


class Gathering:
    """Trees that wait to be stored, until there are many or the first one has waited long enough.

    Parameters:
        window: seconds that one waits at most.
    """

    def __init__(self, window: float) -> None:
        self._window = window
        self._waiting: list[Tree] = []
        self._items = self._bytes = 0
        self._changed = threading.Condition()
        self._over = False
        self._failure: BaseException | None = None
        self._clock = threading.Thread(target=self._watch, name="pgresults-gathering", daemon=True)
        self._clock.start()

    def take(self, tree: Tree) -> Program[None]:
        """Have a tree wait; whoever makes it too many stores them.

        Raises: why earlier ones could not be stored.
        """
        with self._changed:
            if self._failure is not None:
                raise self._failure
            self._waiting.append(tree)
            self._items += len(tree)
            self._bytes += sum(staged.upload.size for staged in tree)
            # On an executor of the caller's a call may end when nobody waits for it any more.
            full = self._over or self._items >= _MOST_ITEMS or self._bytes >= _MOST_BYTES
            if len(self._waiting) == 1:
                self._changed.notify()  # from then on its time runs
        if full:
            yield from self._store()

    def finish(self) -> Program[None]:
        """Store what waits, and take no more.

        Raises: why some could not be stored.
        """
        with self._changed:
            self._over = True
            self._changed.notify()
        yield from wait_for(self._clock.join, lambda: asyncio.to_thread(self._clock.join))
        yield from self._store()
        if self._failure is not None:
            raise self._failure

    def _watch(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._over)
                if self._changed.wait_for(lambda: self._over, self._window):
                    return
            try:
                perform(self._store())
            except BaseException as error:
                self._failure = error
                return

    def _store(self) -> Program[None]:
        with self._changed:
            trees, self._waiting = self._waiting, []
            self._items = self._bytes = 0
        databases = {id(database): database for database in (tree[0].storage.database for tree in trees)}
        for database in databases.values():
            yield from _store_trees(database, [tree for tree in trees if tree[0].storage.database is database])


@observed("write", lambda _, trees: about_versions(list(chain(*trees))))
def _store_trees(database: Database, trees: Sequence[Tree]) -> Program[None]:
    """Store trees together; where one of them is refused, each alone, so that it holds no other one back."""
    for storage in {staged.storage.id: staged.storage for staged in chain(*trees)}.values():
        yield from storage._register()
    runs = list(_runs(staged.upload for staged in chain(*trees)))

    written: list[Written] = []

    def start(repeated: bool) -> Operation[None]:
        written.clear()
        return write_runs(lambda: runs, written.extend, repeated=repeated)

    try:
        yield from call(database, start, atomic=True)
        number(list(chain(*trees)), written)
    except StorageUnavailable:
        raise
    except PgResultsError:
        refusals = []
        for tree in trees:
            try:
                yield from store_all(tree, None, ())
            except PgResultsError as error:
                refusals.append(error)
        if refusals:
            raise refusals[0] from None


def _runs(uploads: Iterable[Upload]) -> Iterator[list[Upload]]:
    """The versions in their order, in runs in which no two go to the same place and none awaits another."""
    run: list[Upload] = []
    places: set[tuple[bytes, str]] = set()
    made: set[object] = set()
    for upload in uploads:
        if upload.place in places or not made.isdisjoint(upload.awaited):
            yield run
            run, places, made = [], set(), set()
        run.append(upload)
        places.add(upload.place)
        made.update(() if upload.origin is None else (upload.origin,))
    yield run
