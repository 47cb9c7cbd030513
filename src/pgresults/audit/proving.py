"""Making a proof: an entry as it stands in the history, and its way to the root of a seal."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from pgresults.audit.checks import moment_of
from pgresults.audit.merkle import WholeTree
from pgresults.audit.proofs import Proof
from pgresults.audit.sealing import key_file
from pgresults.audit.seals import Seal, bucket_digest, bucket_of, leaf_bytes, levels_of, require_genuine
from pgresults.audit.standalone import CONTENT, LATER, ROW, Refused, check_entry
from pgresults.database.database import Start
from pgresults.database.programs import Program, call, compute
from pgresults.errors import IntegrityError, InvalidArgument, MissingResult
from pgresults.operations import prove as operations
from pgresults.operations.requests import Operation
from pgresults.operations.verify import MAINTENANCE, Leaf
from pgresults.records.keys import require_key
from pgresults.storage.columns import parsed
from pgresults.storage.misses import never_written, no_such_version
from pgresults.storage.postgres import PostgresStorage

_HEX = ("previous", "digest", "payload_digest", "signature")


def prove(storage: PostgresStorage, key: str, version: int | None, seal: Seal, salt: bool) -> Program[Proof]:
    """Show that a version was sealed; see `ResultStore.prove`."""
    if version is not None and (type(version) is not int or not 0 < version < 2**63):
        raise InvalidArgument("version is a number from 1 on", argument="version", value=version)
    _require_of_use(seal, storage)
    asked = _asked(storage.id, require_key(key), version)
    found = yield from call(storage.database, asked)
    if found is None:
        raise never_written(key) if version is None else no_such_version(key, version)
    (proof,) = yield from _prove(storage, key, [found], seal, salt)
    return proof


def prove_all(storage: PostgresStorage, key: str, seal: Seal, salt: bool) -> Program[list[Proof]]:
    """The proofs of all versions of a key that a seal covers, and of the last entry that it covers."""
    _require_of_use(seal, storage)
    found = yield from call(
        storage.database, lambda _: operations.sealed_entries(storage.id, require_key(key), seal.span)
    )
    return (yield from _prove(storage, key, found, seal, salt)) if found else []


def history(storage: PostgresStorage, key: str) -> Program[list[dict[str, Any]]]:
    """All entries of a key, oldest first, with all that their digests cover, as JSON has it.

    Raises: MissingResult; IntegrityError for an entry that no write of ours could have left.
    """
    rows = yield from call(storage.database, lambda _: operations.history(storage.id, require_key(key)))
    if not rows:
        raise never_written(key)
    return [written(row) for row in rows]


def _asked(storage_id: UUID, key: str, version: int | None) -> Start[operations.Provable | None]:
    return lambda _: operations.entry_of(storage_id, key, version)


def _require_of_use(seal: Seal, storage: PostgresStorage) -> None:
    require_genuine(seal, storage.id, key_file(storage), storage.settings.seal_public_key)
    if seal.format == 1:
        raise IntegrityError("the seal is of format 1, whose proofs would be long: make a new one by `pgresults seal`")


def written(row: Mapping[str, Any]) -> dict[str, Any]:
    """An entry as a proof has it.

    Raises: IntegrityError for one that was altered.
    """
    where = {"key": row["key"], "version": row["version"]}
    try:
        entry = {name: _as_json(name, row[name]) for name in (*ROW, *CONTENT)}
        entry |= {name: row[name] for name in LATER if row[name] is not None}
        return check_entry(entry)
    except (Refused, ValueError, ArithmeticError, RecursionError) as error:
        message = f"entry {row['seq']} of {row['key']!r} cannot be proven, run `pgresults verify`: {error}"
        raise IntegrityError(message, **where) from error


def _as_json(name: str, value: Any) -> Any:
    if value is None:
        return None
    match name:
        case "at" | "expires_at":
            return f"{moment_of(value):%Y-%m-%dT%H:%M:%S.%fZ}".rjust(27, "0")
        case "serializer" | "provenance":
            return parsed(value)
    if name in _HEX:
        return value.hex()
    return str(value) if isinstance(value, UUID) else value


def _payload(found: operations.Provable) -> dict[str, str] | None:
    if found.salt is None or found.sha256 is None:
        return None
    return {"sha256": found.sha256.hex(), "salt": found.salt.hex()}


def _prove(
    storage: PostgresStorage, key: str, found: Sequence[operations.Provable], seal: Seal, salt: bool
) -> Program[list[Proof]]:
    """Show that entries of a key were sealed: what the seal has in their bucket is read once."""
    entries = [written(one.entry) for one in found]
    bucket = yield from _bucket(storage, key, seal)
    paths = yield from compute(lambda: [_path(bucket, storage, entry, seal) for entry in entries], small=False)
    proven = {**seal.head(), "signature": seal.signature}
    return [
        Proof(entry=entry, payload=_payload(one) if salt else None, path=path, seal=proven)
        for one, entry, path in zip(found, entries, paths, strict=True)
    ]


def _bucket(storage: PostgresStorage, key: str, seal: Seal) -> Program[WholeTree]:
    place = bucket_of(storage.id, key, seal.depth)
    tree = WholeTree()

    def start(_: bool) -> Operation[None]:
        nonlocal tree
        tree = WholeTree()

        def add(storage_id: UUID, one: Leaf) -> None:
            tree.add(leaf_bytes(storage_id, one))

        return operations.bucket((storage.id, MAINTENANCE), seal.span, place, seal.depth, add)

    yield from call(storage.database, start)
    return tree


def _path(bucket: WholeTree, storage: PostgresStorage, entry: dict[str, Any], seal: Seal) -> dict[str, Any]:
    key, version = entry["key"], entry["version"]
    place = bucket_of(storage.id, key, seal.depth)
    found = bucket.path(leaf_bytes(storage.id, Leaf(key, entry["seq"], bytes.fromhex(entry["digest"]), seal.until)))
    if found is None:
        message = f"version {version} of {key!r} is newer than the seal, of {seal.sealed_at}: make one"
        raise MissingResult(message, key=key, reason="no such version")
    if place not in seal.buckets or bucket_digest(bucket.size, bucket.root()).hex() != seal.buckets[place].digest:
        message = f"what was sealed with {key!r} is not as it was: `pgresults verify --against` the seal says what"
        raise IntegrityError(message, key=key, version=version)
    index, others = found
    levels = levels_of(seal.format, seal.buckets, seal.depth)
    tree = [level[(place >> height) ^ 1].hex() for height, level in enumerate(levels[:-1])]
    return {"index": index, "entries": bucket.size, "bucket": [one.hex() for one in others], "tree": tree}
