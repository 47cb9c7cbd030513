"""Results on their way out of one storage and into another: each with its payload and all that is said of it."""

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from itertools import accumulate
from typing import Annotated, Any
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainSerializer, ValidationError

from pgresults.arguments import flaw_of
from pgresults.database.programs import call, perform
from pgresults.errors import IntegrityError, InvalidArgument, SerializationError
from pgresults.operations import results
from pgresults.operations.lineage import parents_of_current
from pgresults.operations.requests import Operation
from pgresults.operations.results import Found, Listed
from pgresults.records.keys import require_key
from pgresults.records.provenance import default_holder, require_json
from pgresults.records.records import AwareDatetime
from pgresults.records.signing import Flaw, Trust
from pgresults.sql.guards import Guard
from pgresults.sql.times import utc
from pgresults.storage.checking import require_intact, require_signed
from pgresults.storage.columns import json_text, parsed
from pgresults.storage.encoding import prepare, serializer_of
from pgresults.storage.postgres import PostgresStorage

_KEYS_A_PAGE = 100
_BYTES_A_PAGE = 16 * 1024 * 1024


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


Moment = Annotated[AwareDatetime | None, PlainSerializer(_iso, return_type=str | None)]


def _kept(text: str) -> str:
    if flaw := flaw_of(text):
        raise ValueError(flaw)
    return text


KeptText = Annotated[str, AfterValidator(_kept)]
"""A text that Postgres can keep."""


