"""``pgresults put | get | ls | rm``: results by hand."""

import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from pprint import pformat
from typing import Annotated, Any

import typer

from pgresults.cli.output import note, print_bytes, print_json, print_json_list, print_rows, say, shown
from pgresults.cli.preview import Content, content_of, hexdump, imports
from pgresults.cli.session import session
from pgresults.cli.values import duration, expiration, moment
from pgresults.database.programs import perform
from pgresults.operations.results import Found, Listed
from pgresults.records.keys import require_key
from pgresults.serializers import JSONSerializer, PickleSerializer
from pgresults.sql.times import utc
from pgresults.storage.checking import require_intact, require_signed
from pgresults.storage.encoding import decode
from pgresults.storage.misses import require_live
from pgresults.storage.postgres import PostgresStorage
from pgresults.store import ResultStore

_PAGE = 500

Key = Annotated[str, typer.Argument(help="The result's key.")]
Unpickle = Annotated[bool, typer.Option("--unpickle", help="Load a pickled object, which runs the code it names.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    for command in (put, get, ls, rm):
        app.command()(command)


def put(
    context: typer.Context,
    key: Key,
    value: Annotated[str | None, typer.Argument(help="A text; - reads it from standard input.")] = None,
    json_value: Annotated[bool, typer.Option("--json-value", help="Take VALUE as JSON, not as text.")] = False,
    file: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, readable=True, help="Store a file's bytes.")
    ] = None,
    expires_in: Annotated[
        timedelta | None, typer.Option(parser=duration, metavar="SPAN", help="For example 30m or 7d.")
    ] = None,
    expires_at: Annotated[
        datetime | None, typer.Option(parser=moment, metavar="TIME", help="For example 2030-01-31T12:00:00Z.")
    ] = None,
    tag: Annotated[list[str] | None, typer.Option(help="A word to find it by; may be repeated.")] = None,
) -> None:
    """Store a text, a JSON value or a file's bytes as the next version of KEY."""
    expires = expiration(expires_in, expires_at)
    result = _result(value, json_value, file)
    # Bytes are pickled, which adds a few bytes; in JSON they would grow by a third.
    serializer = PickleSerializer() if isinstance(result, bytes) else JSONSerializer()
    with session(context).storage() as storage:
        store = ResultStore(result_storage=storage, serializer=serializer)
        stored = store.write(result, key=key, expiration=expires, tags=tag)
    until = f", expires {shown(stored.expiration)}" if stored.expiration else ""
    say(f"{key}: version {stored.version}, {stored.size:,} bytes{until}")


def _result(value: str | None, is_json: bool, file: Path | None) -> Any:
    """The object to store."""
    if (value is None) == (file is None) or (is_json and file is not None):
        raise typer.BadParameter("give VALUE (- for standard input), VALUE with --json-value, or --file PATH")
    if file is not None:
        return file.read_bytes()
    try:
        text = sys.stdin.read() if value == "-" else value
        return json.loads(text or "") if is_json else text
    except UnicodeDecodeError:
        raise typer.BadParameter("standard input is no UTF-8 text; store bytes with --file") from None
    except (ValueError, RecursionError) as error:
        raise typer.BadParameter(f"this is no JSON: {error}") from None


def get(
    context: typer.Context,
    key: Key,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", dir_okay=False, writable=True, help="Write to a file.")
    ] = None,
    unpickle: Unpickle = False,
) -> None:
    """Print a result: JSON as JSON, bytes as they are, and of a pickled object only a preview."""
    with session(context).storage() as storage:
        found = fetch_live(storage, key)
        require_signed(found.head, key, storage._trust)
        content = content_of(found.head.serializer, bytes(require_intact(found, key)))
        if content.is_opaque and unpickle:
            content = unpickled(storage, found, key)
    if output is not None:
        _save(content, output)
    else:
        present(key, found, content)


def fetch_live(storage: PostgresStorage, key: str) -> Found:
    """What is stored under a key; raises MissingResult."""
    return require_live(perform(storage._fetch(require_key(key))), key)


def present(key: str, found: Found, content: Content) -> None:
    """Print a result: JSON as JSON, texts and bytes as they are, and of anything else a preview."""
    if content.kind == "json":
        print_json(content.document)
    elif content.kind == "text":
        for line in content.data.decode().splitlines():
            say(line)
    elif content.kind == "bytes" and not sys.stdout.isatty():
        print_bytes(content.data)
    else:
        _preview(key, found, content)


def unpickled(storage: PostgresStorage, found: Found, key: str) -> Content:
    """The object itself, as what can be printed."""
    result = decode(found, key, PickleSerializer(), storage._trust).result
    if isinstance(result, bytes):
        return Content("bytes", result)
    return Content("text", pformat(result).encode(errors="backslashreplace") + b"\n")


def _save(content: Content, output: Path) -> None:
    output.write_bytes(content.data)
    if content.is_opaque:
        note(f"{output} is the payload as stored, not the object: add --unpickle if you trust who wrote it")


def _preview(key: str, found: Found, content: Content) -> None:
    head = found.head
    lines: dict[str, object] = {
        "key": key,
        "version": head.version,
        "written": utc(head.created_at),
        "expires": utc(head.expires_at) or "never",
        "size": head.size,
        "serializer": head.serializer,
        "sha256": (head.sha256 or b"").hex(),
    }
    if content.kind == "pickle":
        lines["imports"] = ", ".join(imports(content.data)) or "nothing"
    print_rows(("", ""), lines.items())
    if content.kind == "pickle":
        note("A pickle can run any code when it is loaded: add --unpickle if you trust who wrote it.")
    else:
        for line in hexdump(content.data):
            say(line)


def ls(
    context: typer.Context,
    prefix: Annotated[str, typer.Option(help="Only keys that begin so.")] = "",
    limit: Annotated[int | None, typer.Option(min=1, help="How many at most; by default all.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON array.")] = False,
) -> None:
    """List the live results by key."""
    with session(context).storage() as storage:
        listed = _listed(storage, prefix, limit)
        if as_json:
            print_json_list(row._asdict() for row in listed)
        else:
            print_rows([name.replace("_", " ") for name in Listed._fields], listed)


def _listed(storage: PostgresStorage, prefix: str, limit: int | None) -> Iterator[Listed]:
    """The live results, page by page."""
    after, left = "", sys.maxsize if limit is None else limit
    while page := perform(storage._page(prefix, after, min(_PAGE, left))):
        for row in page:
            yield row._replace(created_at=row.created_at.astimezone(UTC), expires_at=utc(row.expires_at))
        after, left = page[-1].key, left - len(page)
        if not left:
            return


def rm(
    context: typer.Context,
    key: Key,
    reason: Annotated[str | None, typer.Option(help="Kept in the key's history.")] = None,
) -> None:
    """Delete a result; its history stays."""
    with session(context).storage() as storage:
        while not ResultStore(result_storage=storage).delete(key, reason):
            fetch_live(storage, key)  # says why there is nothing to delete
    say(f"{key}: deleted")
