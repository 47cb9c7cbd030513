"""``pgresults locks``: who holds what, and taking it away."""

from datetime import timedelta
from typing import Annotated

import typer

from pgresults.cli.output import print_json_list, say
from pgresults.cli.session import session
from pgresults.cli.tables import print_rows
from pgresults.cli.watching import Every, Watch, interval, watching
from pgresults.errors import InvalidArgument, InvalidKey, PgResultsError
from pgresults.operations.locks import HeldLock

_USUALLY = timedelta(seconds=2)

app = typer.Typer(help="The locks of keys.", invoke_without_command=True)


@app.callback()
def held(
    context: typer.Context,
    watch: Watch = False,
    every: Every = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON array.")] = False,
) -> None:
    """List who holds which lock, since when, in which process, and how many wait."""
    if context.invoked_subcommand is not None:
        return
    repeated = interval(watch, every, _USUALLY)
    with session(context).storage() as storage:
        watching(repeated, storage.lock_manager().held_locks, lambda locks: _show(locks, as_json))


def _show(locks: list[HeldLock], as_json: bool) -> None:
    if as_json:
        print_json_list(lock._asdict() for lock in locks)
    else:
        print_rows(HeldLock._fields, locks)


@app.command("break")
def break_lock(
    context: typer.Context,
    key: Annotated[str, typer.Argument(help="Whose lock.")],
    reason: Annotated[str, typer.Option(help="Kept in the key's history.")],
) -> None:
    """Take a lock away from its holder, whose writes are refused from then on."""
    with session(context).storage() as storage:
        try:
            broken = storage.lock_manager().break_lock(key, reason)
        except InvalidArgument as error:
            if error.argument != "key" or isinstance(error, InvalidKey):
                raise
            raise PgResultsError(str(error)) from error  # it was let go of, which is no mistake of who asks
    say(f"{key}: taken away from {broken.holder}, fence {broken.fence}")
