"""Asking a lock manager, whoever wrote it: its async methods, or its sync ones in a thread."""

from concurrent.futures import Future
from typing import Any

from pgresults.database.programs import Program, wait_for
from pgresults.errors import ConfigurationError
from pgresults.locking.protocol import LockManager
from pgresults.locking.threads import begin, outcome_of

NEEDED = ("acquire_lock", "release_lock", "is_locked", "is_lock_holder", "wait_for_lock")
"""What a class must have to be a lock manager; an async twin is used where there is one."""


def require_manager(manager: Any) -> LockManager:
    """Give a lock manager back.

    Raises: ConfigurationError for what cannot be one, with the methods that it lacks.
    """
    missing = [name for name in NEEDED if _own_method(manager, name) is None]
    if missing or isinstance(manager, type):
        kind = f"the class {manager.__name__}" if isinstance(manager, type) else f"a {type(manager).__name__}"
        lacks = "an instance is needed" if isinstance(manager, type) else f"it lacks {', '.join(missing)}"
        raise ConfigurationError(
            f"{kind} is no lock manager such as storage.lock_manager(): {lacks}", setting="lock_manager"
        )
    return manager  # type: ignore[no-any-return]


def ask(manager: LockManager, name: str, *arguments: Any) -> Program[Any]:
    """Call a method of a manager by its sync name."""
    method = getattr(manager, name)
    twin = _own_method(manager, _twin(name))
    if twin is not None:
        return wait_for(lambda: method(*arguments), lambda: twin(*arguments))
    if name == "acquire_lock":
        return wait_for(lambda: method(*arguments), lambda: _acquire_in_thread(manager, *arguments))
    return wait_for(lambda: method(*arguments), lambda: outcome_of(begin(lambda: method(*arguments))))


def _twin(name: str) -> str:
    return "await_for_lock" if name == "wait_for_lock" else f"a{name}"


def _own_method(manager: object, name: str) -> Any:
    """A method, or None where there is none but what is inherited from the protocol, which does nothing."""
    method = getattr(manager, name, None)
    inherited = getattr(method, "__func__", method) is vars(LockManager)[name]
    return method if callable(method) and not inherited else None


async def _acquire_in_thread(manager: LockManager, key: str, holder: str, *times: float | None) -> bool:
    """Take a lock; what nobody is there any more to receive is given back."""
    had = await outcome_of(begin(lambda: manager.is_lock_holder(key, holder)))
    work = begin(lambda: manager.acquire_lock(key, holder, *times))

    def give_back(acquired: Future[bool]) -> None:
        if not had and acquired.exception() is None and acquired.result():
            manager.release_lock(key, holder)

    try:
        return await outcome_of(work)
    except BaseException:
        work.add_done_callback(give_back)
        raise
