"""Metadata that is kept apart from its payload: an entry under the key that points to where the payload lies."""

from datetime import datetime
from typing import Any

from pgresults.audit.past import read_as_of, read_version
from pgresults.audit.queries import require_moment
from pgresults.database.programs import Program
from pgresults.errors import IntegrityError, InvalidArgument, MissingResult
from pgresults.records.records import ResultRecord
from pgresults.serializers import Serializer
from pgresults.storage.postgres import PostgresStorage


def pointed_to(pointer: ResultRecord[Any]) -> str:
    """The key under which the payload of an entry lies.

    Raises: IntegrityError when the entry is none.
    """
    target = pointer.result.get("storage_key") if isinstance(pointer.result, dict) else None
    if not isinstance(target, str):
        key = pointer.metadata.storage_key
        raise IntegrityError(f"what stands under {key!r} does not point to a payload", key=key)
    return target


def past_record(
    storage: PostgresStorage, serializer: Serializer, key: str, version: int | None, as_of: datetime | None
) -> Program[ResultRecord[Any]]:
    """A version of a key, or what was live at a moment."""
    if version is not None and as_of is not None:
        raise InvalidArgument("give version or as_of, not both", argument="as_of", value=as_of)
    if version is not None:
        return read_version(storage, serializer, key, version)
    return read_as_of(storage, serializer, key, require_moment(as_of, "as_of"))


def same_payload(record: ResultRecord[Any], pointer: ResultRecord[Any], key: str) -> ResultRecord[Any]:
    """The record, if it still is the one that an earlier entry pointed to.

    Raises: MissingResult when a later one has taken its place.
    """
    if record.metadata.sha256 != pointer.result.get("sha256"):
        raise MissingResult(
            f"the payload of {key!r}, version {pointer.metadata.version}, was replaced by a later one under "
            f"{record.metadata.storage_key!r}",
            key=key,
            reason="deleted",
        )
    return record
