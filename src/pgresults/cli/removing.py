"""``pgresults rm | redact``: results taken away."""

from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from pgresults.audit.changes import downstream_of, invalidate_downstream
from pgresults.cli.forcing import Force, despite_locks, require_forcing
from pgresults.cli.listing import Flow, Tags, Task, live
from pgresults.cli.numbers import TakesNumbers
from pgresults.cli.output import fail, note, replacing, say
from pgresults.cli.payloads import head_of_live
from pgresults.cli.progress import confirm, waiting
from pgresults.cli.results import Because
from pgresults.cli.session import session
from pgresults.cli.values import coming_moment
from pgresults.database.programs import perform
from pgresults.errors import MissingResult
from pgresults.serializers import JSONSerializer
from pgresults.storage.finding import chosen_conditions
from pgresults.storage.keyspace import Keyspace
from pgresults.storage.postgres import PostgresStorage
from pgresults.store import ResultStore

FAILED = 1
_REMAINS = "Backups and write-ahead logs keep the bytes until they are dropped; VACUUM FULL clears the table's files."

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
        store = ResultStore(result_storage=storage, lock_manager=storage.lock_manager())
        _remove_all(found, dry_run, yes, lambda: store.invalidate(prefix, tag, task, flow, reason))


def _remove_downstream(
    storage: PostgresStorage, chosen: dict[str, Any], dry_run: bool, yes: bool, reason: str | None
) -> None:
    """Delete results and what was computed from them."""
    keyspace = Keyspace(storage, None, JSONSerializer(), storage.lock_manager())
    with waiting("Looking for results"):
        found = perform(downstream_of(keyspace, chosen))
    _remove_all(found, dry_run, yes, lambda: perform(invalidate_downstream(keyspace, chosen, reason)))


def _remove_all(found: Sequence[str], dry_run: bool, yes: bool, remove: Callable[[], int]) -> None:
    """Delete what was found, in one transaction, or list it."""
    if dry_run:
        for key in found:
            say(key)
        note(f"{len(found):,} results would be deleted")
    elif found:
        confirm(f"Delete {len(found):,} results, from {found[0]!r} to {found[-1]!r}?", yes)
        with waiting("Deleting"):
            deleted = remove()
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
    reason: Annotated[str, typer.Option(help="Why; kept in the history.")],
    key: Annotated[str | None, typer.Argument(help="The result's key.")] = None,
    prefix: Annotated[str | None, typer.Option(help="All keys that begin so.")] = None,
    tag: Annotated[
        list[str] | None, typer.Option("--tag", help="All of which any version has this; may be repeated.")
    ] = None,
    certificate: Annotated[
        Path | None,
        typer.Option(dir_okay=False, writable=True, metavar="FILE", help="Where the signed statement of it goes."),
    ] = None,
    backups_until: Annotated[
        datetime | None,
        typer.Option(parser=coming_moment, metavar="TIME", help="When the last backup is gone that has it."),
    ] = None,
    log_until: Annotated[
        datetime | None,
        typer.Option(parser=coming_moment, metavar="TIME", help="When the server's log and its archive are gone."),
    ] = None,
    yes: Yes = False,
    force: Force = False,
) -> None:
    """Erase the payloads of all versions of KEY for good, or of all keys of somebody; entries stay and still verify.

    What is chosen by --prefix or --tag is erased in one transaction, and --certificate says so to others.
    """
    if (key is not None) + (prefix is not None) + bool(tag) != 1:
        raise typer.BadParameter("give a key, --prefix or --tag")
    if certificate is not None:
        if force:
            raise typer.BadParameter("--force takes the lock of one key away, and makes no certificate")
        _certify(context, certificate, (key, prefix, tag or None, reason, backups_until, log_until), yes)
        return
    if key is None or backups_until is not None or log_until is not None:
        raise typer.BadParameter("say where the statement of it goes: --certificate FILE")
    with session(context).storage() as storage:
        confirm(f"Erase all versions of {key!r} for good?", yes)
        locks = storage.lock_manager()
        store = ResultStore(result_storage=storage, lock_manager=locks)
        with waiting("Erasing"):
            erased = despite_locks(locks, key, force, reason, lambda: store.redact(key, reason))
    say(f"{key}: {erased:,} versions erased")
    note(_REMAINS)


def _certify(context: typer.Context, file: Path, given: tuple[Any, ...], yes: bool) -> None:
    """Erase all that is chosen, and write the statement of it down."""
    what = " or ".join(repr(one) for one in given[:3] if one is not None)
    with session(context).storage() as storage:
        confirm(f"Erase all versions of all keys of {what} for good?", yes)
        store = ResultStore(result_storage=storage, lock_manager=storage.lock_manager())
        with waiting("Erasing"):
            made = store.erase(*given)
    with replacing(file) as new:
        new.write_bytes(made.dump_bytes())
    say(f"{file}: {len(made.keys):,} keys erased, to be checked by the public key {made.public_key}")
    note(_REMAINS)
