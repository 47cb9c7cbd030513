"""``pgresults explain``: why there is a result under a key, or none."""

from collections.abc import Iterator
from typing import Any

import typer

from pgresults.audit.checks import WRITES
from pgresults.audit.entries import HistoryEntry
from pgresults.cli.listing import AsJson
from pgresults.cli.numbers import TakesNumbers
from pgresults.cli.output import in_our_times, print_json, shown
from pgresults.cli.payloads import head_of_live
from pgresults.cli.progress import waiting
from pgresults.cli.results import Key
from pgresults.cli.session import session
from pgresults.cli.tables import print_record
from pgresults.errors import MissingResult
from pgresults.operations.locks import HeldLock
from pgresults.storage.postgres import PostgresStorage
from pgresults.store import ResultStore

UNKNOWN = 1

_OF_NOTHING = {"key", "result", "history"}


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command(cls=TakesNumbers)(explain)


def explain(context: typer.Context, key: Key, as_json: AsJson = False) -> None:
    """Say why there is a result under KEY or none, what made it, and who works on it.

    The exit code is 1 where nothing ever happened under KEY, which is a mistyped one perhaps.
    """
    with session(context).storage() as storage, waiting("Looking through the history"):
        said = dict(_said(storage, key))
    if as_json:
        print_json(said)
    else:
        print_record(said)
    if said.keys() <= _OF_NOTHING:
        raise typer.Exit(UNKNOWN)


def _said(storage: PostgresStorage, key: str) -> Iterator[tuple[str, object]]:
    steps = ResultStore(result_storage=storage).history(key)
    yield "key", key
    yield "result", _state(storage, key)
    writes = [step for step in steps if step.action in WRITES]
    if writes:
        yield from _made(writes[-1], steps[-1])
    for lock in storage.lock_manager().held_locks():
        if lock.key == key:
            yield "lock", _lock(lock)
    yield "history", f"entries: {len(steps):,}, versions: {len(writes):,}" if steps else "nothing ever happened here"


def _state(storage: PostgresStorage, key: str) -> str:
    try:
        return f"version {head_of_live(storage, key).version} is live"
    except MissingResult as missing:
        return in_our_times(str(missing))


def _made(step: HistoryEntry, last: HistoryEntry) -> Iterator[tuple[str, object]]:
    """How the last version came to be, and until when it is."""
    made: dict[str, Any] = step.provenance or {}
    process, task, flow = (made.get(name) if isinstance(made.get(name), dict) else None for name in _RECORDED)
    yield "written", step.at
    yield "by", step.actor + (f", process {process.get('pid')}" if process else "")
    if task:
        yield "task", task.get("identity") or task.get("name")
    if flow:
        yield "flow", flow.get("name")
    if last.expiration is not None:
        yield "expires", last.expiration
    if step.tags:
        yield "tags", ", ".join(step.tags)
    yield "size", step.size
    if last.reason:
        yield "reason", last.reason


_RECORDED = ("process", "task", "flow")


def _lock(lock: HeldLock) -> str:
    until = f", until {shown(lock.expires_at)}" if lock.expires_at else ""
    return f"{lock.holder} has it since {shown(lock.since)}{until}; {lock.waiters} wait"
