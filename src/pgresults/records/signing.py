"""Signatures of payloads: who can write to the database but has no key cannot have anything unpickled."""

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
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
"""What a signature covers; the expiration is left out, because it may be changed without a new payload."""

_ID_BYTES = 8


@dataclass(frozen=True)
class Trust:
    """What makes a stored payload one that may be deserialized.

    Parameters:
        storage_id: where the payload lies.
        keys: signing keys: the first one signs, all of them verify; none: nothing is signed or asked for.
        permit: what payloads may have run, and how large they may become.
    """

    storage_id: UUID
    keys: tuple[bytes, ...] = field(default=(), repr=False)
    permit: Permit = field(default_factory=Permit)

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
        if signature is None:
            flaw = "it is not signed"
        elif any(hmac.compare_digest(signature, self._signature(key, columns)) for key in self.keys):
            return
        elif signature[:_ID_BYTES] in map(_key_id, self.keys):
            flaw = "its signature does not fit"
        else:
            flaw = "it is signed with a key that is not known here"
        raise IntegrityError(
            f"the payload of {columns['key']!r}, version {version}, is refused: {flaw}. It was not unpickled. "
            "If a former key signed it, name that key in PGRESULTS_OLDER_SIGNING_KEYS.",
            key=columns["key"],
            version=version,
        )

    def _signature(self, key: bytes, columns: Mapping[str, Any]) -> bytes:
        message = framed({**columns, "storage_id": self.storage_id}, _FIELDS)
        return _key_id(key) + hmac.digest(key, message, "sha256")


def _key_id(key: bytes) -> bytes:
    return hashlib.sha256(b"pgresults key id" + key).digest()[:_ID_BYTES]
