"""``pgresults rm | redact``: results taken away."""

from typing import Annotated, Any

import typer

from pgresults.audit.changes import downstream_of, invalidate_downstream
from pgresults.cli.forcing import Force, despite_locks, require_forcing
from pgresults.cli.listing import Flow, Tags, Task, live
from pgresults.cli.numbers import TakesNumbers
from pgresults.cli.output import fail, note, say
from pgresults.cli.payloads import head_of_live
from pgresults.cli.progress import confirm, waiting
from pgresults.cli.results import Because, Key
from pgresults.cli.session import session
from pgresults.database.programs import perform
from pgresults.errors import MissingResult
from pgresults.serializers import JSONSerializer
from pgresults.storage.finding import chosen_conditions
from pgresults.storage.keyspace import Keyspace
from pgresults.storage.postgres import PostgresStorage
from pgresults.store import ResultStore

FAILED = 1

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    for command in (rm, redact):
        app.command(cls=TakesNumbers)(command)


def rm(
    context: typer.Context,
    keys: Annotated[list[str] | None, typer.Argument(metavar="KEY…", help="The results' keys.")] = None,
    prefix: Annotated[str | None, typer.Option(help="All whose keys begin so.")] = None,
    tag: Tags = None,
    task: Task = None,
    flow: Flow = None,
    downstream: Annotated[
        bool, typer.Option("--downstream", help="What was computed from them, too, as far as it is live.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what would be deleted.")] = False,
    yes: Yes = False,
    force: Force = False,
    reason: Because = None,
) -> None:
    """Delete results; their history stays.

    What is chosen by --prefix, --tag, --task or --flow, or with --downstream, is deleted in one transaction, all of it
    or nothing.
    """
    require_forcing(force, reason)
    chosen = chosen_conditions(prefix, tag, task, flow)
    if bool(keys) == bool(chosen):
        raise typer.BadParameter("give keys, or choose by --prefix, --tag, --task or --flow")
    if (chosen or downstream) and force:
        raise typer.BadParameter("--force takes the lock of one key away: give keys, without --downstream")
    with session(context).storage() as storage:
        if downstream:
            _remove_downstream(storage, chosen or {"keys": list(dict.fromkeys(keys or ()))}, dry_run, yes, reason)
            return
        if keys:
            missed = _remove_keys(storage, list(dict.fromkeys(keys)), dry_run, force, reason)
            raise typer.Exit(FAILED if missed else 0)
        with waiting("Looking for results"):
            found = [row.key for row in live(storage, chosen)]
        if dry_run:
            for key in found:
                say(key)
            note(f"{len(found):,} results would be deleted")
        elif found:
            confirm(f"Delete {len(found):,} results, from {found[0]!r} to {found[-1]!r}?", yes)
            store = ResultStore(result_storage=storage, lock_manager=storage.lock_manager())
            with waiting("Deleting"):
                deleted = store.invalidate(prefix, tag, task, flow, reason)
            say(f"{deleted:,} results deleted")
        else:
            note("nothing here")


def _remove_downstream(
    storage: PostgresStorage, chosen: dict[str, Any], dry_run: bool, yes: bool, reason: str | None
) -> None:
    """Delete results and what was computed from them."""
    keyspace = Keyspace(storage, None, JSONSerializer(), storage.lock_manager())
    with waiting("Looking for results"):
        found = perform(downstream_of(keyspace, chosen))
    if dry_run:
        for key in found:
            say(key)
        note(f"{len(found):,} results would be deleted")
    elif found:
        confirm(f"Delete {len(found):,} results, from {found[0]!r} to {found[-1]!r}?", yes)
        with waiting("Deleting"):
            deleted = perform(invalidate_downstream(keyspace, chosen, reason))
        say(f"{deleted:,} results deleted")
    else:
        note("nothing here")


def _remove_keys(storage: PostgresStorage, keys: list[str], dry_run: bool, force: bool, reason: str | None) -> int:
    """Delete results one by one; gives how many were not there."""
    missed = 0
    for key in keys:
        try:
            if dry_run:
                head_of_live(storage, key)
            else:
                _remove(storage, key, force, reason)
        except MissingResult as error:
            missed += 1
            fail(str(error))
        else:
            say(f"{key}: {'would be deleted' if dry_run else 'deleted'}")
    return missed


def _remove(storage: PostgresStorage, key: str, force: bool, reason: str | None) -> None:
    """Delete a result; raises MissingResult, which says why there is none, and LockedError."""
    locks = storage.lock_manager()
    store = ResultStore(result_storage=storage, lock_manager=locks)
    while not despite_locks(locks, key, force, reason, lambda: store.delete(key, reason)):
        head_of_live(storage, key)


def redact(
    context: typer.Context,
    key: Key,
    reason: Annotated[str, typer.Option(help="Why; kept in the key's history.")],
    yes: Yes = False,
    force: Force = False,
) -> None:
    """Erase the payloads of all versions of KEY for good; the entries stay and still verify."""
    with session(context).storage() as storage:
        confirm(f"Erase all versions of {key!r} for good?", yes)
        locks = storage.lock_manager()
        store = ResultStore(result_storage=storage, lock_manager=locks)
        with waiting("Erasing"):
            erased = despite_locks(locks, key, force, reason, lambda: store.redact(key, reason))
    say(f"{key}: {erased:,} versions erased")
    note("Backups and write-ahead logs keep the bytes until they are dropped; VACUUM FULL clears the table's files.")
