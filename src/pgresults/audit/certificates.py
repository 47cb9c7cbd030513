"""Certificates of erasure: what was erased, for somebody who has no database."""

import json
from typing import Any

from pydantic import BaseModel, ConfigDict

from pgresults.audit.certified import CERTIFIES, check_certificate
from pgresults.audit.signing import Endorsement, SigningKey
from pgresults.audit.standalone import Refused, canonical, loaded
from pgresults.errors import IntegrityError

FORMAT = 1


class Certificate(BaseModel):
    """A signed statement that of some keys no payload is left in the database.

    ``keys`` has of each the entry that says so, how many ``entries`` its history has, all of which were recomputed, and
    what it had: ``versions`` with their sizes and the salted digests of what was stored. ``remains`` says until when
    backups and the server's log still have it, as somebody said who keeps them. See `docs/format.md`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    certificate: str
    format: int
    storage: str
    storage_id: str
    issued_at: str
    scope: dict[str, Any]
    reason: str
    keys: tuple[dict[str, Any], ...]
    remains: dict[str, str | None]
    endorsements: tuple[Endorsement, ...]
    public_key: str
    signature: str

    def dump_bytes(self) -> bytes:
        """The certificate as JSON."""
        return (json.dumps(self.model_dump(mode="json"), indent=1, ensure_ascii=False) + "\n").encode()

    @classmethod
    def load_bytes(cls, data: bytes) -> "Certificate":
        """The certificate of such JSON, not checked yet.

        Raises: IntegrityError when it is none.
        """
        try:
            return cls.model_validate(loaded(data))
        except (Refused, ValueError) as error:
            raise IntegrityError("this is no certificate: it is not the JSON that one has") from error

    def check(self, public_key: str) -> None:
        """Check that it holds; needs no database.

        Parameters:
            public_key: the key that signs seals, in hex, as somebody told it who can be trusted.

        Raises: IntegrityError with what does not hold.
        """
        check(self.dump_bytes(), public_key)


def certify(key: SigningKey, **said: Any) -> Certificate:
    """A certificate that says something, signed."""
    statement = {
        "certificate": CERTIFIES,
        "format": FORMAT,
        **said,
        "endorsements": [one.model_dump() for one in key.endorsements],
        "public_key": key.public_key,
    }
    return Certificate.model_validate({**statement, "signature": key.sign(canonical(statement))})


def check(data: bytes, public_key: str) -> dict[str, Any]:
    """Check a certificate's file; see `Certificate.check`. Gives what it says."""
    try:
        return check_certificate(data, public_key)
    except Refused as refused:
        raise IntegrityError(f"the certificate does not hold: {refused}") from refused
