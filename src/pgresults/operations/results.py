"""Writing, reading and deleting the result of a key."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import groupby
from typing import Any, NamedTuple
from uuid import UUID

from pgresults.errors import LockLostError
from pgresults.operations.arrays import TEXT, binary_array
from pgresults.operations.awaiting import Awaiting, generations
from pgresults.operations.locks import Place, bury, locked, state
from pgresults.operations.payloads import Payload, pieces
from pgresults.operations.requests import Copy, Execute, ExecuteMany, Operation, Row, Stream
from pgresults.records.keys import prefix_end
from pgresults.records.lineage import Origin
from pgresults.serializers.parts import Arrived, Arriving
from pgresults.sql import results as statements
from pgresults.sql.compiled import Statement
from pgresults.sql.guards import Guard
from pgresults.sql.results import Look
from pgresults.sql.schema import CHUNK_SIZE


class Head(NamedTuple):
    """What a key's row says of its current version and of its last entry; objects and lists as JSON texts.

    Tags and signature are there where it was read to be verified.
    """

    version: int
    payload_id: UUID | None
    created_at: datetime
    expires_at: datetime | None
    serializer: str | None
    size: int | None
    sha256: bytes | None
    provenance: str | None
    storage_key: str | None
    storage_block_id: UUID | None
    pgresults_version: str | None
    prefect_version: str | None
    action: str
    at: datetime
    actor: str
    expired: bool | None
    tags: str | None = None
    signature: bytes | None = None


class Found(NamedTuple):
    """A key's head with its payload, which is None when the head is not live or the payload is known already."""

    head: Head
    payload: Arrived | None


class Written(NamedTuple):
    """The version a write got, when, and when it expires (in UTC, without a zone)."""

    version: int
    at: datetime
    expires_at: datetime | None


class Listed(NamedTuple):
    """A live result as a listing shows it."""

    key: str
    version: int
    created_at: datetime
    expires_at: datetime | None
    size: int
    serializer: str | None


class Own(NamedTuple):
    """What is said of one version alone; all are of plain types, so that a thousand of them are little work."""

    key: str
    payload_id: bytes
    size: int
    data: Payload
    salt: bytes
    sha256: bytes
    payload_digest: bytes
    content: bytes
    place_bytes: bytes
    signature: bytes | None


class Upload(NamedTuple):
    """A version ready to be stored: everything that could be computed before the transaction is."""

    own: Own
    alike: Mapping[str, Any]
    """The columns that others say as well: one object for all that are made alike, which nobody changes."""
    provenance: dict[str, Any] | None = None
    guard: Guard = Guard.NONE
    awaiting: Awaiting | None = None
    """What is to be stored before it, because it was computed from that."""
    origin: Origin | None = None
    """What others know it by that were computed from it."""

    def after(self, written: Mapping[Origin, int]) -> "Upload":
        """The same once what it awaits is written, as which versions."""
        if self.awaiting is None:
            return self
        derived_from, content = self.awaiting.completed(written)
        alike = {**self.alike, "derived_from": derived_from}
        return self._replace(own=self.own._replace(content=content), alike=alike)

    @property
    def awaited(self) -> tuple[Origin, ...]:
        """What is to be stored before it, if it is stored at all."""
        parents = () if self.awaiting is None else self.awaiting.lineage.parents
        return tuple(one for one in parents if isinstance(one, Origin) and one.version is None)

    @property
    def columns(self) -> dict[str, Any]:
        """What its statement takes: the columns of all tables, and the bytes that only digests take."""
        columns = {**self.alike, **self.own._asdict(), "payload_id": UUID(bytes=self.own.payload_id)}
        if (parents := columns["derived_from"]) is not None:
            columns["derived_from"] = binary_array(TEXT, parents)
        return columns

    @property
    def key(self) -> str:
        """Under which the version goes."""
        return self.own.key

    @property
    def size(self) -> int:
        """Bytes of payload."""
        return self.own.size

    @property
    def place(self) -> tuple[bytes, str]:
        """Where the version goes, as something to sort by."""
        return self.alike["storage_id"].bytes, self.own.key

    @property
    def single(self) -> bool:
        """Whether one statement stores it."""
        return self.size <= CHUNK_SIZE

    @property
    def kind(self) -> statements.Kind:
        """Which statement stores it."""
        return statements.Kind(self.guard, self.single, self.alike["expires_in"] is not None)


