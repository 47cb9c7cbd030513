"""Records made ready to be stored, in one place or in two, and storing them together."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from pgresults.effects import Program, call
from pgresults.encoding import describe, prepare, utc
from pgresults.errors import InvalidArgument
from pgresults.guards import Guard
from pgresults.operations.results import Upload, Written, write_all
from pgresults.records import ResultRecord, ResultRecordMetadata, aware_utc
from pgresults.serializers import JSONSerializer
from pgresults.serializers.names import pickle_allowed
from pgresults.storage import PostgresStorage
from pgresults.texts import flaw_of

_POINTER = JSONSerializer(object_encoder=None, object_decoder=None)


class Staged(NamedTuple):
    """A record ready to be stored, where and as what."""

    storage: PostgresStorage
    upload: Upload
    record: ResultRecord[Any]


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
    record: ResultRecord[Any],
    described: dict[str, Any],
    guard: Guard = Guard.NONE,
    *,
    bare: bool = False,
) -> Staged:
    """A record as an upload; ``bare``: of its metadata only the expiration is kept.

    Raises: SerializationError; PayloadTooLarge.
    """
    with pickle_allowed(storage.settings.allow_pickle):
        payload = record.serialize_result()
    columns = {**({"expires_at": record.expiration} if bare else describe(record, key)), **described}
    upload = prepare(storage.trust, key, payload, columns, storage.settings.max_payload_bytes, guard)
    return Staged(storage, upload, record)


def with_metadata(record: ResultRecord[Any], **fields: Any) -> ResultRecord[Any]:
    """The record with some of its metadata changed."""
    return record.model_copy(update={"metadata": record.metadata.model_copy(update=fields)})


def pointer_to(record: ResultRecord[Any], upload: Upload, key: str) -> ResultRecord[dict[str, Any]]:
    """The record that stands under a key for a result which lies elsewhere: its metadata, as a JSON object."""
    metadata = record.metadata.model_copy(update={"size": upload.size, "sha256": upload.columns["sha256"].hex()})
    return ResultRecord(
        result=metadata.document(),
        metadata=ResultRecordMetadata(storage_key=key, expiration=record.expiration, serializer=_POINTER),
    )


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
    """A record's metadata once it is stored."""
    upload = staged.upload
    return staged.record.metadata.model_copy(
        update={
            "version": written.version,
            "created_at": utc(written.at),
            "size": upload.size,
            "sha256": upload.columns["sha256"].hex(),
            "provenance": upload.provenance,
        }
    )
