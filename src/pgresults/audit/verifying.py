"""Verifying a storage key by key."""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from uuid import UUID

from pgresults.arguments import require_moment
from pgresults.audit.checks import Check, Finding
from pgresults.audit.house import inspect, is_of_speed
from pgresults.audit.reports import Covered, VerifyReport
from pgresults.audit.sealing import compare, key_file, require_chain
from pgresults.audit.seals import Seal, require_genuine
from pgresults.database.database import Start
from pgresults.database.programs import Program, call, compute
from pgresults.errors import IntegrityError, MissingResult, SerializationError
from pgresults.operations import verify as operations
from pgresults.operations.registry import is_long_known, registered
from pgresults.operations.verify import MAINTENANCE, MAINTENANCE_NAME, Page, Span, Task
from pgresults.storage.current import read_current
from pgresults.storage.keyspace import Keyspace
from pgresults.storage.misses import never_written
from pgresults.storage.pointers import pointed_to
from pgresults.storage.postgres import PostgresStorage

_KEYS_A_LIST = 2_000
_ENTRIES_A_PAGE = 5_000
_NO_TRANSACTION = 2**63 - 1
_FIRST, _MOMENT = datetime.min.replace(tzinfo=UTC), timedelta(microseconds=1)


def verify(
    keyspace: Keyspace,
    key: str | None,
    since: Seal | datetime | None,
    against: Seal | None,
    progress: Callable[[int], None] | None,
    chain: Iterable[Seal],
) -> Program[VerifyReport]:
    """Check chains, heads and payloads; see `ResultStore.verify`. Seals are those of the payloads' storage."""
    sealed = keyspace.payloads
    seals = [seal for seal in (since, against) if isinstance(seal, Seal)]
    for seal in seals:
        require_genuine(seal, sealed.id, key_file(sealed), sealed.settings.seal_public_key)
    followed, broken = require_chain(sealed, chain)
    newest = max([*seals, *followed], key=lambda seal: seal.sealed_at, default=None)
    findings: list[Finding] = list(broken)
    runs = [
        _Run(storage, None if isinstance(since, Seal) else _span(since), None, findings, progress)
        if storage != sealed
        else _Run(storage, _span(since), newest, findings, progress)
        for storage in dict.fromkeys((keyspace.entries, sealed))
    ]
    unseen: tuple[str, ...] = ()
    if key is None:
        covered = yield from _verify_all(runs)
        unseen = yield from _verify_houses(runs)
    else:
        covered = yield from _verify_key(keyspace, runs, key)
    if against is not None:
        findings += yield from compare(sealed, [against])
    if followed:
        findings += yield from compare(sealed, followed)
    known = yield from call(sealed.database, lambda _: registered())
    ids = {MAINTENANCE, *(run.storage.id for run in runs if run.storage.database == sealed.database)}
    unchecked = tuple(name for id_, name in known.items() if id_ not in ids)
    span = runs[-1].span or (against.span if against else None)
    windows = yield from call(sealed.database, lambda _: operations.windows(span))
    return VerifyReport(
        tuple(covered), tuple(findings), unchecked, tuple(windows), tuple(one.sealed_at for one in followed), unseen
    )


@dataclass(frozen=True, slots=True)
class _Run:
    """One storage's part of a verification: since when, by which seal, and where to put what is found."""

    storage: PostgresStorage
    span: Span | None
    seal: Seal | None
    findings: list[Finding]
    progress: Callable[[int], None] | None


def _verify_all(runs: list[_Run]) -> Program[list[Covered]]:
    covered: list[Covered] = []
    for run in runs:
        name, database = run.storage.name, run.storage.database
        run.findings.extend((yield from _check_storage(run.storage)))
        covered.append((yield from _check_keys(run, run.storage.id, name)))
        sealed = run.seal is not None and run.seal.entries > 0
        if covered[-1].empty and (sealed or (yield from call(database, _known_for_long(run)))):
            before = f"{run.seal.entries:,} entries were sealed" if run.seal and sealed else "the storage is registered"
            message = f"nothing here of {name!r}: {before}, and its rows were removed or never written"
            run.findings.append(Finding("storage", (), message))
    for run in {run.storage.database: run for run in runs}.values():
        switch = yield from _check_keys(run, MAINTENANCE, MAINTENANCE_NAME)
        covered += [] if switch.empty else [switch]
    return covered


def _verify_houses(runs: list[_Run]) -> Program[tuple[str, ...]]:
    """Compare each schema with what it should be; returns what could not be seen. What was said already is left out."""
    hidden: list[str] = []
    for storage in {(run.storage.database, run.storage.schema): run.storage for run in runs}.values():
        guards = yield from call(storage.database, lambda _: operations.missing_guards())
        findings, unseen = yield from inspect(storage, {f"{guard.table}.{guard.name}" for guard in guards})
        runs[0].findings.extend(one for one in findings if not is_of_speed(one))
        hidden += unseen
    return tuple(hidden)


