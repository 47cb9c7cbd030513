"""Verifying a storage key by key, sealing it, and comparing it with a seal."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from uuid import UUID

from pgresults.audit.checks import Finding, check
from pgresults.audit.seals import Seal, Tree, require_genuine, root_of, sign
from pgresults.effects import Program, call, compute
from pgresults.errors import MissingResult
from pgresults.operations import verify as operations
from pgresults.operations.requests import Operation
from pgresults.operations.verify import MAINTENANCE, Leaf, Page, Span
from pgresults.storage import PostgresStorage

_KEYS_A_PAGE = 500
_NO_TRANSACTION = 2**63 - 1
_SHOWN_KEYS = 20


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What was checked, and what was found: nothing, when all is as it was written."""

    keys: int
    entries: int
    payloads: int
    findings: tuple[Finding, ...]

    @property
    def intact(self) -> bool:
        """Whether nothing was found."""
        return not self.findings


def verify(
    storage: PostgresStorage,
    key: str | None,
    since: Seal | datetime | None,
    against: Seal | None,
    progress: Callable[[int], None] | None,
) -> Program[VerifyReport]:
    """Check chains, heads and payloads; see `AuditMethods.verify`."""
    for seal in (since, against):
        if isinstance(seal, Seal):
            require_genuine(seal, storage.id, _key_file(storage), storage.settings.seal_public_key)
    span = _span(since)
    keys = entries = payloads = 0
    findings: list[Finding] = []
    for storage_id in (storage.id, MAINTENANCE) if key is None else (storage.id,):
        after = ""
        while (page := (yield from _read(storage, storage_id, after, key, span))).keys:
            findings += yield from compute(partial(check, page, partial=span is not None), small=False)
            if key is not None and not (page.entries or page.heads or page.payloads):
                raise MissingResult(f"no result under {key!r}: never written", key=key, reason="never written")
            keys, entries = keys + len(page.keys), entries + len(page.entries)
            payloads, after = payloads + len(page.payloads), page.keys[-1]
            if progress:
                progress(len(page.keys))
            if key is not None:
                break
    if against is not None:
        findings += yield from _compare(storage, against)
    return VerifyReport(keys, entries, payloads, tuple(findings))


def _key_file(storage: PostgresStorage) -> Path:
    return storage.settings.seal_key.expanduser()


def _span(since: Seal | datetime | None) -> Span | None:
    match since:
        case None:
            return None
        case Seal():
            return since.span
    return Span(_NO_TRANSACTION, since - timedelta(microseconds=1))


def _read(storage: PostgresStorage, storage_id: UUID, after: str, key: str | None, span: Span | None) -> Program[Page]:
    return call(storage.database, lambda _: operations.page(storage_id, after, _KEYS_A_PAGE, key, span), atomic=True)


def seal(storage: PostgresStorage, progress: Callable[[int], None] | None) -> Program[Seal]:
    """Sign a root over all entries that are certainly committed; see `AuditMethods.seal`."""
    certain = yield from call(storage.database, lambda _: operations.certain())
    keys = yield from call(storage.database, lambda _: operations.count_keys(storage.id))
    far = Span(certain.bound, datetime.max.replace(tzinfo=certain.until.tzinfo) - timedelta(days=1))
    tree = yield from _grow(storage, far, Tree.for_keys(keys).depth, progress)
    buckets = tree.buckets()
    unsigned = Seal(
        storage=storage.name,
        storage_id=storage.id,
        sealed_at=certain.until,
        bound=certain.bound,
        until=tree.until or certain.until,
        entries=tree.entries,
        depth=tree.depth,
        buckets=buckets,
        root=root_of(buckets, tree.depth),
    )
    return (yield from compute(lambda: sign(unsigned, _key_file(storage)), small=False))


def _grow(
    storage: PostgresStorage, span: Span, depth: int, progress: Callable[[int], None] | None = None
) -> Program[Tree]:
    """The tree of a span; a second try begins a new one."""
    tree = Tree(depth)

    def start(_: bool) -> Operation[None]:
        nonlocal tree
        tree = Tree(depth)

        def add(storage_id: UUID, leaf: Leaf) -> None:
            tree.add(storage_id, leaf)
            if progress and tree.entries % 1000 == 0:
                progress(1000)

        return operations.leaves((storage.id, MAINTENANCE), span, add)

    yield from call(storage.database, start)
    return tree


def _compare(storage: PostgresStorage, against: Seal) -> Program[list[Finding]]:
    tree = yield from _grow(storage, against.span, against.depth)
    now = tree.buckets()
    places = {place for place in now.keys() | against.buckets.keys() if now.get(place) != against.buckets.get(place)}
    if not places:
        return []
    keys: dict[int, list[str]] = {place: [] for place in places}

    def note(storage_id: UUID, leaf: Leaf) -> None:
        place = tree.bucket_of(storage_id, leaf.key)
        if place in keys and leaf.key not in keys[place][-1:]:
            keys[place].append(leaf.key)

    yield from call(storage.database, lambda _: operations.leaves((storage.id, MAINTENANCE), against.span, note))
    return [_differing(place, keys[place], against, now.get(place)) for place in sorted(places)]


def _differing(place: int, keys: list[str], against: Seal, now: object) -> Finding:
    before = against.buckets.get(place)
    had, has = (before.entries if before else 0), getattr(now, "entries", 0)
    what = (
        f"{had - has} entries that were sealed are gone" if has < had
        else f"{has - had} entries were added to what was sealed" if has > had
        else "entries were rewritten since they were sealed"
    )  # fmt: skip
    among = ", ".join(map(repr, keys[:_SHOWN_KEYS])) or "no key that is left"
    return Finding("seal", tuple(keys), f"{what}, in bucket {place} of {1 << against.depth}: among {among}")
