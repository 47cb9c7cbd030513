"""The store of a task, made once for the store and the settings around it, and not at every call."""

from operator import is_
from typing import Any, NamedTuple

from pgresults.context import get_result_store
from pgresults.database.programs import Program
from pgresults.settings import Settings, current_settings
from pgresults.storage.postgres import PostgresStorage
from pgresults.store.run_options import ENCLOSING_LOCKS
from pgresults.store.store import CURRENT_STORE, ResultStore


class _Made(NamedTuple):
    """A task's store, and what it was made of: the store around with its fields, the locks around, and the settings."""

    store: ResultStore
    around: ResultStore | None
    fields: tuple[Any, ...]
    settings: Settings


class Prepared:
    """The store that was made last for a task."""

    def __init__(self) -> None:
        self._last: _Made | None = None

    def store(self, task: Any, *, to_write: bool) -> Program[ResultStore]:
        """The store of the run around with the task's own settings.

        Parameters:
            task: whose; the same one at every call.
            to_write: see `known`.
        """
        known = self.known(task, to_write=to_write)
        if known is not None:
            return known
        around, settings = CURRENT_STORE.get(), current_settings()
        made = yield from get_result_store()._update_for_task(task)
        self._last = _Made(made, around, _fields(around), settings)
        return made

    def known(self, task: Any, *, to_write: bool) -> ResultStore | None:
        """The store that was made last, if it still is the one to be made.

        Parameters:
            task: whose.
            to_write: whether it is to write with the serializer of the settings, if with none of the task or the run.
                Looking for those that hold takes a tenth of a read, so a read only does it for the storage.
        """
        last, around = self._last, CURRENT_STORE.get()
        if last is None or last.around is not around or not all(map(is_, last.fields, _fields(around))):
            return None
        asks_settings = (to_write and around is None) or not _has_storage(task, around)
        return None if asks_settings and last.settings is not current_settings() else last.store


def _fields(around: ResultStore | None) -> tuple[Any, ...]:
    return (ENCLOSING_LOCKS.get(), *(() if around is None else vars(around).values()))


def _has_storage(task: Any, around: ResultStore | None) -> bool:
    """Whether it is known, without the settings, where results go."""
    if task.result_storage is not None:
        return isinstance(task.result_storage, PostgresStorage)
    return around is not None and around.result_storage is not None
