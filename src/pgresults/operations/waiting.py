"""Saying who waits for a lock, and asking who waits for whom."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from pgresults.operations.requests import Execute, Operation
from pgresults.sql import waiting as statements


class Waiting(NamedTuple):
    """Somebody who has waited for a key's lock for ``age`` seconds.

    ``through``: the holder does not ask itself, but cannot go on before the one who asks.
    """

    key: str
    id: UUID
    holder: str
    through: bool
    age: float


class Edge(NamedTuple):
    """That ``waiter`` waits for the lock of a key, since when, and that ``holder`` has it; see `Waiting`."""

    id: UUID
    waiter: str
    key: str
    holder: str
    since: datetime
    through: bool


def see(storage_id: UUID, waiting: Sequence[Waiting]) -> Operation[None]:
    """Say of waiters that they still wait."""
    columns = zip(*waiting, strict=True)
    named = {f"{name}s": list(column) for name, column in zip(Waiting._fields, columns, strict=True)}
    yield Execute(statements.SEE, {"storage_id": storage_id, **named})


def leave(storage_id: UUID, gone: Sequence[tuple[UUID, str]]) -> Operation[None]:
    """Say of waiters, by their ids and holders, that they wait no more."""
    ids, holders = (list(column) for column in zip(*gone, strict=True))
    yield Execute(statements.LEAVE, {"storage_id": storage_id, "ids": ids, "holders": holders})


def edges(ids: Sequence[UUID]) -> Operation[list[Edge]]:
    """Who waits for whom, of all that these waiters can be waiting for in the end."""
    return [Edge(*row) for row in (yield Execute(statements.EDGES, {"ids": list(ids)}))]
