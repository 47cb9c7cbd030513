"""Seals: a signed digest of all entries, to be kept where whoever can change the database cannot change it.

Every entry goes into a bucket by its key; the buckets are the leaves of a binary tree of digests, whose root is signed
with Ed25519. A bucket is a Merkle tree itself, so that a path of some digests shows that an entry is in it. A seal has
the digests of its buckets, too, so that an alteration is found near its place.
"""

import hashlib
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol
from uuid import UUID

from pydantic import BaseModel, ConfigDict, ValidationError

from pgresults.audit.merkle import MerkleTree, node_digest
from pgresults.audit.signing import Endorsement, SigningKey, is_signed, require_endorsed, trusted_keys
from pgresults.errors import IntegrityError
from pgresults.operations.verify import Leaf, Span
from pgresults.records.records import AwareDatetime
from pgresults.sql.digests import canonical_json

FORMAT = 2
"""That of new seals; format 1 had plain digests of the leaves for buckets."""

_MAX_DEPTH = 12
_UNSIGNED = {"signature", "buckets", "timestamps"}
_LATER = {"format", "previous", "endorsements"}


class Bucket(BaseModel):
    """The entries of some keys: how many, and their digest in hex."""

    model_config = ConfigDict(frozen=True)

    entries: int
    digest: str


class Seal(BaseModel):
    """A signed root over the entries of a storage.

    ``root``, ``public_key`` and ``signature`` are in hex; ``bound`` and ``until`` tell which entries it covers: those
    of transactions with a lower number, up to that time. ``windows`` is how often the history had been opened to
    changes, ``ahead`` how many entries it leaves out because they name transactions to come, as no server writes
    them. ``previous`` is the digest of the seal that it continues, ``endorsements`` say which keys stand behind its
    key, ``timestamps`` are tokens of others, in base64. Of the ``2 ** depth`` buckets those without entries are left
    out.
    """

    model_config = ConfigDict(frozen=True)

    format: Literal[1, 2] = 1
    storage: str
    storage_id: UUID
    sealed_at: AwareDatetime
    bound: int
    until: AwareDatetime
    entries: int
    windows: int = 0
    ahead: int = 0
    previous: str | None = None
    depth: int
    buckets: dict[int, Bucket]
    root: str
    endorsements: tuple[Endorsement, ...] = ()
    public_key: str = ""
    signature: str = ""
    timestamps: tuple[str, ...] = ()

    def dump_bytes(self) -> bytes:
        """The seal as JSON, to be kept."""
        return self.model_dump_json(indent=1).encode() + b"\n"

    @classmethod
    def load_bytes(cls, data: bytes) -> "Seal":
        """The seal of such JSON.

        Raises: IntegrityError when it is none.
        """
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            raise IntegrityError(f"this is no seal: {error.error_count()} faults in its JSON") from error

    @property
    def span(self) -> Span:
        """Which entries it covers."""
        return Span(self.bound, self.until)

    @property
    def digest(self) -> str:
        """What the next seal and a time stamp name it by: SHA-256, in hex."""
        return hashlib.sha256(self.signed_bytes() + bytes.fromhex(self.signature)).hexdigest()

    def signed_bytes(self) -> bytes:
        """What the signature covers."""
        return canonical_json(self.head())

    def head(self) -> dict[str, Any]:
        """What is signed, as JSON has it."""
        return self.model_dump(mode="json", exclude=_UNSIGNED | (_LATER if self.format == 1 else set()))


class _Content(Protocol):
    """What a bucket's leaves go into."""

    def add(self, leaf: bytes) -> None: ...
    def root(self) -> bytes: ...


