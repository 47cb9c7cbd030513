"""What must hold for the keys of a page, and what does not; no I/O."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any

from pgresults.chain import GENESIS, content_digest, entry_digest, payload_digest
from pgresults.operations.history import takes_away
from pgresults.operations.verify import Page, StoredPayload

Entry = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it was written: what, and where.

    ``kind`` is "entry", "chain", "head", "payload" or "seal"; ``keys`` are those it may concern, mostly one.
    """

    kind: str
    keys: tuple[str, ...]
    message: str
    seq: int | None = None
    version: int | None = None


def check(page: Page, *, partial: bool) -> list[Finding]:
    """Check the keys of a page.

    Parameters:
        page: what was read.
        partial: whether only later entries of the keys were read.
    """
    by_key = {key: list(chain) for key, chain in groupby(page.entries, itemgetter("key"))}
    return [finding for key in page.keys for finding in _check_key(key, by_key.get(key, []), page, partial)]


def _check_key(key: str, chain: list[Entry], page: Page, partial: bool) -> Iterator[Finding]:
    for entry in chain:
        yield from _check_entry(entry)
    yield from _check_head(key, chain, page.heads.get(key))
    yield from _check_payloads(key, chain, page, partial)


def _check_entry(entry: Entry) -> Iterator[Finding]:
    where = {"keys": (entry["key"],), "seq": entry["seq"], "version": entry["version"]}
    predecessor = GENESIS if entry["seq"] == 1 else entry["predecessor"]
    if predecessor is None:
        yield Finding("chain", message=f"what came before entry {entry['seq']} was removed", **where)
    elif entry["previous"] != predecessor:
        yield Finding("chain", message=f"entry {entry['seq']} does not follow the one before it", **where)
    if entry["digest"] != _recomputed(entry):
        message = f"entry {entry['seq']} ({entry['action']}) was altered: its digest does not match what it says"
        yield Finding("entry", message=message, **where)


def _recomputed(entry: Entry) -> bytes | None:
    try:
        content = content_digest(entry)
    except (TypeError, ValueError, ArithmeticError, RecursionError):  # what no write of ours could have put there
        return None
    return entry_digest(
        entry["previous"],
        entry["storage_id"],
        entry["key"],
        entry["seq"],
        entry["version"],
        entry["at"],
        entry["expires_at"],
        entry["db_user"],
        content,
    )


def _check_head(key: str, chain: list[Entry], head: Entry | None) -> Iterator[Finding]:
    if not chain:
        yield Finding("chain", (key,), "the key has no history: its entries were removed")
    elif head is None:
        yield Finding("head", (key,), "the key's row was removed, its history is there")
    else:
        last = chain[-1]
        differing = sorted(name for name in last.keys() & head.keys() if last[name] != head[name])
        written = [e["at"] for e in chain if e["version"] == head["version"] and e["action"] in ("write", "import")]
        if written and head["created_at"] != written[0]:
            differing.append("created_at")
        if "seq" in differing and last["seq"] < head["seq"]:
            message = (
                f"the last entries were removed: the key is at entry {head['seq']}, its history ends at {last['seq']}"
            )
            yield Finding("chain", (key,), message, seq=last["seq"], version=last["version"])
        elif differing:
            message = f"the key's row was altered: {', '.join(differing)} differ from the last entry"
            yield Finding("head", (key,), message, seq=head["seq"], version=head["version"])


def _check_payloads(key: str, chain: list[Entry], page: Page, partial: bool) -> Iterator[Finding]:
    named = {entry["payload_id"]: entry for entry in reversed(chain) if entry["payload_id"] is not None}
    for payload_id, entry in named.items():
        stored = page.payloads.get((key, payload_id))
        where = {"keys": (key,), "seq": entry["seq"], "version": entry["version"]}
        gone = any(
            takes_away(later["action"], later["version"], later["reason"], entry["version"])
            for later in chain
            if later["seq"] > entry["seq"]
        )
        if stored is not None and gone:
            yield Finding("payload", message="the payload is there, though its entries say it was erased", **where)
        elif stored is None and not gone:
            yield Finding("payload", message="the payload was removed", **where)
        elif stored is not None and (flaw := _flaw(stored, entry, page.heads.get(key))):
            yield Finding("payload", message=flaw, **where)
    if not partial:
        for of, payload_id in page.payloads:
            if of == key and payload_id not in named:
                yield Finding("payload", (key,), f"payload {payload_id} belongs to no entry")


def _flaw(stored: StoredPayload, entry: Entry, head: Entry | None) -> str | None:
    if stored.content_sha256 != stored.sha256 or stored.size != entry["size"]:
        return "the payload was altered: its bytes do not match their digest"
    if payload_digest(stored.salt or b"", stored.sha256) != entry["payload_digest"]:
        return "the payload was replaced: its digest is not the one in the entry"
    if head is not None and head["payload_id"] == entry["payload_id"] and head["sha256"] != stored.sha256:
        return "the digest in the key's row was altered: it is not that of the payload"
    return None
