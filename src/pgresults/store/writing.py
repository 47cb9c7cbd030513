"""Writing results: made ready to be stored, in one place or in two, and then stored together."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from pgresults.arguments import require_moment, require_span, require_tags, require_text
from pgresults.database.observing import SIZE, observed
from pgresults.database.programs import Program, call, compute, is_small
from pgresults.errors import InvalidArgument, PgResultsError
from pgresults.locking.proofs import prove
from pgresults.operations.awaiting import UNKNOWN, Ancestry
from pgresults.operations.payloads import Payload
from pgresults.operations.results import Upload, Written, write_all
from pgresults.records.keys import require_key
from pgresults.records.lineage import GivenParent, Origin, names_of, require_parents, require_stored
from pgresults.records.outlines import OUTLINE, outline_of
from pgresults.records.provenance import default_holder, recorded
from pgresults.records.records import VERSION, ResultRecord, ResultRecordMetadata, parts_of
from pgresults.serializers import JSONSerializer, Serializer
from pgresults.serializers.parts import Parts
from pgresults.serializers.permits import Permit, within_permit
from pgresults.settings import Settings
from pgresults.sql.guards import Guard
from pgresults.sql.schema import CHUNK_SIZE
from pgresults.sql.times import utc
from pgresults.storage.encoding import prepare
from pgresults.storage.keyspace import Keyspace
from pgresults.storage.postgres import PostgresStorage

_POINTER = JSONSerializer(object_encoder=None, object_decoder=None)


class Draft(NamedTuple):
    """A result that is to be stored, with what its metadata says before it is."""

    result: Any
    storage_key: str | None
    serializer: Serializer
    expiration: datetime | None = None
    storage_block_id: UUID | None = None
    pgresults_version: str = VERSION
    prefect_version: str | None = None
    expires_in: timedelta | None = None
    payload: Payload | None = None
    """What the result was serialized to, where that is done; then the result itself is not kept."""
    outline: dict[str, Any] | None = None
    """What it looks like from outside, where it is serialized and an array or a frame."""
    failure: PgResultsError | None = None
    """Why it could not be serialized, which is said when it is to be stored."""
    at_once: bool = False
    """Whether it is stored before its caller goes on: then the result's own memory may serve as part of the payload."""
    run: Mapping[str, Any] | None = None
    """What is recorded of the flow and task that it comes from; None: those within which it is stored."""
    ancestry: Ancestry = UNKNOWN
    """What it was computed from."""

    @classmethod
    def of(cls, record: ResultRecord[Any]) -> "Draft":
        """The draft of a record; what it says of having been stored is left out.

        Raises: InvalidArgument for what is no record.
        """
        if not isinstance(record, ResultRecord):
            raise InvalidArgument(
                f"a record is a ResultRecord of pgresults, not {type(record).__module__}.{type(record).__qualname__}: "
                "one of Prefect's becomes one by ResultRecord.deserialize(record.serialize()), any other object is for "
                "write()",
                argument="result_record",
                value=record,
            )
        said = record.metadata
        return cls(
            record.result,
            said.storage_key,
            said.serializer,
            said.expiration,
            said.storage_block_id,
            said.pgresults_version,
            said.prefect_version,
        )

    def metadata(self, **stored: Any) -> ResultRecordMetadata:
        """The metadata, with what is known only of a stored version."""
        return ResultRecordMetadata(
            storage_key=self.storage_key,
            serializer=self.serializer,
            expiration=stored.pop("expiration", self.expiration),
            storage_block_id=self.storage_block_id,
            pgresults_version=self.pgresults_version,
            prefect_version=self.prefect_version,
            **stored,
        )

    def serialized(self, settings: Settings) -> "Draft":
        """The draft with its payload, which nothing that happens to the result can change any more.

        Raises: SerializationError; PayloadTooLarge.
        """
        if self.failure is not None:
            raise self.failure
        if self.payload is not None:
            return self
        with within_permit(Permit.of(settings)):
            payload = parts_of(self.result, self.serializer)
        if isinstance(payload, Parts) and (not self.at_once or payload.size <= CHUNK_SIZE):
            payload = payload.joined()
        return self._replace(result=None, payload=payload, outline=outline_of(self.result, settings.record_columns))

    def taken(self, settings: Settings) -> "Draft":
        """The draft as it is now: with its payload, or with what kept it from being made."""
        try:
            return self.serialized(settings)
        except PgResultsError as error:
            return self._replace(result=None, failure=error)

    def is_small(self, limit: int) -> bool:
        """Whether making it ready surely takes no noticeable time."""
        return is_small(self.result if self.payload is None else self.payload, limit)