def _check_keys(run: _Run, storage_id: UUID, name: str) -> Program[Covered]:
    """Check the keys of a storage, or of the one where the switch of the history notes its use."""
    check, database = Check(partial=run.span is not None), run.storage.database
    after: str | None = None
    while tasks := (yield from call(database, _listing(storage_id, after, run.span))):
        yield from _check_tasks(run, storage_id, tasks, check)
        after = tasks[-1].key
    there = check.keys or (run.span and (yield from call(database, lambda _: operations.has_history(storage_id))))
    seal = run.seal if storage_id == run.storage.id else None
    return (yield from _as_covered(run, name, check, seal, empty=not there))


def _as_covered(run: _Run, name: str, check: Check, seal: Seal | None, *, empty: bool) -> Program[Covered]:
    newer, oldest = None, None
    if seal is not None:
        newer, oldest = yield from call(
            run.storage.database, lambda _: operations.count_since(run.storage.id, seal.span)
        )
    counts = check.keys, check.entries, check.payloads
    return Covered(name, *counts, seal.sealed_at if seal else None, newer, oldest, empty)


def _verify_key(keyspace: Keyspace, runs: list[_Run], key: str) -> Program[list[Covered]]:
    """Check one key, and where metadata is kept apart the payload that it points to."""
    covered: list[Covered] = []
    name: str | None = key
    for run in runs:
        if name is None:
            break
        check = Check(partial=run.span is not None)
        wanted = yield from call(run.storage.database, _asking(run, name))
        yield from _check_tasks(run, run.storage.id, wanted or [], check)
        if wanted is None or (wanted and not check.keys):
            if run.storage == keyspace.entries:
                raise never_written(key)
            message = f"its payload should lie under {name!r} in {run.storage.name!r}, which has nothing of it"
            run.findings.append(Finding("payload", (key,), message))
        covered.append((yield from _as_covered(run, run.storage.name, check, run.seal, empty=False)))
        name = (yield from _target(keyspace, key)) if keyspace.apart else None
    return covered


def _known_for_long(run: _Run) -> Start[bool]:
    """Asks whether its storage was registered before whoever is writing to it for the first time right now."""
    return lambda _: is_long_known(run.storage.id)


def _asking(run: _Run, key: str) -> Start[list[Task] | None]:
    return lambda _: operations.one_task(run.storage.id, key, run.span)


def _target(keyspace: Keyspace, key: str) -> Program[str | None]:
    """Where the payload of a key lies, as its metadata says; None: it has none, or what is wrong was found already."""
    try:
        return pointed_to((yield from read_current(keyspace.entries, keyspace.serializer, key)))
    except (MissingResult, IntegrityError, SerializationError):
        return None


def _span(since: Seal | datetime | None) -> Span | None:
    match since:
        case None:
            return None
        case Seal():
            return since.span
    moment = require_moment(since, "since")
    return Span(_NO_TRANSACTION, moment - _MOMENT if moment - _FIRST >= _MOMENT else _FIRST)


def _check_storage(storage: PostgresStorage) -> Program[list[Finding]]:
    findings = []
    for guard in (yield from call(storage.database, lambda _: operations.missing_guards())):
        message = (
            f"the trigger {guard.name} of {guard.table}, which keeps the history or what is on hold, is gone or off: "
            "find out who did that, then run "
            f"ALTER TABLE {storage.schema}.{guard.table} {guard.on} TRIGGER {guard.name}"
        )
        if guard.is_partition:
            message += "; `pgresults db upgrade` gives it to partitions that never had it"
        findings.append(Finding("storage", (), message))
    used = yield from call(storage.database, lambda _: operations.has_history(storage.id))
    if used and not (yield from call(storage.database, lambda _: operations.is_registered(storage.id, storage.name))):
        message = f"the storage is not registered as {storage.name!r} any more: views show it under another name"
        findings.append(Finding("storage", (), message))
    return findings


def _listing(storage_id: UUID, after: str | None, span: Span | None) -> Start[list[Task]]:
    return lambda _: operations.tasks(storage_id, after, _KEYS_A_LIST, span)


def _check_tasks(run: _Run, storage_id: UUID, tasks: list[Task], check: Check) -> Program[None]:
    """Check keys, some at a time: as many as have about as many entries as a page may hold."""
    left = deque(tasks)
    while left:
        now = [left.popleft()]
        room = _ENTRIES_A_PAGE - now[0].entries
        while left and left[0].entries <= room:
            room -= left[0].entries
            now.append(left.popleft())
        page = yield from call(run.storage.database, _reading(storage_id, now, check.partial), atomic=True)
        before = check.keys
        run.findings.extend((yield from compute(partial(check.take, page), small=False)))
        left.extendleft(reversed(now[len(page.entries) :]))
        if page.rest:
            left.appendleft(page.rest)
        if run.progress:
            run.progress(check.keys - before)


def _reading(storage_id: UUID, tasks: list[Task], partial: bool) -> Start[Page]:
    return lambda _: operations.page(storage_id, tasks, _ENTRIES_A_PAGE, partial=partial)
