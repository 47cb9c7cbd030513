"""The programs by name, each with what comes of it."""

from collections.abc import Callable
from typing import Any, NamedTuple


class Snippet(NamedTuple):
    """A program, and what comes of it.

    ``error`` and ``says``: how it is refused; ``page``: what the quickstart says of it.
    """

    run: Callable[[], object]
    error: type[BaseException] | None = None
    says: str = ""
    page: str = ""


SNIPPETS: dict[str, Snippet] = {}


def works(run: Callable[[], object]) -> Callable[[], object]:
    """It does here what it does there."""
    SNIPPETS[run.__name__] = Snippet(run)
    return run


def refused(error: type[BaseException], says: str, page: str = "") -> Callable[..., Callable[[], object]]:
    """It is refused, with a sentence or by what Python says, and then the page says more."""

    def add(run: Callable[[], object]) -> Callable[[], object]:
        SNIPPETS[run.__name__] = Snippet(run, error, says, page)
        return run

    return add


def differs(page: str) -> Callable[..., Callable[[], object]]:
    """It does something else, as the page says."""

    def add(run: Callable[[], object]) -> Callable[[], object]:
        SNIPPETS[run.__name__] = Snippet(run, page=page)
        return run

    return add


SEE = r"\(see docs/quickstart\.md, 'What is not here'\)"


class Failure(Exception):  # noqa: N818 (not an error of the program)
    """What goes wrong."""


def caught(function: Callable[..., Any], *args: Any) -> bool:
    """Whether a call fails."""
    try:
        function(*args)
    except Failure:
        return True
    return False
