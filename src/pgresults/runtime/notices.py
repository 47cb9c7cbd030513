"""What a task says in the log: each call for who debugs, and once what keeps results from being found again."""

import logging
import weakref
from typing import Any

logger = logging.getLogger("pgresults.tasks")

_said: "weakref.WeakKeyDictionary[Any, set[str]]" = weakref.WeakKeyDictionary()
"""By function, which copies of a task have in common."""


def say_once(fn: Any, level: int, message: str, *arguments: Any) -> None:
    """Log something about a function, but not again in this process.

    Parameters:
        fn: the function; for a bound one it is said once for all instances.
        level: of the logging module.
        message: a format; what is said already has the same one.
        arguments: what it is filled with.
    """
    fn = getattr(fn, "__func__", fn)
    try:
        known = _said.setdefault(fn, set())
    except TypeError:  # it cannot be remembered
        known = set()
    if message not in known:
        known.add(message)
        logger.log(level, message, *arguments)
