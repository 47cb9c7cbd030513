"""Signatures of payloads: who can write to the database but has no key cannot have anything unpickled."""

import hashlib
import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Self
from uuid import UUID

from pgresults.errors import IntegrityError
from pgresults.serializers.permits import Permit
from pgresults.settings import Settings
from pgresults.sql.digests import framed

_FIELDS = (
    "storage_id",
    "key",
    "payload_id",
    "sha256",
    "size",
    "serializer",
    "tags",
    "provenance",
    "storage_key",
    "storage_block_id",
    "pgresults_version",
    "prefect_version",
)
"""What a signature covers, the storage by its identity in its database; the expiration is left out, because it may be
changed without a new payload."""

_ID_BYTES = 8


class Flaw(StrEnum):
    """What is wrong with a signature."""

    UNSIGNED = "it is not signed"
    UNFIT = "its signature does not fit"
    UNKNOWN_KEY = "it is signed with a key that is not known here"


@dataclass(frozen=True)
class Trust:
    """What makes a stored payload one that may be deserialized.

    Parameters:
        storage_id: where the payload lies.
        identity: that of the storage in its database, which no other database of the same names has; None: not
            known yet, and so nothing is signed or verified.
        keys: signing keys: the first one signs, all of them verify; none: nothing is signed or asked for.
        permit: what payloads may have run, and how large they may become.
    """

    storage_id: UUID
    keys: tuple[bytes, ...] = field(default=(), repr=False)
    permit: Permit = field(default_factory=Permit)
    identity: UUID | None = None

    @property
    def is_complete(self) -> bool:
        """Whether what signatures cover is known."""
        return not self.keys or self.identity is not None

    @classmethod
    def of(cls, storage_id: UUID, settings: Settings) -> Self:
        """What the settings say about a storage."""
        keys: tuple[bytes, ...] = ()
        if settings.signing_key is not None:
            secrets = (settings.signing_key, *settings.older_signing_keys)
            keys = tuple(secret.get_secret_value().encode() for secret in secrets)
        return cls(storage_id, keys, Permit.of(settings))

    def sign(self, columns: Mapping[str, Any]) -> bytes | None:
        """The signature of a version, or None without a key: the key's id and the code over payload and metadata."""
        return self._signature(self.keys[0], columns) if self.keys else None

    def verify(self, columns: Mapping[str, Any], signature: bytes | None, version: int) -> None:
        """Refuse a version that is not signed with one of the keys; without keys everything passes.

        Raises: IntegrityError.
        """
        if not self.keys:
            return
        flaw = self._flaw(signature, lambda key: self._signature(key, columns))
        if flaw is None:
            return
        raise IntegrityError(
            f"the payload of {columns['key']!r}, version {version}, is refused: {flaw}. It was not unpickled. "
            "If a former key signed it, name that key in PGRESULTS_OLDER_SIGNING_KEYS.",
            key=columns["key"],
            version=version,
        )

    def sign_export(self, content: bytes) -> bytes | None:
        """The signature of a result on its way into a file, or None without a key."""
        return _export_signature(self.keys[0], content) if self.keys else None

    def flaw_of_export(self, content: bytes, signature: bytes | None) -> Flaw | None:
        """What speaks against a result in a file having been exported with one of the keys; None: nothing."""
        return self._flaw(signature, lambda key: _export_signature(key, content))

    def _flaw(self, signature: bytes | None, made_with: Callable[[bytes], bytes]) -> Flaw | None:
        if signature is None:
            return Flaw.UNSIGNED
        if any(hmac.compare_digest(signature, made_with(key)) for key in self.keys):
            return None
        return Flaw.UNFIT if signature[:_ID_BYTES] in map(_key_id, self.keys) else Flaw.UNKNOWN_KEY

    def _signature(self, key: bytes, columns: Mapping[str, Any]) -> bytes:
        if self.identity is None:
            raise IntegrityError(
                "the storage is not registered in its database (the table storage), which a signature covers: its row "
                "was removed, or never written",
                key=columns["key"],
            )
        message = framed({**columns, "storage_id": self.identity}, _FIELDS)
        return _key_id(key) + hmac.digest(key, message, "sha256")


def _export_signature(key: bytes, content: bytes) -> bytes:
    """A signature that no payload in a database can have, nor the other way round."""
    return _key_id(key) + hmac.digest(hmac.digest(key, b"pgresults export", "sha256"), content, "sha256")


def _key_id(key: bytes) -> bytes:
    return hashlib.sha256(b"pgresults key id" + key).digest()[:_ID_BYTES]