class Staged(NamedTuple):
    """A draft ready to be stored, where and as what."""

    storage: PostgresStorage
    upload: Upload
    draft: Draft


def draft_of(
    obj: Any,
    key: str,
    serializer: Serializer,
    expiration: datetime | None,
    expires_in: timedelta | None = None,
    ancestry: Ancestry = UNKNOWN,
) -> Draft:
    """An object that is to be stored; its key is yet to be looked at.

    Raises: InvalidArgument for a naive time, a time from now that is none, and for both.
    """
    if expiration is not None and expires_in is not None:
        raise InvalidArgument("give expiration or expires_in, not both", argument="expires_in", value=expires_in)
    moment = None if expiration is None else require_moment(expiration, "expiration")
    span = None if expires_in is None else require_span(expires_in, "expires_in")
    return Draft(obj, key, serializer, moment, expires_in=span, ancestry=ancestry)


def ancestry_of(derived_from: Iterable[GivenParent] | None) -> Ancestry:
    """What a caller says that a version is computed from, which is stored at once.

    Raises: InvalidArgument.
    """
    if derived_from is None:
        return UNKNOWN
    parents = require_parents(derived_from)
    require_stored(parents)
    return Ancestry(parents, complete=True)


@observed(
    "write", lambda keyspace, draft, *_: keyspace.payloads._about(draft.storage_key), lambda stored: {SIZE: stored.size}
)
def write(
    keyspace: Keyspace,
    draft: Draft,
    new_key: Callable[[], str],
    holder: str | None = None,
    tags: Iterable[str] | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> Program[ResultRecordMetadata]:
    """Store a draft as the next version of its key; see `ResultStore.write`."""
    staged = yield from encode(keyspace, draft._replace(at_once=True), new_key, holder, tags, provenance)
    written = yield from store_staged(staged)
    return stored_metadata(staged[0], written[0], staged[-1].upload.origin)


def encode(
    keyspace: Keyspace,
    draft: Draft,
    new_key: Callable[[], str],
    holder: str | None = None,
    tags: Iterable[str] | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> Program[list[Staged]]:
    """Make a draft ready to be stored, with the proof of its key's lock; what points to it comes second.

    Raises: what `write` raises before anything is written.
    """
    return (yield from encode_described(keyspace, draft, new_key, describe(holder, tags, provenance, draft.run)))


def describe(
    holder: str | None,
    tags: Iterable[str] | None,
    provenance: Mapping[str, Any] | None,
    run: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What a writer says of a version beside its metadata, as columns; ``run``: see `Draft`.

    Raises: InvalidArgument.
    """
    holder = require_text(holder, "holder") or default_holder()
    return {"holder": holder, "tags": require_tags(tags), "provenance": recorded(provenance, run)}


def encode_described(
    keyspace: Keyspace, draft: Draft, new_key: Callable[[], str], described: dict[str, Any]
) -> Program[list[Staged]]:
    """Make a draft ready to be stored with what `describe` gave; see `encode`."""
    storage, keys = keyspace.payloads, keyspace.apart
    key = require_key(draft.storage_key)
    if not storage._registered:
        yield from storage._register()
    locked = keys or storage
    proof = yield from prove(keyspace.locks, key, described["holder"], locked.database, locked.id)
    origin = draft.ancestry.origin or Origin(key)
    origin.key, origin.place, origin.storage_id = key, locked.database.place, locked.id
    ancestry = Ancestry(draft.ancestry.parents, origin, draft.ancestry.complete)
    # Where it is, whichever place a record says that it was in before.
    draft = draft._replace(storage_block_id=storage.storage_block_id, ancestry=ancestry)
    proven = {**described, **proof.parameters}
    if ancestry.parents:
        proven["derived_from"] = names_of(ancestry.parents, origin, complete=ancestry.complete)
    small = draft.is_small(storage.settings.offload_bytes)
    for place in filter(None, (storage, keys)):
        yield from place._trusted(register=True)
    if keys is None:
        return [(yield from compute(lambda: encoded(storage, key, draft, proven, proof.guard), small=small))]
    elsewhere = require_key(new_key())
    moved = draft._replace(storage_key=elsewhere, ancestry=UNKNOWN)
    staged = yield from compute(lambda: encoded(storage, elsewhere, moved, described), small=small)
    pointer = pointer_to(moved, staged.upload, key)._replace(ancestry=ancestry)
    return [staged, encoded(keys, key, pointer, proven, proof.guard)]


def encoded(
    storage: PostgresStorage,
    key: str,
    draft: Draft,
    described: dict[str, Any],
    guard: Guard = Guard.NONE,
) -> Staged:
    """A draft as an upload.

    Raises: SerializationError; PayloadTooLarge.
    """
    done = draft.serialized(storage.settings)
    said = {**columns_of(draft, key), **described}
    if done.outline is not None:
        said["provenance"] = {**said["provenance"], OUTLINE: done.outline}
    limit = storage.settings.max_payload_bytes
    upload = prepare(storage._trust, key, done.payload or b"", said, limit, guard, draft.ancestry)
    return Staged(storage, upload, draft)


def columns_of(draft: Draft, key: str) -> dict[str, Any]:
    """What a draft's metadata says, as columns."""
    return {
        "expires_at": draft.expiration,
        "expires_in": draft.expires_in,
        "serializer": draft.serializer.model_dump_json(),
        "storage_key": draft.storage_key if draft.storage_key != key else None,
        "storage_block_id": draft.storage_block_id,
        "pgresults_version": draft.pgresults_version,
        "prefect_version": draft.prefect_version,
    }


def pointer_to(draft: Draft, upload: Upload, key: str) -> Draft:
    """What stands under a key for a result which lies elsewhere: its metadata, as a JSON object."""
    metadata = draft.metadata(size=upload.size, sha256=upload.own.sha256.hex())
    return Draft(metadata._document(), key, _POINTER, draft.expiration, expires_in=draft.expires_in)


def store_staged(staged: Sequence[Staged]) -> Program[list[Written]]:
    """Store versions: in one transaction where they share a database, else one after the other.

    Raises: LockLostError; LockedError; StorageUnavailable.
    """
    database = staged[0].storage.database
    if len(staged) == 1 or any(version.storage.database != database for version in staged):
        written = []
        for version in staged:
            written.append((yield from version.storage._store(version.upload)))  # noqa: PERF401 (it yields)
    else:
        for storage in {version.storage.id: version.storage for version in staged}.values():
            yield from storage._register()
        uploads = [version.upload for version in staged]
        written = yield from call(database, lambda repeated: write_all(uploads, repeated=repeated), atomic=True)
    number(staged, written)
    return written


def number(staged: Sequence[Staged], written: Sequence[Written]) -> None:
    """Have those that will be computed from versions know which ones they are, now that these are stored for good."""
    for version, done in zip(staged, written, strict=True):
        if (origin := version.upload.origin) is not None:
            origin.version = done.version


def stored_metadata(staged: Staged, written: Written, origin: Origin | None = None) -> ResultRecordMetadata:
    """A draft's metadata once it is stored; ``origin``: the version as others know it, where its own is elsewhere."""
    upload = staged.upload
    metadata = staged.draft.metadata(
        version=written.version,
        created_at=written.at,
        expiration=utc(written.expires_at),
        size=upload.size,
        sha256=upload.own.sha256.hex(),
        provenance=upload.provenance,
    )
    metadata._known_as(origin or upload.origin)
    return metadata
