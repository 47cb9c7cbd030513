"""``pgresults put | get | touch``: results by hand."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from pgresults.cli.files import FileSource, get_file
from pgresults.cli.forcing import Force, despite_locks, require_forcing
from pgresults.cli.numbers import TakesNumbers
from pgresults.cli.output import say, shown
from pgresults.cli.parents import parents
from pgresults.cli.payloads import Raw, Unpickle, content_in, fetch_live, present, save
from pgresults.cli.progress import waiting
from pgresults.cli.session import Create, session
from pgresults.cli.values import (
    coming_moment,
    duration,
    plain_text,
    require_jsonb,
    require_one_expiration,
    text_from_stdin,
)
from pgresults.database.programs import call, perform
from pgresults.operations.registry import server_time
from pgresults.records.records import ResultRecordMetadata
from pgresults.serializers import JSONSerializer
from pgresults.store import ResultStore
from pgresults.store.stream_writing import StreamOptions

Key = Annotated[str, typer.Argument(help="The result's key.")]
Because = Annotated[str | None, typer.Option(help="Kept in the key's history.")]
ExpiresIn = Annotated[
    timedelta | None, typer.Option(parser=duration, metavar="SPAN", help="For example 30m, 7d or 2 hours.")
]
ExpiresAt = Annotated[
    datetime | None,
    typer.Option(parser=coming_moment, metavar="TIME", help="For example 2030-01-31 (UTC), 2030-01-31T12:00:00Z."),
]


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    for command in (put, get, touch):
        app.command(cls=TakesNumbers)(command)


def put(
    context: typer.Context,
    key: Key,
    value: Annotated[str | None, typer.Argument(help="A text; - reads it from standard input.")] = None,
    json_value: Annotated[bool, typer.Option("--json-value", help="Take VALUE as JSON, not as text.")] = False,
    file: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, readable=True, help="Store a file's bytes.")
    ] = None,
    expires_in: ExpiresIn = None,
    expires_at: ExpiresAt = None,
    tag: Annotated[list[str] | None, typer.Option(help="A word to find it by; may be repeated.")] = None,
    derived_from: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY[@VERSION]", help="What it was computed from, KEY alone as it is now; may be repeated."
        ),
    ] = None,
    create: Create = False,
    force: Force = False,
    reason: Annotated[str | None, typer.Option(help="Why a lock is taken away, with --force.")] = None,
) -> None:
    """Store a text, a JSON value or a file's bytes as the next version of KEY."""
    require_one_expiration(expires_in, expires_at)
    require_forcing(force, reason)
    if reason is not None and not force:
        raise typer.BadParameter("--reason says why --force takes a lock away: give both")
    with _given(value, json_value, file) as given, session(context).storage(create=create) as storage:
        locks = storage.lock_manager()
        store = ResultStore(result_storage=storage, lock_manager=locks, serializer=JSONSerializer())
        made_of = parents(storage, derived_from)
        options = StreamOptions(expires_at, tags=tag, expires_in=expires_in, derived_from=made_of)

        def write() -> ResultRecordMetadata:
            if isinstance(given, FileSource):
                return given.store(store, key, options)
            with waiting("Storing"):
                return store.write(given, key, expires_at, tags=tag, expires_in=expires_in, derived_from=made_of)

        stored = despite_locks(locks, key, force, reason, write)
    until = f", expires {shown(stored.expiration)}" if stored.expiration else ""
    say(f"{key}: version {stored.version}, {stored.size:,} bytes{until}")


@contextmanager
def _given(value: str | None, is_json: bool, file: Path | None) -> Iterator[Any]:
    """The object to store, or the file."""
    if (value is None) == (file is None) or (is_json and file is not None):
        raise typer.BadParameter("give VALUE (- for standard input), VALUE with --json-value, or --file PATH")
    if file is not None:
        with file.open("rb") as opened:
            yield FileSource(opened, file)
        return
    yield _object(value, is_json)


def _object(value: str | None, is_json: bool) -> Any:
    text = text_from_stdin() if value == "-" else plain_text(value or "", "VALUE")
    try:
        return require_jsonb(json.loads(text)) if is_json else text
    except (ValueError, RecursionError) as error:
        raise typer.BadParameter(f"this is no JSON: {error}") from None


def get(
    context: typer.Context,
    key: Key,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", dir_okay=False, writable=True, help="Write to a file.")
    ] = None,
    raw: Raw = False,
    unpickle: Unpickle = False,
) -> None:
    """Print a result: JSON as JSON, bytes as they are, plain Python values as Python writes them.

    Of an object whose loading would run code only a preview is printed, with the shape of arrays and frames.
    """
    with session(context).storage() as storage:
        if output is not None or not sys.stdout.isatty():
            plain = raw or unpickle or output is None
            if get_file(storage, key, output, plain=plain):
                return
        with waiting("Reading"):
            found = fetch_live(storage, key)
            content = content_in(storage, found, key, unpickle)
    if output is not None:
        save(key, content, output, raw)
    else:
        present(key, found, content, raw)


def touch(
    context: typer.Context,
    key: Key,
    expires_in: ExpiresIn = None,
    expires_at: ExpiresAt = None,
    never: Annotated[bool, typer.Option("--never", help="Let it expire no more.")] = False,
    force: Force = False,
    reason: Annotated[str | None, typer.Option(help="Why a lock is taken away, with --force.")] = None,
) -> None:
    """Give the live result of KEY another expiration; payload and version stay."""
    require_one_expiration(expires_in, expires_at)
    require_forcing(force, reason)
    if never == (expires_in is not None or expires_at is not None):
        raise typer.BadParameter("say until when it is kept: --expires-in, --expires-at or --never")
    with session(context).storage() as storage:
        locks = storage.lock_manager()
        store = ResultStore(result_storage=storage, lock_manager=locks)
        if expires_in is not None:
            expires_at = perform(call(storage.database, lambda _: server_time())) + expires_in
        despite_locks(locks, key, force, reason, lambda: store.touch(key, expires_at))
    say(f"{key}: {f'expires {shown(expires_at)}' if expires_at else 'never expires'}")