def find_write(upload: Upload) -> Operation[Written | None]:
    """What became of a write whose answer was lost: None when it was not carried out."""
    rows = yield Execute(statements.FIND_WRITE, upload.columns)
    return Written(*rows[0]) if rows else None


def write(upload: Upload, *, repeated: bool = False) -> Operation[Written]:
    """Store a version; when repeated, look first whether an earlier try got through."""
    if repeated and (earlier := (yield from find_write(upload))) is not None:
        return earlier
    statement, columns = statements.WRITE[upload.kind], upload.columns
    if not upload.single:
        yield Copy(statements.UPLOAD, _chunks(columns))
    while not (rows := (yield Execute(statement, columns))):
        yield from clear_way(columns, upload.guard)
    return Written(*rows[0])


def write_all(uploads: Sequence[Upload], *, repeated: bool = False) -> Operation[list[Written]]:
    """Store several versions: what others were computed from comes before them.

    Beside that, those who store the same keys at once do so in the same order.
    """
    if not any(upload.awaiting for upload in uploads):
        written = yield from _write_generation(dict(enumerate(uploads)), repeated=repeated)
        return [written[number] for number in range(len(uploads))]
    written = {}
    known: dict[Origin, int] = {}
    for numbers in generations([(upload.origin, upload.awaiting) for upload in uploads]):
        ready = {number: uploads[number].after(known) for number in numbers}
        now = yield from _write_generation(ready, repeated=repeated)
        known |= {origin: one.version for number, one in now.items() if (origin := uploads[number].origin) is not None}
        written |= now
    return [written[number] for number in range(len(uploads))]


def _write_generation(uploads: Mapping[int, Upload], *, repeated: bool) -> Operation[dict[int, Written]]:
    ordered = sorted(uploads, key=lambda number: uploads[number].place)
    written: dict[int, Written] = {}
    for kind, group in groupby(ordered, lambda number: uploads[number].kind):
        numbers = list(group)
        if kind.with_payload and len(numbers) > 1 and not repeated:
            written |= yield from _write_singles(kind, {number: uploads[number] for number in numbers})
        else:
            for number in numbers:
                written[number] = yield from write(uploads[number], repeated=repeated)
    return written


def _write_singles(kind: statements.Kind, uploads: Mapping[int, Upload]) -> Operation[dict[int, Written]]:
    """Store versions of one statement each without waiting for every answer; what a guard refused is tried alone."""
    rows = yield ExecuteMany(statements.WRITE[kind], [upload.columns for upload in uploads.values()])
    written: dict[int, Written] = {}
    for (number, upload), row in zip(uploads.items(), rows, strict=True):
        written[number] = Written(*row) if row else (yield from write(upload))
    return written


def clear_way(columns: Mapping[str, Any], guard: Guard) -> Operation[None]:
    """After a guard's refusal: returns if another try may succeed, because who held the lock is dead or gone.

    Raises: LockLostError; LockedError.
    """
    key, holder = columns["key"], columns["holder"]
    if guard is Guard.FENCE:
        raise LockLostError(
            f"the lock of {key!r} is no longer held under fence {columns['fence']}: nothing was written",
            key=key,
            holder=holder,
            fence=columns["fence"],
        )
    place = Place(columns["storage_id"], key)
    if not (yield from bury(place)) and (held := (yield from state(place))) and held.holder != holder:
        raise locked(key, held)


def _chunks(columns: Mapping[str, Any]) -> Iterator[Row]:
    place = (columns["storage_id"], columns["key"], columns["payload_id"])
    proof: tuple[bytes | None, bytes | None] = (columns["salt"], columns["sha256"])
    for number, piece in enumerate(pieces(columns["data"], CHUNK_SIZE, columns["sha256"])):
        yield (*place, number, piece, *proof)
        proof = (None, None)


def read(storage_id: UUID, key: str, look: Look, known: UUID | None = None) -> Operation[Found | None]:
    """Read a key's head and payload; the payload is left out when its id is ``known``."""
    found = yield from read_first(storage_id, key, look, known)
    if found is None or found.payload is None or found.head.size is None or found.head.size <= len(found.payload):
        return found
    head, place = found.head, {"storage_id": storage_id, "key": key, "payload_id": found.head.payload_id}
    payload = yield from further_chunks(statements.READ_CHUNKS, place, bytes(found.payload))
    # A payload erased or superseded between the two statements is no broken one: what is true now decides. Where it
    # still is the current one, its chunks are gone, and there is nothing to read.
    return Found(head, payload) if payload else (yield from read(storage_id, key, look, head.payload_id))


