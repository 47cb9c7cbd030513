"""A bundle of evidence: all about a key that somebody without the database needs to check it himself."""

import io
import json
import zipfile
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

from pgresults.audit import proving
from pgresults.audit.lineage import lineage_in
from pgresults.audit.past import find_version
from pgresults.audit.proofs import Proof
from pgresults.audit.seals import Seal
from pgresults.database.programs import Program, compute
from pgresults.errors import MissingResult
from pgresults.storage.postgres import PostgresStorage

_DAWN = (1980, 1, 1, 0, 0, 0)
"""The time of every file in it, so that the same evidence is the same bytes."""

_README = """Evidence of what pgresults keeps under the key {key!r}.

    python verify.py --public-key KEY

checks it by Python 3.11 or newer alone: that the entries follow each other, up to where they are in what the seal
covers, that each version is, and that the payloads are those that were stored. KEY is the key that signs the seals, in
hex. Ask for it somebody whom you trust: the one in public_key.txt is only what this bundle claims.

history.json      every entry of the key, oldest first
proofs/N.json     that version N was sealed; entry-N.json: that entry N was, the last one that the seal covers
payloads/N.bin    what was stored as version N, as far as it is kept; its serializer is in the entry
seal.json         the seal
lineage.json      from which versions the newest one was computed, and from which these were, as PROV-JSON: what the
                  database said, for history.json alone, with its derived_from, is what was sealed
format.md         what all of it is made of, byte by byte
verify.py         the checker; read it, or write your own from format.md
"""


def evidence(storage: PostgresStorage, key: str, seal: Seal, payloads: bool) -> Program[bytes]:
    """A bundle about a key, as a zip file.

    Parameters:
        storage: where it is.
        key: whose versions, history and proofs.
        seal: that covers them; versions that are newer have no proof.
        payloads: whether to put in what was stored, and by which salt that can be compared.

    Raises: MissingResult for a key that never was, or of which the seal covers nothing; see `ResultStore.prove`.
    """
    entries = yield from proving.history(storage, key)
    proofs = yield from proving.prove_all(storage, key, seal, payloads)
    if not proofs:
        raise MissingResult(f"the seal of {seal.sealed_at} covers nothing of {key!r}: make one", key=key)
    kept: dict[int, bytes] = {}
    for proof in proofs if payloads else ():
        if proof.payload is not None and proof.makes_version:
            version = proof.entry["version"]
            content = yield from _payload(storage, key, version)
            if content is not None:
                kept[version] = content
    parts = [
        *_about(key, seal),
        ("history.json", _json(entries)),
        ("lineage.json", _json((yield from lineage_in(storage, key)).to_prov())),
        *((f"proofs/{_name(proof)}.json", proof.dump_bytes()) for proof in proofs),
        *((f"payloads/{version}.bin", content) for version, content in kept.items()),
    ]
    return (yield from compute(lambda: _zipped(parts), small=False))


def _name(proof: Proof) -> str:
    return f"{proof.entry['version']}" if proof.makes_version else f"entry-{proof.entry['seq']}"


def _payload(storage: PostgresStorage, key: str, version: int) -> Program[bytes | None]:
    """What was stored as a version; None where it went meanwhile."""
    try:
        found = yield from find_version(storage, key, version)
    except MissingResult:
        return None
    return None if found.payload is None else bytes(found.payload)


def _about(key: str, seal: Seal) -> Iterator[tuple[str, bytes]]:
    """What is the same for every proof."""
    yield "README.txt", _README.format(key=key).encode()
    yield "verify.py", (files("pgresults.audit") / "standalone.py").read_bytes()
    yield "format.md", format_document()
    yield "seal.json", seal.dump_bytes()
    yield "public_key.txt", f"{seal.public_key}\n".encode()


def format_document() -> bytes:
    """The page that says what everything is made of: inside an installed package, beside ``src`` in a checkout."""
    installed = Path(str(files("pgresults"))) / "format.md"
    return (installed if installed.is_file() else Path(__file__).parents[3] / "docs" / "format.md").read_bytes()


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=1, ensure_ascii=False).encode() + b"\n"


def _zipped(parts: list[tuple[str, bytes]]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as bundle:
        for name, content in parts:
            described = zipfile.ZipInfo(name, _DAWN)
            described.compress_type, described.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            bundle.writestr(described, content)
    return file.getvalue()