class _Plain:
    """A bucket of format 1: the digest of its leaves' digests, one after the other."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def add(self, leaf: bytes) -> None:
        self._digest.update(hashlib.sha256(leaf).digest())

    def root(self) -> bytes:
        return self._digest.digest()


class Tree:
    """The buckets, filled entry by entry."""

    def __init__(self, depth: int, format: int = FORMAT) -> None:  # noqa: A002 (the field's name)
        self.depth = depth
        self.entries = 0
        self.until: AwareDatetime | None = None
        self._format = format
        self._contents: dict[int, _Content] = {}
        self._counts: dict[int, int] = {}

    @classmethod
    def for_keys(cls, keys: int) -> "Tree":
        """A tree with some buckets for each key, as far as that goes."""
        return cls(min(_MAX_DEPTH, (8 * keys).bit_length()))

    def add(self, storage_id: UUID, leaf: Leaf) -> None:
        """Put an entry into its bucket."""
        place = bucket_of(storage_id, leaf.key, self.depth)
        content = self._contents.get(place)
        if content is None:
            content = self._contents[place] = _Plain() if self._format == 1 else MerkleTree()
        content.add(leaf_bytes(storage_id, leaf))
        self._counts[place] = self._counts.get(place, 0) + 1
        self.entries += 1
        self.until = leaf.at if self.until is None else max(self.until, leaf.at)

    def buckets(self) -> dict[int, Bucket]:
        """The buckets that have entries."""
        return {
            place: Bucket(entries=self._counts[place], digest=self._digest(place, content).hex())
            for place, content in sorted(self._contents.items())
        }

    def _digest(self, place: int, content: _Content) -> bytes:
        return content.root() if self._format == 1 else bucket_digest(self._counts[place], content.root())


def bucket_of(storage_id: UUID, key: str, depth: int) -> int:
    """In which of so many buckets the entries of a key are."""
    number = int.from_bytes(hashlib.sha256(storage_id.bytes + key.encode()).digest()[:4])
    return number >> (32 - depth)


def leaf_bytes(storage_id: UUID, leaf: Leaf) -> bytes:
    """What stands for an entry in its bucket."""
    key = leaf.key.encode()
    return storage_id.bytes + struct.pack(">iq", len(key), leaf.seq) + key + leaf.digest


def bucket_digest(entries: int, root: bytes) -> bytes:
    """The digest of a bucket, which says how many entries it has: nobody can take it for a larger one's part."""
    return hashlib.sha256(b"\2" + struct.pack(">q", entries) + root).digest()


def root_of(seal_format: int, buckets: Mapping[int, Bucket], depth: int) -> str:
    """The root of a binary tree over the buckets, in hex."""
    return levels_of(seal_format, buckets, depth)[-1][0].hex()


def levels_of(seal_format: int, buckets: Mapping[int, Bucket], depth: int) -> list[list[bytes]]:
    """The digests of a binary tree over the buckets, from these to the root."""
    nothing = hashlib.sha256(b"").digest()
    empty = nothing if seal_format == 1 else bucket_digest(0, nothing)
    level = [bytes.fromhex(buckets[place].digest) if place in buckets else empty for place in range(1 << depth)]
    levels = [level]
    while len(level) > 1:
        level = [node_digest(left, right) for left, right in zip(level[::2], level[1::2], strict=True)]
        levels.append(level)
    return levels


def sign(seal: Seal, key_file: Path) -> Seal:
    """Sign a seal with the key in a file, which is made where there is none.

    Raises: ConfigurationError when the file holds no such key, or the extra ``audit`` is not installed.
    """
    key = SigningKey(key_file)
    seal = seal.model_copy(update={"public_key": key.public_key, "endorsements": key.endorsements})
    return seal.model_copy(update={"signature": key.sign(seal.signed_bytes())})


def require_genuine(seal: Seal, storage_id: UUID, key_file: Path, public_key: str | None) -> None:
    """Refuse a seal that was altered, is of another storage, or was signed by somebody else.

    Parameters:
        seal: to be checked.
        storage_id: the storage it must be of.
        key_file: with the key that must have signed it, or followed the one that did; without one any may have.
        public_key: the key that must have signed it or endorsed the one that did, in hex; None: that of the file.

    Raises: IntegrityError; ConfigurationError.
    """
    if seal.storage_id == storage_id:
        require_trusted(seal, key_file, public_key)
    require_signed(seal, storage_id)


def require_trusted(seal: Seal, key_file: Path, public_key: str | None) -> None:
    """Refuse a seal of a key that nobody here knows; see `require_genuine`."""
    keys = trusted_keys(key_file, public_key)
    if keys is None or seal.public_key in keys:
        return
    if not set(require_endorsed(seal.endorsements, seal.public_key)) & set(keys):
        raise IntegrityError(f"the seal was signed with another key than {keys[-1]}: it proves nothing here")


def require_signed(seal: Seal, storage_id: UUID) -> None:
    """Refuse a seal that was altered or is of another storage, whoever signed it."""
    if seal.storage_id != storage_id:
        raise IntegrityError(f"the seal is one of the storage {seal.storage!r}: name that storage to check it")
    if not is_signed(seal.public_key, seal.signature, seal.signed_bytes()):
        raise IntegrityError("the seal was altered: its signature does not match")
    if not 0 <= seal.depth <= _MAX_DEPTH or not _makes_root(seal):
        raise IntegrityError("the seal was altered: its buckets do not make up its root")


def _makes_root(seal: Seal) -> bool:
    try:
        return root_of(seal.format, seal.buckets, seal.depth) == seal.root
    except ValueError:  # what is no hexadecimal number
        return False