def read_first(storage_id: UUID, key: str, look: Look, known: UUID | None = None) -> Operation[Found | None]:
    """Read a key's head and the first chunk of its payload; see `read`."""
    place = {"storage_id": storage_id, "key": key}
    statement = statements.READ[look if known is None else look._replace(known=True)]
    rows = yield Execute(statement, {**place, "known_payload_id": known})
    return (yield from _found(place, rows[0])) if rows else None


def _found(place: Mapping[str, Any], row: Sequence[Any]) -> Operation[Found]:
    first, *columns = row
    head = Head(*columns)
    return Found((yield from as_taken_away(place, head)), None if head.expired else first)


def look_up(storage_id: UUID, key: str) -> Operation[Found | None]:
    """Read a key's head, and no payload."""
    place = {"storage_id": storage_id, "key": key}
    rows = yield Execute(statements.LOOK_UP, place)
    return Found((yield from as_taken_away(place, Head(*rows[0]))), None) if rows else None


_RESTATING = ("retain", "break")
_NO_ENTRY_YET = 2**62


def as_taken_away(place: Mapping[str, Any], head: Head, before: int = _NO_ENTRY_YET) -> Operation[Head]:
    """The head of a result that is gone as the entry left it that took it away; later ones only speak of its key."""
    if head.payload_id is not None or head.action not in _RESTATING:
        return head
    rows = yield Execute(statements.TAKEN_AWAY, {**place, "before": before})
    return head._replace(**dict(zip(("action", "at", "actor"), rows[0], strict=True))) if rows else head


_SAID = len(statements.VERSION_COLUMNS[3:])


def read_all(storage_id: UUID, keys: Sequence[str], look: Look) -> Operation[dict[str, Found]]:
    """Read what is live under several keys as it was at one moment: payloads and heads, of whose last entries nothing
    is said."""
    parameters = {"storage_id": storage_id, "keys": binary_array(TEXT, keys)}
    unsigned = () if look.signed else (None, None)
    found: dict[str, Found] = {}
    for row in (yield Execute(statements.READ_MANY[look], parameters)):
        key, first, version, payload_id, created_at, *said = row
        no_entry = "", created_at, "", None
        head = Head._make((version, payload_id, created_at, *said[:_SAID], *no_entry, *said[_SAID:], *unsigned))
        if first is None or head.size is None or head.size <= len(first):
            found[key] = Found(head, first)
        elif (whole := (yield from read(storage_id, key, look))) is not None:
            found[key] = whole
    return found


def further_chunks(chunks: Statement, place: dict[str, Any], first: bytes) -> Operation[Arrived | None]:
    """A payload with what follows its first chunk; None where there is nothing any more.

    It grows by what arrives: a size that somebody altered must not be believed.
    """
    payload, received = Arriving(), 0
    payload.append(first)

    def append(row: Row) -> None:
        nonlocal received
        number, data = row
        received += 1
        if number == received:  # else one is missing, which the digest tells
            payload.append(data)

    yield Stream(chunks, place, append)
    return payload.whole() if received else None


def exists(storage_id: UUID, key: str) -> Operation[bool]:
    """Whether the key has a live result; no payload is touched."""
    rows = yield Execute(statements.EXISTS, {"storage_id": storage_id, "key": key})
    return bool(rows)


def delete(columns: Mapping[str, Any], guard: Guard) -> Operation[bool]:
    """Take a key's live version away; False where there is none."""
    while not (rows := (yield Execute(statements.DELETE[guard], columns))):
        if guard is Guard.NONE or not (yield from exists(columns["storage_id"], columns["key"])):
            return False
        yield from clear_way(columns, guard)
    return bool(rows)


def listing(storage_id: UUID, prefix: str, after: str, limit: int) -> Operation[list[Listed]]:
    """A page of live results under a prefix, after a key."""
    page = {"storage_id": storage_id, "after": after, "limit": limit}
    if prefix:
        rows = yield Execute(statements.LIST_UNDER, {**page, "prefix": prefix, "end": prefix_end(prefix)})
    else:
        rows = yield Execute(statements.LIST, page)
    listed = [Listed(*row) for row in rows]
    return [one._replace(expires_at=one.expires_at and one.expires_at.replace(tzinfo=UTC)) for one in listed]
