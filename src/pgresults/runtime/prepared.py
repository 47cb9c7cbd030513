"""The store of a task, made once for the store and the settings around it, and not at every call."""

from operator import is_
from typing import Any, NamedTuple

from pgresults.context import get_result_store
from pgresults.database.programs import Program
from pgresults.settings import current_settings
from pgresults.store.run_options import ENCLOSING_LOCKS
from pgresults.store.store import CURRENT_STORE, ResultStore


class _Made(NamedTuple):
    """A task's store, and what it was made of."""

    store: ResultStore
    around: ResultStore | None
    said: tuple[Any, ...]


class Prepared:
    """The store that was made last for a task."""

    def __init__(self) -> None:
        self._last: _Made | None = None

    def store(self, task: Any) -> Program[ResultStore]:
        """The store of the run around with the task's own settings.

        Parameters:
            task: whose; the same one at every call.
        """
        around = CURRENT_STORE.get()
        said = _said(around)
        last = self._last
        if last is not None and last.around is around and all(map(is_, last.said, said)):
            return last.store
        made = yield from get_result_store()._update_for_task(task)
        self._last = _Made(made, around, said)
        return made


def _said(around: ResultStore | None) -> tuple[Any, ...]:
    """What a task's store is made of beside what the task says: the store around, its fields, and locks or settings."""
    locks = ENCLOSING_LOCKS.get()
    if around is None:
        return locks, current_settings()
    settings = current_settings() if around.result_storage is None else None
    return locks, settings, *vars(around).values()
