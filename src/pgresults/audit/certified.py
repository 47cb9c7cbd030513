"""Checks certificates of erasure: by the standard library alone, as `standalone` does proofs."""

import struct
from typing import Any

from pgresults.audit.standalone import (
    Refused,
    canonical,
    check_endorsements,
    check_entry,
    fields,
    is_signed,
    loaded,
    moment,
    number,
    octets,
    text,
)

CERTIFICATE = (
    "certificate", "format", "storage", "storage_id", "issued_at", "scope", "reason", "keys", "remains", "endorsements",
    "public_key", "signature",
)  # fmt: skip
CERTIFIES = "erasure"
"""What a certificate says it is."""


def is_certificate(data: bytes) -> bool:
    """Whether a file says that it is a certificate, and no proof; nothing is checked."""
    try:
        found = loaded(data)
    except Refused:
        return False
    return isinstance(found, dict) and "certificate" in found


def check_certificate(data: bytes, public_key: str) -> dict[str, Any]:
    """Check a certificate of erasure; gives what it says.

    Parameters:
        data: its file.
        public_key: the key that signs, in hex.

    Raises: Refused with what does not hold.
    """
    found = fields(loaded(data), CERTIFICATE, "the certificate")
    check_signed(found, public_key)
    issued = moment(found["issued_at"])
    for until in fields(found["remains"], ("backups_until", "log_until"), "what remains").values():
        if until is not None:
            moment(until)
    last = ""
    for one in items(found["keys"]):
        try:
            entry = check_erased(one)
        except (ValueError, ArithmeticError, RecursionError, struct.error) as error:
            raise Refused(f"an entry cannot be what was stored: {error}") from error
        if entry["storage_id"] != text(found["storage_id"]) or not in_scope(entry["key"], found["scope"]):
            raise Refused("a key is none of those that the certificate is about")
        if entry["key"] <= last or moment(entry["at"]) > issued:
            raise Refused("the keys are not in order, or an entry is younger than the certificate")
        last = entry["key"]
    if not last:
        raise Refused("the certificate is about nothing")
    return found


def check_signed(found: dict[str, Any], public_key: str) -> None:
    """Refuse what a key has not signed, nor one that it endorsed."""
    if (text(found["certificate"]), number(found["format"])) != (CERTIFIES, 1):
        raise Refused("this is no certificate of erasure of format 1")
    if public_key not in check_endorsements(found["endorsements"], text(found["public_key"])):
        raise Refused(f"the certificate was signed with another key than {public_key}")
    statement = canonical({name: value for name, value in found.items() if name != "signature"})
    if not is_signed(octets(found["public_key"], 32), octets(found["signature"], 64), statement):
        raise Refused("the certificate was altered: its signature does not match")


def check_erased(one: Any) -> dict[str, Any]:
    """Refuse what does not say that all of a key's versions were erased; gives the entry."""
    fields(one, ("entry", "entries", "versions"), "a key")
    entry = check_entry(one["entry"])
    if entry["action"] != "redact" or entry["payload_id"] is not None or entry["seq"] != number(one["entries"], 1):
        raise Refused("an entry does not say that its key was erased, or is not the last one")
    last = 0
    for version in items(one["versions"]):
        fields(version, ("version", "size", "payload_digest"), "a version")
        last = number(version["version"], last + 1)
        number(version["size"], 0)
        octets(version["payload_digest"], 32)
    if last != entry["version"]:
        raise Refused("the versions that were erased do not end with the last one")
    return entry


def in_scope(key: str, scope: Any) -> bool:
    """Whether a key is one of those that something is about; of tags its entry says nothing."""
    if not isinstance(scope, dict) or len(scope) != 1:
        raise Refused("there are not one of key, prefix and tags")
    ((kind, value),) = scope.items()
    if kind == "tags":
        return bool([text(tag) for tag in items(value)])
    if kind not in ("key", "prefix"):
        raise Refused("there are not one of key, prefix and tags")
    return key == text(value) if kind == "key" else key.startswith(text(value))


def items(value: Any) -> list[Any]:
    """A list."""
    if not isinstance(value, list):
        raise Refused("there is no list where one should be")
    return value


def certified(certificate: dict[str, Any]) -> str:
    """What a certificate of erasure says, in words."""
    keys, remains = certificate["keys"], certificate["remains"]
    versions = sum(len(one["versions"]) for one in keys)
    until = {name: remains[f"{name}_until"] or "a time that nobody said" for name in ("backups", "log")}
    return (
        f"{versions} versions of {len(keys)} keys were erased from {certificate['storage']!r} by "
        f"{certificate['issued_at']}: {certificate['reason']}; backups may have them until {until['backups']}, the "
        f"server's log until {until['log']}"
    )
