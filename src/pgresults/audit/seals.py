"""Seals: a signed digest of all entries, to be kept where whoever can change the database cannot change it.

Every entry goes into a bucket by its key; the buckets are the leaves of a binary tree of digests, whose root is signed
with Ed25519. A seal has the digests of its buckets, too, so that an alteration is found near its place.
"""

import hashlib
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, ValidationError

from pgresults.errors import ConfigurationError, IntegrityError
from pgresults.operations.verify import Leaf, Span
from pgresults.records.records import AwareDatetime
from pgresults.sql.digests import canonical_json

try:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
except ImportError:  # the extra `audit` is not installed: said where a seal is made or checked
    _SIGNING = False
else:
    _SIGNING = True

_MAX_DEPTH = 12
_EMPTY = hashlib.sha256(b"").digest()


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
    them. Of the ``2 ** depth`` buckets those without entries are left out.
    """

    model_config = ConfigDict(frozen=True)

    storage: str
    storage_id: UUID
    sealed_at: AwareDatetime
    bound: int
    until: AwareDatetime
    entries: int
    windows: int = 0
    ahead: int = 0
    depth: int
    buckets: dict[int, Bucket]
    root: str
    public_key: str = ""
    signature: str = ""

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

    def signed_bytes(self) -> bytes:
        """What the signature covers."""
        return canonical_json(self.model_dump(mode="json", exclude={"signature", "buckets"}))


class Tree:
    """The buckets, filled entry by entry."""

    def __init__(self, depth: int) -> None:
        self.depth = depth
        self.entries = 0
        self.until: AwareDatetime | None = None
        self._digests: dict[int, Any] = {}
        self._counts: dict[int, int] = {}

    @classmethod
    def for_keys(cls, keys: int) -> "Tree":
        """A tree with some buckets for each key, as far as that goes."""
        return cls(min(_MAX_DEPTH, (8 * keys).bit_length()))

    def add(self, storage_id: UUID, leaf: Leaf) -> None:
        """Put an entry into its bucket."""
        place = self.bucket_of(storage_id, leaf.key)
        key = leaf.key.encode()
        leaf_bytes = storage_id.bytes + struct.pack(">iq", len(key), leaf.seq) + key + leaf.digest
        self._digests.setdefault(place, hashlib.sha256()).update(hashlib.sha256(leaf_bytes).digest())
        self._counts[place] = self._counts.get(place, 0) + 1
        self.entries += 1
        self.until = leaf.at if self.until is None else max(self.until, leaf.at)

    def bucket_of(self, storage_id: UUID, key: str) -> int:
        """In which bucket the entries of a key are."""
        number = int.from_bytes(hashlib.sha256(storage_id.bytes + key.encode()).digest()[:4])
        return number >> (32 - self.depth)

    def buckets(self) -> dict[int, Bucket]:
        """The buckets that have entries."""
        return {
            place: Bucket(entries=self._counts[place], digest=digest.hexdigest())
            for place, digest in sorted(self._digests.items())
        }


def root_of(buckets: Mapping[int, Bucket], depth: int) -> str:
    """The root of a binary tree over the buckets, in hex."""
    level = [bytes.fromhex(buckets[place].digest) if place in buckets else _EMPTY for place in range(1 << depth)]
    while len(level) > 1:
        pairs = zip(level[::2], level[1::2], strict=True)
        level = [hashlib.sha256(b"\1" + left + right).digest() for left, right in pairs]
    return level[0].hex()


def sign(seal: Seal, key_file: Path) -> Seal:
    """Sign a seal with the key in a file, which is made where there is none.

    Raises: ConfigurationError when the file holds no such key, or the extra ``audit`` is not installed.
    """
    key = _private_key(key_file)
    seal = seal.model_copy(update={"public_key": key.public_key().public_bytes_raw().hex()})
    return seal.model_copy(update={"signature": key.sign(seal.signed_bytes()).hex()})


def require_genuine(seal: Seal, storage_id: UUID, key_file: Path, public_key: str | None) -> None:
    """Refuse a seal that was altered, is of another storage, or was signed by somebody else.

    Parameters:
        seal: to be checked.
        storage_id: the storage it must be of.
        key_file: with the key that must have signed it; where there is none, any may have.
        public_key: the key that must have signed it, in hex; None: that of the file.

    Raises: IntegrityError; ConfigurationError.
    """
    _require_signing()
    if seal.storage_id != storage_id:
        raise IntegrityError(f"the seal is one of the storage {seal.storage!r}: name that storage to check it")
    expected = public_key or (
        _private_key(key_file).public_key().public_bytes_raw().hex() if has_key(key_file) else None
    )
    if expected is not None and seal.public_key != expected:
        raise IntegrityError(f"the seal was signed with another key than {expected}: it proves nothing here")
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(seal.public_key)).verify(
            bytes.fromhex(seal.signature), seal.signed_bytes()
        )
    except (InvalidSignature, ValueError) as error:
        raise IntegrityError("the seal was altered: its signature does not match") from error
    if not 0 <= seal.depth <= _MAX_DEPTH or root_of(seal.buckets, seal.depth) != seal.root:
        raise IntegrityError("the seal was altered: its buckets do not make up its root")


def has_key(file: Path) -> bool:
    """Whether there is a file with the key that signs; raises ConfigurationError where that cannot be seen."""
    with _reachable(file):
        return file.exists()


@contextmanager
def _reachable(file: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigurationError(
            f"{file} cannot hold the key for seals ({error.strerror}): PGRESULTS_SEAL_KEY names another file, "
            "PGRESULTS_SEAL_PUBLIC_KEY the key with which seals must be signed",
            setting="seal_key",
        ) from error


def _private_key(file: Path) -> "Ed25519PrivateKey":
    _require_signing()
    with _reachable(file):
        if not file.exists():
            _make_key(file)
        content = file.read_bytes()
    try:
        key = serialization.load_pem_private_key(content, password=None)
    except (ValueError, TypeError) as error:
        raise ConfigurationError(
            f"{file} holds no private key in PEM without a password", setting="seal_key"
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigurationError(f"{file} holds no Ed25519 key", setting="seal_key")
    return key


def _make_key(file: Path) -> None:
    pem = Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    file.touch(mode=0o600, exist_ok=False)
    file.write_bytes(pem)


def _require_signing() -> None:
    if not _SIGNING:
        raise ConfigurationError("seals need an extra: pip install 'pgresults[audit]'", setting="seal_key")
