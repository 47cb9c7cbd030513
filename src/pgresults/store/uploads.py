"""Results made ready to be stored, in one place or in two, and storing them together."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from pgresults.arguments import flaw_of
from pgresults.database.programs import Program, call
from pgresults.errors import InvalidArgument
from pgresults.operations.results import Upload, Written, write_all
from pgresults.records.records import VERSION, ResultRecord, ResultRecordMetadata, aware_utc, payload_of
from pgresults.serializers import JSONSerializer, Serializer
from pgresults.serializers.names import pickle_allowed
from pgresults.sql.guards import Guard
from pgresults.storage.encoding import prepare
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

    @classmethod
    def of(cls, record: ResultRecord[Any]) -> "Draft":
        """The draft of a record; what it says of having been stored is left out."""
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
            expiration=self.expiration,
            storage_block_id=self.storage_block_id,
            pgresults_version=self.pgresults_version,
            prefect_version=self.prefect_version,
            **stored,
        )


class Staged(NamedTuple):
    """A draft ready to be stored, where and as what."""

    storage: PostgresStorage
    upload: Upload
    draft: Draft


def require_aware(moment: datetime | None) -> datetime | None:
    """The moment in UTC.

    Raises: InvalidArgument for a naive one and for what is no moment.
    """
    if moment is None:
        return None
    try:
        return aware_utc(moment)  # type: ignore[no-any-return]
    except ValueError as error:
        raise InvalidArgument(f"expiration: {error}", argument="expiration", value=moment) from error


MAX_TAG_BYTES = 256
"""The longest tag, in bytes of UTF-8: tags are indexed."""


def require_tags(tags: Iterable[str] | None) -> list[str] | None:
    """The tags as a list.

    Raises: InvalidArgument for a single text and for tags that are none.
    """
    if tags is None:
        return None
    if isinstance(tags, str) or not isinstance(tags, Iterable):
        raise InvalidArgument("tags are a list of texts", argument="tags", value=tags)
    given = list(tags)
    for tag in given:
        if flaw := flaw_of(tag, MAX_TAG_BYTES):
            raise InvalidArgument(f"the tag {tag!r} cannot be stored: {flaw}", argument="tags", value=given)
    return given


def encoded(
    storage: PostgresStorage,
    key: str,
    draft: Draft,
    described: dict[str, Any],
    guard: Guard = Guard.NONE,
    *,
    bare: bool = False,
) -> Staged:
    """A draft as an upload; ``bare``: of its metadata only the expiration is kept.

    Raises: SerializationError; PayloadTooLarge.
    """
    with pickle_allowed(storage.settings.allow_pickle):
        payload = payload_of(draft.result, draft.serializer)
    said = {"expires_at": draft.expiration} if bare else _described(draft, key)
    upload = prepare(storage.trust, key, payload, {**said, **described}, storage.settings.max_payload_bytes, guard)
    return Staged(storage, upload, draft)


def _described(draft: Draft, key: str) -> dict[str, Any]:
    """What a draft's metadata says, as columns."""
    return {
        "expires_at": draft.expiration,
        "serializer": draft.serializer.model_dump_json(),
        "storage_key": draft.storage_key if draft.storage_key != key else None,
        "storage_block_id": draft.storage_block_id,
        "pgresults_version": draft.pgresults_version,
        "prefect_version": draft.prefect_version,
    }


def pointer_to(draft: Draft, upload: Upload, key: str) -> Draft:
    """What stands under a key for a result which lies elsewhere: its metadata, as a JSON object."""
    metadata = draft.metadata(size=upload.size, sha256=upload.columns["sha256"].hex())
    return Draft(metadata.document(), key, _POINTER, draft.expiration)


def store_staged(staged: Sequence[Staged]) -> Program[list[Written]]:
    """Store versions: in one transaction where they share a database, else one after the other.

    Raises: LockLostError; LockedError; StorageUnavailable.
    """
    if len(staged) == 1:
        return [(yield from staged[0].storage.store(staged[0].upload))]
    database = staged[0].storage.database
    if any(version.storage.database != database for version in staged):
        written = []
        for version in staged:
            written.append((yield from version.storage.store(version.upload)))  # noqa: PERF401 (it yields)
        return written
    for storage in {version.storage.id: version.storage for version in staged}.values():
        yield from storage.register()
    uploads = [version.upload for version in staged]
    return (yield from call(database, lambda repeated: write_all(uploads, repeated=repeated), atomic=True))


def stored_metadata(staged: Staged, written: Written) -> ResultRecordMetadata:
    """A draft's metadata once it is stored."""
    upload = staged.upload
    return staged.draft.metadata(
        version=written.version,
        created_at=written.at,
        size=upload.size,
        sha256=upload.columns["sha256"].hex(),
        provenance=upload.provenance,
    )
