"""What must hold for the keys of a storage, and what does not; no I/O."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from pgresults.operations.history import takes_away
from pgresults.operations.verify import Page, StoredPayload
from pgresults.sql.digests import GENESIS, POSTGRES_EPOCH, content_digest, entry_digest, payload_digest
from pgresults.storage.columns import canonical

Entry = dict[str, Any]

_OBJECTS = ("serializer", "provenance")
_TIMES = ("at", "expires_at")
_NO_LAST_ENTRY = 2**63
WRITES = ("write", "import")
"""What an entry says that stores a version."""
ACTIONS = (
    *WRITES,
    "touch",
    "delete",
    "expire",
    "redact",
    "retain",
    "break",
    "maintenance",
    "hold",
    "release",
    "rule",
    "repeal",
)
"""What an entry may say was done."""
_AHEAD = 24 * 3600 * 1_000_000  # microseconds: a clock may have been set back, or be another server's since


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it was written: what, and where.

    ``kind`` is "entry", "chain", "head", "payload", "seal" or "storage"; ``keys`` are those it may concern, mostly one.
    Of what is around them it is "function", "table", "view", "sequence", "column", "trigger", "rule", "policy", "key",
    "index", "owner", "grant" or "setting".
    """

    kind: str
    keys: tuple[str, ...]
    message: str
    seq: int | None = None
    version: int | None = None


@dataclass(slots=True)
class _Named:
    """A version's payload as its entry names it; ``present`` up to the entry that was the key's last at that time."""

    payload_id: UUID
    seq: int
    present: bool
    upto: int


@dataclass(slots=True)
class _Chain:
    """What is known of a key by the entries read so far."""

    key: str
    last: Entry | None = None
    written: Entry | None = None
    versions: dict[int, _Named] = field(default_factory=dict)


class Check:
    """Checks keys page by page; what is kept in between is what the last key still needs.

    Parameters:
        partial: whether only later entries of the keys are read.
    """

    def __init__(self, *, partial: bool) -> None:
        self.keys = 0
        self.entries = 0
        self.payloads = 0
        self.partial = partial
        self._unfinished: _Chain | None = None

    def take(self, page: Page) -> list[Finding]:
        """Check a page; gives what was found on it."""
        found: list[Finding] = []
        for key, entries in page.entries.items():
            chain = self._unfinished or _Chain(key)
            self._unfinished = None
            if not (entries or chain.last or key in page.heads or any(of == key for of, _ in page.stray)):
                continue  # nothing is known of it
            found += _check_entries(chain, entries, page)
            if page.rest and page.rest.key == key:
                self._unfinished = chain
            else:
                self.keys += 1
                found += _check_end(chain, page.heads.get(key))
        self.entries += sum(map(len, page.entries.values()))
        self.payloads += len(page.payloads)
        found += [Finding("payload", (key,), f"payload {one} belongs to no entry") for key, one in page.stray]
        return found


def _check_entries(chain: _Chain, entries: list[Entry], page: Page) -> Iterator[Finding]:
    for entry in entries:
        yield from _check_entry(entry, _predecessor(entry, chain, page))
        if entry["xid"] >= page.horizon:
            message = (
                f"entry {entry['seq']} names a transaction that is yet to come: it was altered, or the database "
                "restored into another cluster (then see Maintenance in docs/sql.md)"
            )
            yield Finding("entry", (chain.key,), message, entry["seq"], entry["version"])
        yield from _check_step(chain.last, entry, page.now)
        yield from _check_removal(chain, entry)
        yield from _check_named(chain, entry, page)
        if entry["action"] in WRITES:
            chain.written = entry
        chain.last = entry


def _predecessor(entry: Entry, chain: _Chain, page: Page) -> bytes | None:
    if chain.last is not None and chain.last["seq"] == entry["seq"] - 1:
        return bytes(chain.last["digest"])
    if entry["seq"] == 1:
        return GENESIS
    return page.before.get(chain.key) if chain.last is None else None


def _check_entry(entry: Entry, predecessor: bytes | None) -> Iterator[Finding]:
    where = {"keys": (entry["key"],), "seq": entry["seq"], "version": entry["version"]}
    if predecessor is None:
        yield Finding("chain", message=f"what came before entry {entry['seq']} was removed", **where)
    elif entry["previous"] != predecessor:
        yield Finding("chain", message=f"entry {entry['seq']} does not follow the one before it", **where)
    if entry["digest"] != _recomputed(entry):
        message = f"entry {entry['seq']} ({entry['action']}) was altered: its digest does not match what it says"
        yield Finding("entry", message=message, **where)


