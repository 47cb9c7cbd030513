"""The key that signs seals: where it is kept, and how another one takes its place."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from pgresults.errors import ConfigurationError, IntegrityError

try:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
except ImportError:  # the extra `audit` is not installed: said where a seal is made or checked
    _SIGNING = False
else:
    _SIGNING = True

_ENDORSED = b"pgresults endorses the key "


class Endorsement(BaseModel):
    """A key's word that another one follows it; all in hex."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    by: str
    key: str
    signature: str


_ENDORSEMENTS = TypeAdapter(tuple[Endorsement, ...])


class SigningKey:
    """A key in a file, with the endorsements of the keys that were there before.

    Parameters:
        file: where it is; made where there is none.

    Raises: ConfigurationError when the file holds no such key, or the extra ``audit`` is not installed.
    """

    def __init__(self, file: Path) -> None:
        self._key = _private_key(file)
        self.public_key = self._key.public_key().public_bytes_raw().hex()
        self.endorsements = endorsed(_endorsements(file), self.public_key)

    def sign(self, data: bytes) -> str:
        """A signature, in hex."""
        return self._key.sign(data).hex()


def rotate(file: Path) -> tuple[str, str]:
    """Put a new key in the place of the one in a file, which endorses it; the old one is kept beside it.

    Parameters:
        file: the key's; another process that signs has the old key until it begins anew.

    Returns: the old and the new public key, in hex.
    Raises: ConfigurationError where there is no key.
    """
    require_signing()
    if not has_key(file):
        raise ConfigurationError(f"{file} holds no key that another one could follow", setting="seal_key")
    old = SigningKey(file)
    with _reachable(file):
        new_file = file.with_name(f"{file.name}.new")
        new_file.unlink(missing_ok=True)
        _make_key(new_file)
        new = SigningKey(new_file)
        endorsement = Endorsement(by=old.public_key, key=new.public_key, signature=old.sign(_said(new.public_key)))
        # First what says so: without the new key it says nothing of the old one, which stays in use then.
        given = _ENDORSEMENTS.dump_json((*old.endorsements, endorsement), indent=1)
        beside = file.with_name(f"{file.name}.endorsements.new")
        beside.write_bytes(given)
        kept = file.with_name(f"{file.name}.{old.public_key[:8]}")
        kept.unlink(missing_ok=True)
        kept.hardlink_to(file)
        beside.replace(_endorsements_file(file))
        new_file.replace(file)
    return old.public_key, new.public_key


def endorsed(endorsements: Iterable[Endorsement], public_key: str) -> tuple[Endorsement, ...]:
    """Those of some endorsements that lead to a key, the oldest first."""
    by_key = {one.key: one for one in endorsements}
    found: list[Endorsement] = []
    while (one := by_key.pop(public_key, None)) is not None:
        found.append(one)
        public_key = one.by
    return tuple(reversed(found))


def require_endorsed(endorsements: Sequence[Endorsement], public_key: str) -> list[str]:
    """The keys by whose word a key signs: itself and those that went before.

    Raises: IntegrityError where one of the endorsements is not genuine or leads elsewhere.
    """
    keys: list[str] = []
    followers = [*(one.by for one in endorsements), public_key][1:]
    for one, then in zip(endorsements, followers, strict=True):
        if one.key != then or not is_signed(one.by, one.signature, _said(one.key)):
            raise IntegrityError(f"the key {one.key} is not endorsed by {one.by}, as the seal says")
        keys.append(one.by)
    return [*keys, public_key]


def is_signed(public_key: str, signature: str, data: bytes) -> bool:
    """Whether a key has signed something."""
    require_signing()
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key)).verify(bytes.fromhex(signature), data)
    except (InvalidSignature, ValueError):
        return False
    return True


def trusted_keys(file: Path, public_key: str | None) -> list[str] | None:
    """The keys that may have signed: one that was named, else that of a file and those that it followed.

    Returns: the keys, in hex; None: nobody said which.
    """
    if public_key is not None:
        return [public_key]
    if not has_key(file):
        return None
    key = SigningKey(file)
    return require_endorsed(key.endorsements, key.public_key)


def has_key(file: Path) -> bool:
    """Whether there is a file with the key that signs; raises ConfigurationError where that cannot be seen."""
    with _reachable(file):
        return file.exists()


def require_signing() -> None:
    """Raises ConfigurationError where the extra that signs is not installed."""
    if not _SIGNING:
        raise ConfigurationError("seals need an extra: pip install 'pgresults[audit]'", setting="seal_key")


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


def _said(public_key: str) -> bytes:
    """What an endorsement signs."""
    return _ENDORSED + public_key.encode()


def _endorsements_file(file: Path) -> Path:
    return file.with_name(f"{file.name}.endorsements")


def _endorsements(file: Path) -> tuple[Endorsement, ...]:
    with _reachable(file):
        beside = _endorsements_file(file)
        if not beside.exists():
            return ()
        content = beside.read_bytes()
    try:
        return _ENDORSEMENTS.validate_json(content)
    except ValidationError as error:
        raise ConfigurationError(f"{beside} holds no endorsements of keys", setting="seal_key") from error


def _private_key(file: Path) -> "Ed25519PrivateKey":
    require_signing()
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
