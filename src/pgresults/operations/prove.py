"""Reading what a proof is made of."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from pgresults.operations.requests import Execute, Operation, Row, Stream
from pgresults.operations.verify import Leaf, Span
from pgresults.sql import prove as statements
from pgresults.sql.verify import ENTRY_NAMES


class Provable(NamedTuple):
    """The entry of a version, its times as bytes and its objects as texts, and what is known of its payload."""

    entry: dict[str, Any]
    salt: bytes | None
    sha256: bytes | None


def entry_of(storage_id: UUID, key: str, version: int | None) -> Operation[Provable | None]:
    """The entry that made a version of a key, None: the newest one; None where there is none."""
    place = {"storage_id": storage_id, "key": key}
    if version is None:
        rows = yield Execute(statements.NEWEST, place)
    else:
        rows = yield Execute(statements.VERSION, {**place, "version": version})
    return _provable(rows[0]) if rows else None


def sealed_entries(storage_id: UUID, key: str, span: Span) -> Operation[list[Provable]]:
    """The entries that made versions of a key, and the last one, of those that a seal of that span covers."""
    rows = yield Execute(statements.VERSIONS, {"storage_id": storage_id, "key": key, **span._asdict()})
    return [_provable(row) for row in rows]


def _provable(row: Row) -> Provable:
    *columns, salt, sha256 = row
    return Provable(dict(zip(ENTRY_NAMES, columns, strict=True)), salt, sha256)


def history(storage_id: UUID, key: str) -> Operation[list[dict[str, Any]]]:
    """All entries of a key, oldest first, their times as bytes and their objects as texts."""
    rows = yield Execute(statements.CHAIN, {"storage_id": storage_id, "key": key})
    return [dict(zip(ENTRY_NAMES, row, strict=True)) for row in rows]


def bucket(
    storage_ids: Sequence[UUID], span: Span, place: int, depth: int, sink: Callable[[UUID, Leaf], None]
) -> Operation[None]:
    """Hand every entry of a seal's bucket over, in order.

    Parameters:
        storage_ids: whose entries.
        span: which of them the seal covers.
        place: the bucket's number.
        depth: there are 2 to the power of it.
        sink: takes them.
    """
    low, high = place << (32 - depth), (place + 1) << (32 - depth)
    bounds = {"low": low.to_bytes(4), "high": high.to_bytes(4) if high < 1 << 32 else b"\xff" * 33}
    for storage_id in storage_ids:

        def hand_over(row: Row, of: UUID = storage_id) -> None:
            sink(of, Leaf(*row))

        yield Stream(statements.BUCKET, {"storage_id": storage_id, **span._asdict(), **bounds}, hand_over)
