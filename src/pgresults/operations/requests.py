"""What an operation may ask of a database, and how it is asked over either kind of connection.

An operation is a generator: it yields a request, is sent the answer and returns its result. It neither waits nor
commits, so one body serves sync and async callers, our pool and the caller's own transaction.
"""

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias, TypeVar

from pgresults.sql.compiled import CopyStatement, Statement

Row: TypeAlias = tuple[Any, ...]
T = TypeVar("T")


class Execute(NamedTuple):
    """Run a statement; the answer is its rows."""

    statement: Statement
    parameters: Mapping[str, Any]


class ExecuteMany(NamedTuple):
    """Run a statement with one set of parameters after the other, without waiting for each answer.

    The answer has a row for each: the first one it gave, or an empty one.
    """

    statement: Statement
    parameters: Sequence[Mapping[str, Any]]


class Stream(NamedTuple):
    """Run a statement and hand each row to ``sink`` as it arrives; the answer is no rows."""

    statement: Statement
    parameters: Mapping[str, Any]
    sink: Callable[[Row], None]


class Copy(NamedTuple):
    """Copy rows into a table; the answer is no rows."""

    statement: CopyStatement
    rows: Iterable[Row]


Request: TypeAlias = Execute | ExecuteMany | Stream | Copy
Operation: TypeAlias = Generator[Request, list[Row], T]