def _check_step(last: Entry | None, entry: Entry, now: bytes) -> Iterator[Finding]:
    """Check what the server says of an entry: its action, version and time, by what it says of the one before."""
    before = last if last is not None and last["seq"] == entry["seq"] - 1 else None
    if entry["action"] not in ACTIONS:
        flaw = f"has an action that there is not: {entry['action']!r}"
    elif _microseconds(entry["at"]) > _microseconds(now) + _AHEAD:
        flaw = "is dated in the future"
    elif before and _microseconds(entry["at"]) <= _microseconds(before["at"]):
        flaw = "is dated before the one that it follows"
    elif before and entry["version"] != before["version"] + (entry["action"] in WRITES):
        flaw = "does not have the version that it should"
    else:
        return
    message = f"entry {entry['seq']} {flaw}: no server wrote it so"
    yield Finding("entry", (entry["key"],), message, entry["seq"], entry["version"])


def _recomputed(entry: Entry) -> bytes | None:
    try:
        objects = {name: canonical(entry[name]) for name in _OBJECTS if entry[name] is not None}
        at, expires_at = (None if entry[name] is None else moment_of(entry[name]) for name in _TIMES)
        assert at is not None  # noqa: S101 (the column is never NULL)
        content = content_digest({**entry, **objects})
    except (TypeError, ValueError, ArithmeticError, RecursionError):  # what no write of ours could have put there
        return None
    return entry_digest(
        entry["previous"],
        entry["storage_id"],
        entry["key"],
        entry["seq"],
        entry["version"],
        at,
        expires_at,
        entry["db_user"],
        content,
    )


def moment_of(sent: bytes) -> datetime:
    """A time as the server sends it; raises ValueError for one that Python has not."""
    try:
        return POSTGRES_EPOCH + timedelta(microseconds=_microseconds(sent))
    except OverflowError as error:
        raise ValueError("a time is none that a write could give") from error


def _microseconds(sent: bytes) -> int:
    """A time since the beginning of 2000, whether Python has it or not."""
    return int.from_bytes(sent, signed=True)


def _check_removal(chain: _Chain, entry: Entry) -> Iterator[Finding]:
    """Take note of what an entry says was erased; a payload that was seen with that entry should not have been."""
    match entry["action"]:
        case "expire":
            gone = [entry["version"]] if entry["version"] in chain.versions else []
        case "redact" | "retain":
            said = (entry["action"], entry["version"], entry["reason"])
            gone = [version for version in chain.versions if takes_away(*said, version)]
        case _:
            return
    for version in gone:
        named = chain.versions.pop(version)
        if named.present and entry["seq"] <= named.upto:
            message = "the payload is there, though its entries say it was erased"
            yield Finding("payload", (chain.key,), message, named.seq, version)


def _check_named(chain: _Chain, entry: Entry, page: Page) -> Iterator[Finding]:
    """Check the payload of a version where an entry names it first."""
    payload_id, version, head = entry["payload_id"], entry["version"], page.heads.get(chain.key)
    known = chain.versions.get(version)
    if payload_id is None or (known and known.payload_id == payload_id):
        return
    stored = page.payloads.get((chain.key, payload_id))
    if stored is not None and (flaw := _flaw(stored, entry, head)):
        yield Finding("payload", (chain.key,), flaw, entry["seq"], version)
    upto = head["seq"] if head else _NO_LAST_ENTRY
    chain.versions[version] = _Named(payload_id, entry["seq"], stored is not None, upto)


def _flaw(stored: StoredPayload, entry: Entry, head: Entry | None) -> str | None:
    if stored.content_sha256 != stored.sha256 or stored.size != entry["size"]:
        return "the payload was altered: its bytes do not match their digest"
    if not stored.in_order:
        return "the payload was altered: its chunks are not numbered one after the other"
    if payload_digest(stored.salt or b"", stored.sha256) != entry["payload_digest"]:
        return "the payload was replaced: its digest is not the one in the entry"
    if head is not None and head["payload_id"] == entry["payload_id"] and head["sha256"] != stored.sha256:
        return "the digest in the key's row was altered: it is not that of the payload"
    return None


def _check_end(chain: _Chain, head: Entry | None) -> Iterator[Finding]:
    """Compare what the entries of a key come to with its row and its payloads."""
    last, key = chain.last, (chain.key,)
    if last is None:
        yield Finding("chain", key, "the key has no history: its entries were removed")
    elif head is None:
        yield Finding("head", key, "the key's row was removed, its history is there")
    else:
        yield from _check_head(last, chain.written, head)
    for version, named in chain.versions.items():
        if not named.present:
            yield Finding("payload", key, "the payload was removed", named.seq, version)


def _check_head(last: Entry, written: Entry | None, head: Entry) -> Iterator[Finding]:
    key = (last["key"],)
    differing = sorted(name for name in last.keys() & head.keys() if last[name] != head[name])
    if written and written["version"] == head["version"] and head["created_at"] != written["at"]:
        differing.append("created_at")
    if "seq" in differing and last["seq"] < head["seq"]:
        message = f"the last entries were removed: the key is at entry {head['seq']}, its history ends at {last['seq']}"
        yield Finding("chain", key, message, seq=last["seq"], version=last["version"])
    elif differing:
        message = f"the key's row was altered: {', '.join(differing)} differ from the last entry"
        yield Finding("head", key, message, seq=head["seq"], version=head["version"])
