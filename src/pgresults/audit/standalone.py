"""Checks proofs and bundles of evidence made by pgresults. Needs Python 3.11 or newer and nothing else.

    python verify.py --public-key KEY                           the bundle in whose directory this file lies
    python verify.py PROOF --public-key KEY [--payload FILE]    one proof

KEY is the key that signs the seals, in hex, as somebody told you whom you trust: the one that lies in a bundle says
nothing. The format is described in format.md. Exit codes: 0 it holds, 1 it does not, 2 wrong usage.
"""

import argparse
import hashlib
import json
import re
import struct
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal, Inexact, InvalidOperation
from pathlib import Path
from typing import Any, NoReturn
from uuid import UUID

CONTENT = (
    "action", "actor", "holder", "fence", "reason", "payload_id", "payload_digest", "size", "serializer", "tags",
    "provenance", "storage_key", "storage_block_id", "pgresults_version", "prefect_version", "signature",
)  # fmt: skip
LATER = ("derived_from",)
ROW = ("storage_id", "key", "seq", "version", "at", "expires_at", "db_user", "previous", "digest")
SEAL = (
    "format", "storage", "storage_id", "sealed_at", "bound", "until", "entries", "windows", "ahead", "previous",
    "depth", "root", "endorsements", "public_key", "signature",
)  # fmt: skip
PATH = ("index", "entries", "bucket", "tree")
NEEDED = ("action", "actor", *(name for name in ROW if name != "expires_at"))
KINDS: dict[str, Any] = {
    **dict.fromkeys(("storage_id", "payload_id", "storage_block_id"), "uuid"),
    **dict.fromkeys(("seq", "version", "fence", "size"), "number"),
    **dict.fromkeys(("at", "expires_at"), "time"),
    **dict.fromkeys(("previous", "digest", "payload_digest", "signature"), "hex"),
    **dict.fromkeys(("serializer", "tags", "provenance", *LATER), "json"),
}
MAX_DEPTH = 12
EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
ENDORSES = b"pgresults endorses the key "
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", re.ASCII)
HEX = re.compile("(?:[0-9a-f]{2})*")
EXACT = Context(prec=5000, traps=[InvalidOperation, Inexact])


class Refused(Exception):  # noqa: N818 (what happens to a proof)
    """What does not hold, and why."""


# JSON, and the bytes that digests take of it


def loaded(data: bytes) -> Any:
    """What a JSON text says; refuses names that are there twice, and what is no JSON."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise Refused("a name is there twice in an object")
        return found

    def no_number(text: str) -> NoReturn:
        raise Refused(f"{text} is no number")

    try:
        return json.loads(data.decode(), object_pairs_hook=unique, parse_constant=no_number)
    except (ValueError, RecursionError) as error:
        raise Refused("this is no JSON in UTF-8") from error


def canonical(value: Any) -> bytes:
    """The one form of a JSON value."""
    return json.dumps(numbered(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def numbered(value: Any) -> Any:
    """A JSON value with its numbers as texts."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return plain(value)
    if isinstance(value, dict):
        return {plain(name): numbered(item) for name, item in value.items()}
    if isinstance(value, list):
        return [numbered(item) for item in value]
    exact = Decimal(repr(value)).normalize(EXACT)
    if not exact.is_finite():
        raise Refused("a number is larger than any")
    return {"\0": str(exact or Decimal(0))}


def plain(text: str) -> str:
    """A text, which has no NUL: an object with that name stands for a number."""
    if "\0" in text:
        raise Refused("a text holds a NUL character")
    return text


# What entries and seals are made of


def sha256(*parts: bytes) -> bytes:
    """The digest of some bytes, one after the other."""
    return hashlib.sha256(b"".join(parts)).digest()


def frame(data: bytes | None) -> bytes:
    """Bytes with their length before them."""
    return struct.pack(">i", -1) if data is None else struct.pack(">i", len(data)) + data


def fields(value: Any, names: tuple[str, ...], what: str) -> dict[str, Any]:
    """An object that has these names and no others."""
    if not isinstance(value, dict) or value.keys() != set(names):
        raise Refused(f"{what} does not have the fields that it should")
    return value


def text(value: Any) -> str:
    """A text."""
    if not isinstance(value, str):
        raise Refused("there is no text where one should be")
    return value


def number(value: Any, low: int = -(2**63), high: int = 2**63 - 1) -> int:
    """An integer between two others."""
    if type(value) is not int or not low <= value <= high:
        raise Refused("there is no integer, or a wrong one, where one should be")
    return value