class Exported(BaseModel):
    """A live result with its payload as stored; ``sha256`` is the payload's, ``signature`` the exporter's, in hex."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_bytes="base64", val_json_bytes="base64")

    key: str
    version: int
    created_at: Moment
    expiration: Moment = None
    size: int
    sha256: str
    serializer: dict[str, Any] | None = None
    tags: list[KeptText] | None = None
    provenance: dict[str, Any] | None = None
    storage_key: KeptText | None = None
    storage_block_id: UUID | None = None
    pgresults_version: KeptText | None = None
    prefect_version: KeptText | None = None
    derived_from: list[KeptText] | None = None
    signature: str | None = Field(default=None, pattern="^([0-9a-f]{2})+$")
    payload: bytes

    def signed_bytes(self) -> bytes:
        """What the signature covers: all that is said here, the payload by its digest."""
        unsaid = set() if self.derived_from is not None else {"derived_from"}  # as before there was this field
        said = json.loads(self.model_dump_json(exclude={"payload", "signature"} | unsaid))
        return json.dumps(said, sort_keys=True).encode()


def exported(
    storage: PostgresStorage, prefix: str = "", leave_out: Callable[[IntegrityError], None] | None = None
) -> Iterator[Exported]:
    """The live results under a prefix, by key, page by page, signed where a signing key is set.

    Parameters:
        storage: where they are.
        prefix: what their keys begin with.
        leave_out: told of what is not as it was written or not signed as the storage demands; None: that is raised.

    Raises: IntegrityError; StorageUnavailable.
    """
    after, trust = "", perform(storage._trusted())
    while page := perform(storage._page(prefix, after, _KEYS_A_PAGE)):
        page = _as_much_as_fits(page)
        keys = [row.key for row in page]
        parents = perform(call(storage.database, partial(_parents, storage, keys)))
        for key, found in _live(storage, keys):
            try:
                one = _as_exported(key, found, parents.get((key, found.head.version)), trust)
            except IntegrityError as error:
                if leave_out is None:
                    raise
                leave_out(error)
            else:
                yield one
        after = page[-1].key


def _as_much_as_fits(page: list[Listed]) -> list[Listed]:
    """The results at the beginning of a page that are not too much at once: one, or as many as have a few bytes."""
    sizes = accumulate(row.size for row in page)
    return [row for row, size in zip(page, sizes, strict=True) if size <= _BYTES_A_PAGE] or page[:1]


def _live(storage: PostgresStorage, keys: list[str]) -> Iterator[tuple[str, Found]]:
    def read(_: bool) -> Operation[dict[str, Found]]:
        return results.read_all(storage.id, keys, storage._look()._replace(signed=True))  # for the sake of the tags

    found = perform(call(storage.database, read))
    for key in keys:
        one = found.get(key)
        if one is not None and one.head.payload_id is not None and not one.head.expired:
            yield key, one


def _parents(storage: PostgresStorage, keys: list[str], _: bool) -> Operation[dict[tuple[str, int], list[str]]]:
    return parents_of_current(storage.id, keys)


def _as_exported(key: str, found: Found, derived_from: list[str] | None, trust: Trust) -> Exported:
    head, payload = found.head, require_intact(found, key)
    require_signed(head, key, trust)
    try:
        one = _shown(key, found, bytes(payload), derived_from)
    except ValidationError:
        raise IntegrityError(
            f"what is said of {key!r}, version {head.version}, is not what any write says: see `pgresults verify`",
            key=key,
            version=head.version,
        ) from None
    signature = trust.sign_export(one.signed_bytes())
    return one.model_copy(update={"signature": signature and signature.hex()})


def _shown(key: str, found: Found, payload: bytes, derived_from: list[str] | None) -> Exported:
    head = found.head
    return Exported(
        key=key,
        version=head.version,
        created_at=utc(head.created_at),
        expiration=utc(head.expires_at),
        size=head.size or 0,
        sha256=(head.sha256 or b"").hex(),
        serializer=parsed(head.serializer),
        tags=parsed(head.tags),
        provenance=parsed(head.provenance),
        storage_key=head.storage_key,
        storage_block_id=head.storage_block_id,
        pgresults_version=head.pgresults_version,
        prefect_version=head.prefect_version,
        derived_from=derived_from,
        payload=payload,
    )


def import_result(storage: PostgresStorage, one: Exported, *, overwrite: bool = False, vouched: bool = False) -> bool:
    """Store an exported result as the next version of its key; its history says that it was imported.

    Parameters:
        storage: where to.
        one: the result.
        overwrite: whether to do so where a live result is there already.
        vouched: whether the caller answers for what carries no signature of one of the storage's keys.

    Returns: whether it was stored.
    Raises: IntegrityError when it is not signed as the storage demands; SerializationError when the payload is not
        what was exported, or names an unknown serializer; LockedError when another holder has the key's lock;
        PayloadTooLarge; StorageUnavailable.
    """
    with _named_by_its_file(one.key):
        key, provenance = require_key(one.key), require_json(one.provenance or {}, "provenance")
    if hashlib.sha256(one.payload).hexdigest() != one.sha256:
        raise SerializationError(f"the payload of {key!r} is not what was exported: its digest does not match")
    trust = perform(storage._trusted(register=True))
    verified = _require_verified(one, trust, vouched)
    if not overwrite and perform(storage._has(key)):
        return False
    origin: dict[str, Any] = {"version": one.version, "created_at": _iso(one.created_at), "verified": verified}
    if one.derived_from is not None:  # versions of where it comes from, which have other numbers here, if any
        origin["derived_from"] = one.derived_from
    described = {
        "action": "import",
        "holder": default_holder(),
        "expires_at": one.expiration,
        "serializer": _known(one, trust),
        "tags": one.tags,
        "provenance": {**provenance, "imported": origin},
        "storage_key": one.storage_key,
        "storage_block_id": one.storage_block_id,
        "pgresults_version": one.pgresults_version,
        "prefect_version": one.prefect_version,
    }
    limit = storage.settings.max_payload_bytes
    perform(storage._store(prepare(trust, key, one.payload, described, limit, Guard.NOT_HELD)))
    return True


@contextmanager
def _named_by_its_file(key: str) -> Iterator[None]:
    """What is wrong with an exported result is a flaw of its file, and no argument that somebody gave."""
    try:
        yield
    except InvalidArgument as error:
        raise SerializationError(f"{key!r} cannot be imported: {error}", key=key) from error


def _require_verified(one: Exported, trust: Trust, vouched: bool) -> bool:
    """Whether it is signed with one of the storage's keys.

    Raises: IntegrityError where there are keys and it is not, unless somebody vouches for what none of them signed.
    """
    flaw = trust.flaw_of_export(one.signed_bytes(), bytes.fromhex(one.signature) if one.signature else None)
    if flaw is None:
        return True
    if flaw is Flaw.UNFIT or (trust.keys and not vouched):
        advice = "" if flaw is Flaw.UNFIT else "; if you answer for where the file comes from, add --vouch"
        raise IntegrityError(f"{one.key!r} is not imported: {flaw}{advice}", key=one.key, version=one.version)
    return False


def _known(one: Exported, trust: Trust) -> str | None:
    if one.serializer is None:
        return None
    with _named_by_its_file(one.key):
        description = json_text(require_json(one.serializer, "serializer"))
    try:
        serializer_of(description, trust)
    except SerializationError as error:
        raise SerializationError(f"the serializer of {one.key!r} is not known here: {error}") from error
    return description
