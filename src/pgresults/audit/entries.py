"""The entries of a history, as they are shown."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pgresults.operations.history import Entry
from pgresults.records.provenance import shown
from pgresults.sql.times import utc


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One step in the history of a key.

    ``action`` is write, import, touch, delete, expire, redact, retain or break; times are aware and in UTC, ``size`` in
    bytes, ``sha256`` (of the payload; None once that is gone) and ``digest`` (of the entry) in hex. ``result`` is there
    when it was asked for and its payload still is: then ``has_result`` is True.
    """

    seq: int
    version: int
    action: str
    at: datetime
    actor: str
    db_user: str
    holder: str | None
    fence: int | None
    reason: str | None
    expiration: datetime | None
    size: int | None
    sha256: str | None
    tags: tuple[str, ...]
    provenance: dict[str, Any] | None
    digest: str
    result: Any = None
    has_result: bool = False


def shown_entry(entry: Entry) -> HistoryEntry:
    """An entry as the tables have it, as it is shown."""
    at = utc(entry.at)
    assert at is not None  # noqa: S101 (a moment stays one)
    return HistoryEntry(
        seq=entry.seq,
        version=entry.version,
        action=entry.action,
        at=at,
        actor=entry.actor,
        db_user=entry.db_user,
        holder=entry.holder,
        fence=entry.fence,
        reason=entry.reason,
        expiration=utc(entry.expires_at),
        size=entry.size,
        sha256=entry.sha256.hex() if entry.sha256 else None,
        tags=tuple(entry.tags or ()),
        provenance=shown(entry.provenance),
        digest=entry.digest.hex(),
    )
