"""Proofs: that an entry was sealed, for somebody who has no database."""

import json
from typing import Any

from pydantic import BaseModel, ConfigDict

from pgresults.audit.standalone import Refused, check_proof, loaded
from pgresults.errors import IntegrityError

FORMAT = 1


class Proof(BaseModel):
    """Shows that an entry of a key's history was in what a seal covers.

    ``entry`` has all that the entry's digest covers, ``payload`` what its payload's digest in the entry is made of
    (None: the payload is gone, or this was held back), ``path`` the digests from the entry to the seal's root, and
    ``seal`` the seal without its buckets. See `docs/format.md`.
    """

    model_config = ConfigDict(frozen=True)

    format: int = FORMAT
    entry: dict[str, Any]
    payload: dict[str, str] | None
    path: dict[str, Any]
    seal: dict[str, Any]

    @property
    def makes_version(self) -> bool:
        """Whether its entry made a version, and did not only say something of one."""
        return self.entry.get("action") in ("write", "import")

    def dump_bytes(self) -> bytes:
        """The proof as JSON, to be handed on."""
        return json.dumps(self.model_dump(), indent=1, ensure_ascii=False).encode() + b"\n"

    @classmethod
    def load_bytes(cls, data: bytes) -> "Proof":
        """The proof of such JSON, not checked yet.

        Raises: IntegrityError when it is none.
        """
        try:
            return cls.model_validate(loaded(data), strict=True)
        except (Refused, ValueError) as error:
            raise IntegrityError("this is no proof: it is not the JSON that one has") from error

    def check(self, public_key: str, payload: bytes | None = None) -> None:
        """Check that it holds; needs no database.

        Parameters:
            public_key: the key that signs the seals, in hex, as somebody told it who can be trusted.
            payload: bytes that are to be the payload that the entry names; None: nothing is said of it.

        Raises: IntegrityError with what does not hold.
        """
        check(self.dump_bytes(), public_key, payload)


def check(data: bytes, public_key: str, payload: bytes | None = None) -> dict[str, Any]:
    """Check a proof's file; see `Proof.check`. Gives what it says."""
    try:
        return check_proof(data, public_key, payload)
    except Refused as refused:
        raise IntegrityError(f"the proof does not hold: {refused}") from refused
