"""What lies under a key, fetched and printed: as it is where that is safe, else a preview of it."""

import sys
from collections.abc import Iterator
from pathlib import Path
from pprint import pformat
from typing import Annotated, Any

import typer

from pgresults.cli.output import note, print_bytes, print_json, replacing, say, steers_terminal
from pgresults.cli.tables import print_record
from pgresults.database.programs import call, perform
from pgresults.errors import PgResultsError
from pgresults.operations.results import Found, Head, look_up
from pgresults.records.keys import require_key
from pgresults.records.outlines import OUTLINE
from pgresults.records.provenance import shown as shown_provenance
from pgresults.serializers import PickleSerializer
from pgresults.serializers.preview import Content, content_of, hexdump, imports
from pgresults.sql.times import utc
from pgresults.storage.checking import require_intact, require_signed
from pgresults.storage.encoding import decode
from pgresults.storage.misses import require_live
from pgresults.storage.postgres import PostgresStorage

Unpickle = Annotated[bool, typer.Option("--unpickle", help="Load a pickled object, which runs the code it names.")]
Raw = Annotated[bool, typer.Option("--raw", help="A text or bytes as they went in, and nothing else.")]


def fetch_live(storage: PostgresStorage, key: str) -> Found:
    """What is stored under a key; raises MissingResult."""
    return require_live(perform(storage._fetch(require_key(key))), key)


def head_of_live(storage: PostgresStorage, key: str) -> Head:
    """What is known of what is stored under a key, whose payload is not looked at; raises MissingResult."""
    place = (storage.id, require_key(key))
    return require_live(perform(call(storage.database, lambda _: look_up(*place))), key).head


def content_in(storage: PostgresStorage, found: Found, key: str, unpickle: bool) -> Content:
    """What a payload holds, once it is known to be what was written; raises IntegrityError."""
    require_signed(found.head, key, storage._trust)
    content = content_of(found.head.serializer, bytes(require_intact(found, key)))
    return _unpickled(storage, found, key) if unpickle and content.is_opaque else content


def present(key: str, found: Found, content: Content, raw: bool = False) -> None:
    """Print a result: JSON as JSON, texts and bytes as they are, and of anything else a preview."""
    if raw:
        given = _as_it_went_in(key, content)
        if sys.stdout.isatty() and steers_terminal(given):
            raise PgResultsError(f"{key!r} would steer this terminal: give --output FILE, or read it by a pipe")
        print_bytes(given)
    elif content.kind == "json":
        print_json(content.document)
    elif content.kind == "text":
        for line in content.data.decode().splitlines():
            say(line)
    elif content.kind == "bytes" and not sys.stdout.isatty():
        print_bytes(content.data)
    else:
        _preview(key, found, content)


def save(key: str, content: Content, output: Path, raw: bool = False) -> None:
    """Write a result to a file, as `present` prints it; of what cannot be read the payload."""
    data = _as_it_went_in(key, content) if raw else content.data
    with replacing(output) as beside:
        beside.write_bytes(data)
    if content.is_opaque and not raw:
        note(f"{output} is the payload as stored, not the object: add --unpickle if you trust who wrote it")


def _as_it_went_in(key: str, content: Content) -> bytes:
    if content.kind == "bytes":
        return content.data
    if isinstance(content.document, str):
        try:
            return content.document.encode()
        except UnicodeEncodeError:
            raise PgResultsError(f"{key!r} is a text that no UTF-8 can say: it holds half a surrogate pair") from None
    raise PgResultsError(f"{key!r} is neither a text nor bytes: get it without --raw")


def _unpickled(storage: PostgresStorage, found: Found, key: str) -> Content:
    """The object itself, as what can be printed."""
    result = decode(found, key, PickleSerializer(), storage._trust).result
    if isinstance(result, bytes):
        return Content("bytes", result)
    return Content("text", pformat(result).encode(errors="backslashreplace") + b"\n", result)


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
    lines |= dict(_outline((shown_provenance(head.provenance) or {}).get(OUTLINE)))
    if content.kind == "pickle":
        lines["imports"] = ", ".join(imports(content.data)) or "nothing"
    print_record(lines)
    if content.kind == "pickle":
        note("A pickle can run any code when it is loaded: add --unpickle if you trust who wrote it.")
    else:
        for line in hexdump(content.data):
            say(line)


def _outline(said: Any) -> Iterator[tuple[str, object]]:
    """What the writer said of an array or a frame; nothing of it is certain to be there."""
    if not isinstance(said, dict):
        return
    for name in ("type", "shape", "dtype"):
        if (value := said.get(name)) is not None:
            yield name, " x ".join(map(str, value)) if isinstance(value, list) else value
    columns = said.get("columns")
    if isinstance(columns, list):
        pairs = [f"{one[0]} ({one[1]})" for one in columns if isinstance(one, list) and len(one) == 2]
        more = said.get("more_columns")
        yield "columns", ", ".join(pairs) + (f" and {more} more" if more else "")