def octets(value: Any, length: int | None = None) -> bytes:
    """Bytes that are written in hex, in small letters."""
    if not HEX.fullmatch(text(value)) or (length is not None and len(value) != 2 * length):
        raise Refused("there is no hexadecimal text of the right length where one should be")
    return bytes.fromhex(value)


def uuid(value: Any) -> bytes:
    """The bytes of a UUID."""
    try:
        found = UUID(text(value))
    except ValueError:
        found = None
    if found is None or str(found) != value:
        raise Refused("there is no UUID where one should be")
    return found.bytes


def moment(value: Any) -> bytes:
    """The bytes of a time."""
    if not TIME.fullmatch(text(value)):
        raise Refused("there is no time in UTC with microseconds where one should be")
    try:
        at = datetime.fromisoformat(value)
    except ValueError as error:
        raise Refused("there is no time that there was where one should be") from error
    return struct.pack(">q", (at - EPOCH) // timedelta(microseconds=1))


def column(name: str, value: Any) -> bytes | None:
    """The bytes of an entry's column."""
    if value is None:
        if name in NEEDED:
            raise Refused(f"the entry has no {name}")
        return None
    match KINDS.get(name):
        case "uuid":
            return uuid(value)
        case "number":
            return str(number(value)).encode()
        case "time":
            return moment(value)
        case "hex":
            return octets(value)
        case "json":
            return canonical(value)
    return text(value).encode()


def entry_digest(entry: dict[str, Any]) -> bytes:
    """What the digest of an entry must be."""
    row = {name: column(name, entry[name]) or b"" for name in ROW}
    return sha256(
        frame(row["previous"]),
        row["storage_id"],
        frame(row["key"]),
        struct.pack(">qq", entry["seq"], entry["version"]),
        row["at"],
        frame(column("expires_at", entry["expires_at"])),
        frame(row["db_user"]),
        sha256(
            *(frame(column(name, entry[name])) for name in CONTENT),
            *(frame(name.encode()) + frame(column(name, entry[name])) for name in LATER if name in entry),
        ),
    )


def check_entry(entry: Any) -> dict[str, Any]:
    """Refuse an entry whose digest does not match what it says; gives it."""
    later = tuple(name for name in LATER if isinstance(entry, dict) and entry.get(name) is not None)
    found = fields(entry, ROW + CONTENT + later, "the entry")
    for parent in found.get("derived_from", []):
        text(parent)
    if entry_digest(found).hex() != text(found["digest"]):
        raise Refused("the entry was altered: its digest does not match what it says")
    if (found["seq"] == 1) != (found["previous"] == ""):
        raise Refused("the entry was altered: the first one has no predecessor, and every other one has one")
    return found


def check_seal(seal: Any, public_key: str) -> None:
    """Refuse a seal that a key has not signed, nor one that it endorsed."""
    fields(seal, SEAL, "the seal")
    if number(seal["format"]) != 2:
        raise Refused(f"the seal's format is {seal['format']}, and this checks seals of format 2")
    number(seal["depth"], 0, MAX_DEPTH)
    behind = check_endorsements(seal["endorsements"], text(seal["public_key"]))
    if public_key not in behind:
        raise Refused(f"the seal was signed with another key than {public_key}: it proves nothing here")
    statement = canonical({name: value for name, value in seal.items() if name != "signature"})
    if not is_signed(octets(seal["public_key"], 32), octets(seal["signature"], 64), statement):
        raise Refused("the seal was altered: its signature does not match")


def check_endorsements(endorsements: Any, public_key: str) -> list[str]:
    """The keys behind one, itself included; refuses endorsements that are not genuine."""
    if not isinstance(endorsements, list):
        raise Refused("there are no endorsements where they should be")
    keys = [public_key]
    for one in reversed(endorsements):
        fields(one, ("by", "key", "signature"), "an endorsement")
        said = ENDORSES + text(one["key"]).encode()
        if one["key"] != keys[0] or not is_signed(octets(one["by"], 32), octets(one["signature"], 64), said):
            raise Refused("a key is not endorsed by the one that it follows, as the seal says")
        keys.insert(0, one["by"])
    return keys


def check_path(entry: dict[str, Any], path: Any, depth: int) -> bytes:
    """The root of the tree that has an entry at the place that its path says."""
    fields(path, PATH, "the path")
    key = entry["key"].encode()
    size, index = number(path["entries"], 1), number(path["index"], 0)
    leaf = uuid(entry["storage_id"]) + struct.pack(">iq", len(key), entry["seq"]) + key + octets(entry["digest"], 32)
    node, place, last = sha256(b"\0", leaf), index, size - 1
    for other in digests(path["bucket"]):
        if last == 0:
            raise Refused("the path in the bucket is too long")
        if place & 1 or place == last:
            node = sha256(b"\1", other, node)
            while place and not place & 1:
                place, last = place >> 1, last >> 1
        else:
            node = sha256(b"\1", node, other)
        place, last = place >> 1, last >> 1
    if last or index >= size:
        raise Refused("the path in the bucket is not one of so many entries")
    node = sha256(b"\2", struct.pack(">q", size), node)
    others = digests(path["tree"])
    if len(others) != depth:
        raise Refused("the path from the bucket to the root does not have the tree's depth")
    bucket = int.from_bytes(sha256(uuid(entry["storage_id"]), key)[:4]) >> (32 - depth)
    for other in others:
        node = sha256(b"\1", other, node) if bucket & 1 else sha256(b"\1", node, other)
        bucket >>= 1
    return node


def digests(value: Any) -> list[bytes]:
    """A list of digests."""
    if not isinstance(value, list):
        raise Refused("there is no list of digests where one should be")
    return [octets(one, 32) for one in value]


def check_payload(entry: dict[str, Any], said: Any, payload: bytes | None) -> None:
    """Refuse a payload's digest or a payload that is not the one of an entry."""
    if said is None:
        if payload is not None:
            raise Refused("the proof does not say the payload's salt: nothing can be said of a payload")
        return
    fields(said, ("sha256", "salt"), "the payload")
    if sha256(octets(said["salt"]), octets(said["sha256"], 32)).hex() != entry["payload_digest"]:
        raise Refused("the payload's digest is not the one in the entry")
    if payload is not None and (sha256(payload).hex() != said["sha256"] or len(payload) != entry["size"]):
        raise Refused("the payload is another one than that of the entry")


def check_proof(data: bytes, public_key: str, payload: bytes | None = None) -> dict[str, Any]:
    """Check a proof; gives what it says.

    Parameters:
        data: the proof's file.
        public_key: the key that signs the seals, in hex.
        payload: the bytes of a payload that is to be the one that the entry names; None: nothing is said of it.

    Raises: Refused with what does not hold.
    """
    proof = fields(loaded(data), ("format", "entry", "payload", "path", "seal"), "the proof")
    if number(proof["format"]) != 1:
        raise Refused(f"the proof's format is {proof['format']}, and this checks format 1")
    try:
        entry = check_entry(proof["entry"])
        check_seal(proof["seal"], public_key)
        if entry["storage_id"] != proof["seal"]["storage_id"]:
            raise Refused("the entry is of another storage than the seal")
        check_payload(entry, proof["payload"], payload)
        root = check_path(entry, proof["path"], proof["seal"]["depth"])
    except (ValueError, ArithmeticError, RecursionError, struct.error) as error:
        raise Refused(f"something in it cannot be what was stored: {error}") from error
    if root.hex() != proof["seal"]["root"]:
        raise Refused("the path does not lead to the seal's root: the entry was not sealed")
    return proof


def check_history(data: bytes) -> list[dict[str, Any]]:
    """Check that the entries of a key follow each other from the first one on; gives them."""
    entries = loaded(data)
    if not isinstance(entries, list):
        raise Refused("there is no list of entries")
    check_chain(entries)
    return entries


def check_chain(entries: list[dict[str, Any]]) -> None:
    """Refuse entries that do not follow each other from the first one on."""
    place, previous = None, ""
    for number_, entry in enumerate(entries, 1):
        try:
            check_entry(entry)
        except (ValueError, ArithmeticError, RecursionError, struct.error) as error:
            raise Refused(f"entry {number_} cannot be what was stored: {error}") from error
        place = place or (entry["storage_id"], entry["key"])
        if (entry["seq"], entry["previous"]) != (number_, previous) or place != (entry["storage_id"], entry["key"]):
            raise Refused(f"entry {number_} does not follow the one before it")
        previous = entry["digest"]


def check_bundle(directory: Path, public_key: str) -> Iterator[str]:
    """Check a bundle of evidence; gives what holds, line by line."""
    entries = check_history((directory / "history.json").read_bytes())
    proofs = {file.stem: file for file in (directory / "proofs").glob("*.json")}
    payloads = {file.stem: file for file in (directory / "payloads").glob("*")}
    if payloads.keys() - proofs.keys():
        raise Refused("there is a payload of which nothing is proven")
    seal = loaded((directory / "seal.json").read_bytes())
    if not isinstance(seal, dict):
        raise Refused("there is no seal in seal.json")
    sealed = {name: value for name, value in seal.items() if name not in ("buckets", "timestamps")}
    known, last = {entry["seq"]: entry for entry in entries}, 0
    for name, file in sorted(proofs.items(), key=lambda item: (len(item[0]), item[0])):
        payload = payloads[name].read_bytes() if name in payloads else None
        proof = check_proof(file.read_bytes(), public_key, payload)
        entry = proof["entry"]
        if entry != known.get(entry["seq"]):
            raise Refused(f"{file.name} is of another entry than the history has")
        if name not in (str(entry["version"]), f"entry-{entry['seq']}"):
            raise Refused(f"{file.name} is not what its name says")
        if proof["seal"] != sealed:
            raise Refused(f"{file.name} is by another seal than the one in seal.json")
        last = max(last, entry["seq"])
        yield f"{file.name}: {said(proof)}{', and its payload is the one stored' if payload is not None else ''}"
    if last == 0:
        raise Refused("there are no proofs")
    later = len(entries) - last
    yield f"history: entries 1 to {last} follow each other up to what was sealed"
    if later:
        yield f"NOT SEALED: {later} later entries; they follow each other, and nobody vouches for them"


def said(proof: dict[str, Any]) -> str:
    """What a proof shows, in words."""
    entry, seal = proof["entry"], proof["seal"]
    return (
        f"{entry['action']} of {entry['key']!r}, version {entry['version']}, at {entry['at']} by {entry['db_user']!r} "
        f"was sealed at {seal['sealed_at']}"
    )


# Ed25519, as RFC 8032 describes it

P, L = 2**255 - 19, 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
ROOT = pow(2, (P - 1) // 4, P)
Point = tuple[int, int, int, int]


def is_signed(public_key: bytes, signature: bytes, message: bytes) -> bool:
    """Whether a key has signed a message."""
    s = int.from_bytes(signature[32:], "little")
    key = decompressed(public_key)
    if key is None or s >= L:
        return False
    h = int.from_bytes(hashlib.sha512(signature[:32] + public_key + message).digest(), "little") % L
    x, y, z, t = key
    return compressed(added(times(s, BASE), times(h, (P - x, y, z, P - t)))) == signature[:32]


def decompressed(data: bytes) -> Point | None:
    """The point that bytes stand for; None: for none."""
    y = int.from_bytes(data, "little")
    sign, y = y >> 255, y & ((1 << 255) - 1)
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * ROOT % P
    if y >= P or (x * x - square) % P or (x == 0 and sign):
        return None
    if x & 1 != sign:
        x = P - x
    return x, y, 1, x * y % P


def compressed(point: Point) -> bytes:
    """The bytes that stand for a point."""
    x, y, z, _ = point
    inverse = pow(z, -1, P)
    return (y * inverse % P | (x * inverse % P & 1) << 255).to_bytes(32, "little")


def added(one: Point, other: Point) -> Point:
    """The sum of two points."""
    a, b = (one[1] - one[0]) * (other[1] - other[0]) % P, (one[1] + one[0]) * (other[1] + other[0]) % P
    c, d = 2 * one[3] * other[3] * D % P, 2 * one[2] * other[2] % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % P, g * h % P, f * g % P, e * h % P


def times(factor: int, point: Point) -> Point:
    """A point so many times."""
    found = (0, 1, 1, 0)
    while factor:
        if factor & 1:
            found = added(found, point)
        point, factor = added(point, point), factor >> 1
    return found


_BASE = decompressed((4 * pow(5, -1, P) % P).to_bytes(32, "little"))
assert _BASE is not None  # noqa: S101 (a point of the curve)
BASE: Point = _BASE


def main() -> int:
    """Check what the command line names; gives the exit code."""
    parser = argparse.ArgumentParser(description="Check a proof, or the bundle in whose directory this file lies.")
    parser.add_argument("proof", nargs="?", type=Path)
    parser.add_argument("--public-key", required=True, help="the key that signs the seals, in hex")
    parser.add_argument("--payload", type=Path, help="a file with the payload that the entry must have")
    given = parser.parse_args()
    try:
        if given.proof is not None:
            payload = None if given.payload is None else given.payload.read_bytes()
            print(said(check_proof(given.proof.read_bytes(), given.public_key, payload)))  # noqa: T201
        else:
            for line in check_bundle(Path(__file__).parent, given.public_key):
                print(line)  # noqa: T201
    except (Refused, OSError) as error:
        print(f"REFUSED: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
