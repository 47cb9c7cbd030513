"""Verifying a storage key by key, sealing it, and comparing it with a seal."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from uuid import UUID

from pgresults.audit.checks import Check, Finding
from pgresults.audit.seals import Seal, Tree, require_genuine, root_of, sign
from pgresults.database.database import Start
from pgresults.database.programs import Program, call, compute
from pgresults.errors import IntegrityError
from pgresults.operations import verify as operations
from pgresults.operations.requests import Operation
from pgresults.operations.verify import MAINTENANCE, Leaf, Page, Span, Task, Window
from pgresults.storage.misses import never_written
from pgresults.storage.postgres import PostgresStorage

_KEYS_A_LIST = 2_000
_ENTRIES_A_PAGE = 5_000
_NO_TRANSACTION = 2**63 - 1
_SHOWN_KEYS = 20


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What was checked, and what was found: nothing, when all is as it was written."""

    keys: int
    entries: int
    payloads: int
    findings: tuple[Finding, ...]
    windows: tuple[Window, ...] = ()
    """The transactions for which an owner had opened the history: since the seal or time that was given, else ever."""

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
    """Check chains, heads and payloads; see `ResultStore.verify`."""
    for seal in (since, against):
        if isinstance(seal, Seal):
            require_genuine(seal, storage.id, _key_file(storage), storage.settings.seal_public_key)
    span = _span(since)
    check = Check(partial=span is not None)
    findings: list[Finding] = []
    if key is None:
        findings += yield from _check_storage(storage)
        for storage_id in (storage.id, MAINTENANCE):
            after = ""
            while tasks := (yield from call(storage.database, _listing(storage_id, after, span))):
                yield from _check_tasks(storage, storage_id, tasks, check, findings, progress)
                after = tasks[-1].key
    else:
        wanted = yield from call(storage.database, lambda _: operations.one_task(storage.id, key, span))
        yield from _check_tasks(storage, storage.id, wanted or [], check, findings, progress)
        if wanted is None or (wanted and not check.keys):
            raise never_written(key)
    if against is not None:
        findings += yield from _compare(storage, against)
    known = span or (against.span if against else None)
    windows = yield from call(storage.database, lambda _: operations.windows(known))
    return VerifyReport(check.keys, check.entries, check.payloads, tuple(findings), tuple(windows))


def _key_file(storage: PostgresStorage) -> Path:
    return storage.settings.seal_key.expanduser()


def _span(since: Seal | datetime | None) -> Span | None:
    match since:
        case None:
            return None
        case Seal():
            return since.span
    return Span(_NO_TRANSACTION, since - timedelta(microseconds=1))


def _check_storage(storage: PostgresStorage) -> Program[list[Finding]]:
    findings = []
    for guard in (yield from call(storage.database, lambda _: operations.missing_guards())):
        message = (
            f"the trigger {guard.name}, which keeps the history, is gone or off: find out who did that, then run "
            f"ALTER TABLE {storage.schema}.{guard.table} {guard.on} TRIGGER {guard.name}"
        )
        findings.append(Finding("storage", (), message))
    keys = yield from call(storage.database, lambda _: operations.count_keys(storage.id))
    if keys and not (yield from call(storage.database, lambda _: operations.is_registered(storage.id, storage.name))):
        message = f"the storage is not registered as {storage.name!r} any more: views show it under another name"
        findings.append(Finding("storage", (), message))
    return findings


def _listing(storage_id: UUID, after: str, span: Span | None) -> Start[list[Task]]:
    return lambda _: operations.tasks(storage_id, after, _KEYS_A_LIST, span)


def _check_tasks(
    storage: PostgresStorage,
    storage_id: UUID,
    tasks: list[Task],
    check: Check,
    findings: list[Finding],
    progress: Callable[[int], None] | None,
) -> Program[None]:
    """Check keys, some at a time: as many as have about as many entries as a page may hold."""
    left = deque(tasks)
    while left:
        now = [left.popleft()]
        room = _ENTRIES_A_PAGE - now[0].entries
        while left and left[0].entries <= room:
            room -= left[0].entries
            now.append(left.popleft())
        page = yield from call(storage.database, _reading(storage_id, now, check.partial), atomic=True)
        before = check.keys
        findings += yield from compute(partial(check.take, page), small=False)
        left.extendleft(reversed(now[len(page.entries) :]))
        if page.rest:
            left.appendleft(page.rest)
        if progress:
            progress(check.keys - before)


def _reading(storage_id: UUID, tasks: list[Task], partial: bool) -> Start[Page]:
    return lambda _: operations.page(storage_id, tasks, _ENTRIES_A_PAGE, partial=partial)


def seal(storage: PostgresStorage, progress: Callable[[int], None] | None) -> Program[Seal]:
    """Sign a root over all entries that are certainly committed; see `ResultStore.seal`."""
    if ahead := (yield from call(storage.database, lambda _: operations.ahead(storage.id))):
        raise IntegrityError(
            f"{ahead:,} entries name transactions that are yet to come, no seal would cover them: they were altered, "
            "or the database restored into another cluster (then see Maintenance in docs/sql.md)"
        )
    certain = yield from call(storage.database, lambda _: operations.certain())
    keys = yield from call(storage.database, lambda _: operations.count_keys(storage.id))
    # What says that it is of a later day no server wrote: it must not stretch what the seal covers.
    far = Span(certain.bound, certain.until + timedelta(days=1))
    tree = yield from _grow(storage, far, Tree.for_keys(keys).depth, progress)
    windows = yield from call(storage.database, lambda _: operations.windows(None))
    buckets = tree.buckets()
    unsigned = Seal(
        storage=storage.name,
        storage_id=storage.id,
        sealed_at=certain.until,
        bound=certain.bound,
        until=tree.until or certain.until,
        entries=tree.entries,
        windows=len(windows),
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
