"""Wrong usage: exit code 2, in words of ours, and what was probably meant."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

from pgresults.cli.output import fail
from pgresults.errors import ConfigurationError, InvalidArgument

WRONG_USAGE = 2

_UsageError: type[Exception] = typer.BadParameter.mro()[1]  # click's own, or that of typer's copy of it
_VALIDATORS = "Value error, "  # how pydantic begins, which newer versions of typer ask

_CALLED_OTHERWISE = {
    "find": "ls",
    "list": "ls",
    "read": "get",
    "write": "put",
    "delete": "rm",
    "remove": "rm",
    "invalidate": "rm",
    "upgrade": "db upgrade",
    "migrate": "db upgrade",
    "start": "embedded start",
    "stop": "embedded stop",
    "status": "embedded status",
}
"""Commands by the names that Python's methods and other programs have for them."""


def end(message: str) -> NoReturn:
    """End the program for what it was told wrongly."""
    fail(message)
    raise typer.Exit(WRONG_USAGE)


@contextmanager
def told() -> Iterator[None]:
    """End the program where settings or options are of no use; what is done in the block asks nobody else."""
    try:
        yield
    except (ConfigurationError, InvalidArgument) as error:
        end(str(error))


class HelpfulGroup(TyperGroup):
    """A group of commands that says what is wrong with how it is used, and what was probably meant."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        with _in_our_words():
            return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        with _in_our_words():
            return super().invoke(ctx)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        try:
            return super().resolve_command(ctx, args)
        except _UsageError as error:
            if meant := _CALLED_OTHERWISE.get(args[0]):
                error.message = f"No such command {args[0]!r}. Did you mean {meant!r}?"  # type: ignore[attr-defined]
            raise


@contextmanager
def _in_our_words() -> Iterator[None]:
    try:
        yield
    except _UsageError as error:
        _reword(error)
        raise


def _reword(error: Any) -> None:
    error.message = error.message.removeprefix(_VALIDATORS)
    if options := getattr(error, "possibilities", None):
        error.message += f". Did you mean {', '.join(map(repr, sorted(options)))}?"
        error.possibilities = None
