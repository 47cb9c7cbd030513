"""Time stamps of RFC 3161: somebody else's word that a seal was there at a time."""

import base64
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from pgresults.audit.seals import Seal
from pgresults.errors import ConfigurationError, IntegrityError

try:
    from cryptography import x509
    from rfc3161_client import VerificationError, VerifierBuilder, decode_timestamp_response
except ImportError:  # the extra `timestamps` is not installed: said where a stamp is attached or checked
    _STAMPS = False
else:
    _STAMPS = True

_SHA256 = "2.16.840.1.101.3.4.2.1"


def attach(seal: Seal, response: bytes, roots: Sequence[bytes]) -> Seal:
    """The seal with a time stamp.

    Parameters:
        seal: what was stamped.
        response: what a time stamping authority answered, in DER.
        roots: certificates in PEM, of one of which the stamp must be; none: only what it stamps is checked.

    Raises: IntegrityError for a stamp that is not this seal's; ConfigurationError without the extra ``timestamps``.
    """
    stamped_at(seal, response, roots)
    token = base64.b64encode(response).decode()
    return seal if token in seal.timestamps else seal.model_copy(update={"timestamps": (*seal.timestamps, token)})


def stamps(seal: Seal, roots: Sequence[bytes]) -> list[datetime]:
    """When a seal was stamped, by those who are trusted; see `attach`."""
    try:
        responses = [base64.b64decode(token, validate=True) for token in seal.timestamps]
    except ValueError as error:
        raise IntegrityError("a time stamp of the seal was altered: it is no base64") from error
    return [stamped_at(seal, response, roots) for response in responses]


def stamped_at(seal: Seal, response: bytes, roots: Sequence[bytes]) -> datetime:
    """When a response says that a seal was there; see `attach`."""
    if not _STAMPS:
        raise ConfigurationError("time stamps need an extra: pip install 'pgresults[timestamps]'")
    digest = bytes.fromhex(seal.digest)
    try:
        stamp: Any = decode_timestamp_response(response)
        imprint = stamp.tst_info.message_imprint
    except (ValueError, TypeError) as error:
        raise IntegrityError(f"this is no answer of a time stamping authority: {error}") from error
    if imprint.hash_algorithm.dotted_string != _SHA256 or imprint.message != digest:
        raise IntegrityError(f"the time stamp is not one of this seal, whose digest is {seal.digest}")
    if roots:
        builder = VerifierBuilder()
        for root in _certificates(roots):
            builder = builder.add_root_certificate(root)
        try:
            builder.build().verify(stamp, digest)
        except (VerificationError, ValueError) as error:
            raise IntegrityError(f"the time stamp is of nobody that is trusted here: {error}") from error
    at: datetime = stamp.tst_info.gen_time
    return at


def _certificates(roots: Sequence[bytes]) -> list[Any]:
    try:
        return [one for root in roots for one in x509.load_pem_x509_certificates(root)]
    except ValueError as error:
        raise ConfigurationError("there are no certificates in PEM in the file of those that are trusted") from error
