"""The import of results that Prefect kept as files; it needs no Prefect."""

from collections.abc import Iterator, Sequence
from functools import partial
from hashlib import sha256
from typing import NamedTuple

from sqlalchemy import LargeBinary, Text, any_, bindparam, cast, func, literal_column, select
from sqlalchemy.dialects.postgresql import ARRAY

from pgresults.arguments import flaw_of
from pgresults.database.programs import call, perform
from pgresults.errors import ConfigurationError, InvalidKey, LockedError, PayloadTooLarge
from pgresults.integrations.prefect.documents import is_damaged, is_old_record, take_apart, upload_of
from pgresults.integrations.prefect.sources import Source, in_short
from pgresults.operations.requests import Execute, Operation
from pgresults.operations.results import Upload, write
from pgresults.records.keys import MAX_KEY_BYTES, require_key
from pgresults.sql.compiled import Statement
from pgresults.sql.guards import Guard
from pgresults.sql.schema import result
from pgresults.storage.postgres import PostgresStorage

_NAMES_A_QUESTION = 500


class Imported(NamedTuple):
    """What became of a file.

    ``outcome`` is imported, present (it is there already), kept (Postgres has or had something newer), locked (somebody
    holds the lock of its key), unreadable or bare (no result record); ``reason`` says by whom or why.
    """

    name: str
    outcome: str
    reason: str | None = None


def import_files(
    storage: PostgresStorage,
    source: Source,
    names: list[str],
    *,
    vouched: bool = False,
    bare: bool = False,
    dry_run: bool = False,
) -> Iterator[Imported]:
    """Store each file as the first version under its name, with its expiration and the time it was written.

    What is under a key already is never replaced, so an import that was interrupted is taken up by running it again,
    and several may run at once.

    Parameters:
        storage: where the results go.
        source: where the files are.
        names: the files.
        vouched: whether the caller answers for them, which nobody has signed.
        bare: whether to store also what is no result record, as plain bytes.
        dry_run: only say what would become of them.

    Raises: ConfigurationError where a signing key is set and nobody vouches; StorageUnavailable; SchemaVersionError.
    """
    if storage._trust.keys and not vouched and not dry_run:
        raise ConfigurationError(
            "a signing key is set (PGRESULTS_SIGNING_KEY), and nobody has signed Prefect's files: if you answer for "
            "where they come from, add --vouch, and they are signed",
            setting="signing_key",
        )
    return _imported(storage, source, names, bare, dry_run)


def _imported(
    storage: PostgresStorage, source: Source, names: list[str], bare: bool, dry_run: bool
) -> Iterator[Imported]:
    perform(storage._trusted(register=not dry_run))
    for batch in batched(names, _NAMES_A_QUESTION):
        known = perform(call(storage.database, partial(_heads, storage, batch)))
        for name in batch:
            try:
                yield _import_file(storage, source, name, known.get(name), bare, dry_run)
            except LockedError as error:
                yield Imported(name, "locked", in_short(error))
            except (OSError, InvalidKey, PayloadTooLarge) as error:
                yield Imported(name, "unreadable", in_short(error))


def _import_file(
    storage: PostgresStorage, source: Source, name: str, known: bytes | None, bare: bool, dry_run: bool
) -> Imported:
    key, content = require_key(name), source.read(name)
    if is_damaged(content):
        return Imported(name, "unreadable", "empty" if not content else "a result document that breaks off")
    if dry_run:
        return _foretold(name, key, content, known, bare)
    modified = source.modified(name)
    origin = {"name": name, "modified_at": modified.isoformat() if modified else None}
    upload = upload_of(storage, key, content, {"import": origin}, guard=Guard.NOT_HELD, described={"action": "import"})
    if not (bare or upload.alike["pgresults_version"] or is_old_record(content)):
        return Imported(name, "bare")
    if known is None:
        perform(storage._register())
        try:
            perform(call(storage.database, lambda repeated: _write_first(upload, repeated), atomic=True))
        except _NotFirst:
            known = perform(call(storage.database, partial(_heads, storage, [key])))[key]
        else:
            return Imported(name, "imported")
    return Imported(name, "present" if known == upload.own.sha256 else "kept")


def _foretold(name: str, key: str, content: bytes, known: bytes | None, bare: bool) -> Imported:
    """What would become of a file, which nothing is signed for: a storage that is not there has no identity yet."""
    payload, columns, _ = take_apart(content, key)
    if not (bare or columns or is_old_record(content)):
        return Imported(name, "bare")
    if known is None:
        return Imported(name, "imported")
    return Imported(name, "present" if known == sha256(payload).digest() else "kept")


class _NotFirst(Exception):  # noqa: N818 (a signal that has the transaction rolled back)
    """Somebody stored a result under the key in the meantime."""


def _write_first(upload: Upload, repeated: bool) -> Operation[None]:
    if (yield from write(upload, repeated=repeated)).version != 1:
        raise _NotFirst


_HEADS = Statement(
    select(result.c.key, func.coalesce(result.c.sha256, cast(literal_column("''"), LargeBinary))).where(
        result.c.storage_id == bindparam("storage_id"),
        result.c.key == any_(bindparam("keys", type_=ARRAY(Text))),
        result.c.version > literal_column("0"),
    )
)
"""Under which of some keys there is or was a result, with its digest."""


def _heads(storage: PostgresStorage, names: Sequence[str], _repeated: bool = False) -> Operation[dict[str, bytes]]:
    keys = [name for name in names if flaw_of(name, MAX_KEY_BYTES) is None]
    rows = yield Execute(_HEADS, {"storage_id": storage.id, "keys": keys})
    return dict(rows)


def batched(names: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    """The names in groups."""
    return (names[start : start + size] for start in range(0, len(names), size))
