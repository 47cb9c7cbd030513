"""Proofs: they hold without the database, for two implementations, and who changes one is told what does not hold."""

import copy
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from pgresults.audit import standalone
from pgresults.audit.merkle import MerkleTree, WholeTree
from pgresults.audit.proofs import Proof
from pgresults.audit.seals import FORMAT, Seal, Tree, root_of, sign
from pgresults.errors import IntegrityError, MissingResult
from pgresults.serializers import JSONSerializer
from pgresults.settings import Settings
from pgresults.sql.digests import CONTENT_FIELDS, LATER_FIELDS, canonical_json
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore
from tests.docs.test_format import PAGE, VALUES
from tests.support.sealing import TOMORROW, Sql, seal_over

ODD = {"ä\n\x1f": ["\u2028", 1.50, 1e22, -0.0, 10**30, None, True], "n": {"a": 5e-324}}


@pytest.fixture
def storage(sealing_storage: PostgresStorage) -> PostgresStorage:
    return sealing_storage


@pytest.fixture(scope="module")
def made(create_database: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ResultStore, Seal]]:
    """A store with entries of every kind in few buckets, and a seal over it."""
    settings = Settings(
        seal_key=tmp_path_factory.mktemp("keys") / "seal.pem", signing_key=SecretStr("a key that signs payloads")
    )
    storage = PostgresStorage(create_database(), settings=settings)
    store = ResultStore(result_storage=storage, serializer=JSONSerializer())
    store.write_many({f"many/{n}": n for n in range(40)})
    for n in range(20):
        parents = [("mäy", n), (f"many/{n}", 1)] if n else None
        described = {"tags": ["a", 'b"'], "provenance": {"odd": ODD}, "expiration": TOMORROW}
        store.write([n], key="mäy", derived_from=parents, **described)
    yield store, seal_over(store, 60)
    storage.close()


@pytest.fixture(scope="module")
def proof(made: tuple[ResultStore, Seal]) -> dict[str, Any]:
    store, seal = made
    return json.loads(store.prove("mäy", version=7, seal=seal).dump_bytes())  # type: ignore[no-any-return]


def as_file(proof: Any) -> bytes:
    return json.dumps(proof).encode()


def refuse(proof: Any, public_key: str, payload: bytes | None = None) -> str:
    """Both implementations refuse it; gives what ours says."""
    with pytest.raises(Exception):  # noqa: B017, PT011 (the page's says no more)
        PAGE["require_proven"](proof, public_key, payload)
    with pytest.raises(standalone.Refused) as refused:
        standalone.check_proof(as_file(proof), public_key, payload)
    return str(refused.value)


async def test_every_version_is_proven_without_the_database(
    call: Any, made: tuple[ResultStore, Seal], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, seal = made
    proofs = [await call(store, "prove", "mäy", version, seal=seal) for version in (1, 20)]
    proofs += [await call(store, "prove", f"many/{n}", seal=seal) for n in (0, 39)]
    monkeypatch.setattr("psycopg.connect", None)
    for proof in proofs:
        proof.check(seal.public_key)
        PAGE["require_proven"](json.loads(proof.dump_bytes()), seal.public_key)
        assert Proof.load_bytes(proof.dump_bytes()) == proof
        assert len(proof.dump_bytes()) < 5000
    assert proofs[1].path["entries"] >= 20


def test_a_payload_is_the_one_that_was_stored(made: tuple[ResultStore, Seal], proof: dict[str, Any]) -> None:
    store, seal = made
    payload = JSONSerializer().dumps([6])
    standalone.check_proof(as_file(proof), seal.public_key, payload)
    PAGE["require_proven"](proof, seal.public_key, payload)
    assert "another one" in refuse(proof, seal.public_key, payload + b" ")
    held_back = store.prove("mäy", 7, seal=seal, salt=False)
    held_back.check(seal.public_key)
    assert held_back.payload is None
    with pytest.raises(IntegrityError, match="salt"):
        held_back.check(seal.public_key, payload)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where something stands in a proof."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, item in items:
        yield (*path, name)
        yield from places(item, (*path, name))


def at(proof: Any, path: tuple[Any, ...]) -> Any:
    for name in path:
        proof = proof[name]
    return proof


OTHERS = st.one_of(
    VALUES,
    st.just("\0"),
    st.just({"\0": "1.5"}),
    st.just("\ud800"),
    st.text("0123456789abcdef", min_size=64, max_size=64),
    st.integers(-(2**70), 2**70),
    st.floats(),
)


def same(one: Any, other: Any) -> bool:
    """Whether two values say the same."""
    try:
        return type(one) is type(other) and canonical_json(one) == canonical_json(other)
    except (TypeError, ValueError, ArithmeticError):
        return False


@given(st.data())
def test_whatever_is_altered_dropped_or_swapped_is_refused(
    made: tuple[ResultStore, Seal], proof: dict[str, Any], data: st.DataObject
) -> None:
    known = list(places(proof))
    forged = copy.deepcopy(proof)
    place = data.draw(st.sampled_from(known))
    parent, name, before = at(forged, place[:-1]), place[-1], at(forged, place)
    match data.draw(st.sampled_from(["alter", "nudge", "drop", "swap", "add"])):
        case "alter":
            parent[name] = data.draw(OTHERS)
        case "nudge" if isinstance(before, str) and before:
            index = data.draw(st.integers(0, len(before) - 1))
            parent[name] = before[:index] + data.draw(st.characters()) + before[index + 1 :]
        case "nudge" if isinstance(before, int):
            parent[name] = before + data.draw(st.sampled_from([-1, 1, 2**40]))
        case "swap":
            other = data.draw(st.sampled_from(known))
            if other[: len(place)] == place or place[: len(other)] == other:
                return
            at(forged, other[:-1])[other[-1]], parent[name] = before, at(forged, other)
        case "add" if isinstance(parent, dict):
            parent[data.draw(st.text(min_size=1))] = data.draw(VALUES)
        case "add":
            parent.insert(name, data.draw(VALUES))
        case _:
            del parent[name]
    # What was held back is no lie; a number that is written in another way is the same one.
    if not same(forged, proof) and forged != {**proof, "payload": None}:
        refuse(forged, made[1].public_key)


@given(st.data())
def test_a_file_that_is_damaged_is_refused(
    made: tuple[ResultStore, Seal], proof: dict[str, Any], data: st.DataObject
) -> None:
    content = as_file(proof)
    index = data.draw(st.integers(0, len(content) - 1))
    damaged = content[:index] + data.draw(st.binary(max_size=3)) + content[index + data.draw(st.integers(0, 5)) :]
    try:
        changed = not same(json.loads(damaged), proof)
    except (ValueError, RecursionError):
        changed = True
    if changed:
        with pytest.raises(standalone.Refused):
            standalone.check_proof(damaged, made[1].public_key)


@pytest.mark.parametrize(
    "content",
    [b"", b"null", b"7", b"[]", b"{}", b"\xff", b"[" * 100_000, b'{"format":NaN}', b"9" * 10_000, b'{"a":1,"a":1}'],
)
def test_what_is_no_proof_is_refused(content: bytes) -> None:
    with pytest.raises(standalone.Refused):
        standalone.check_proof(content, "00" * 32)
    with pytest.raises(IntegrityError):
        Proof.load_bytes(content)


def test_a_name_that_is_there_twice_is_refused(made: tuple[ResultStore, Seal], proof: dict[str, Any]) -> None:
    twice = as_file(proof).replace(b'"actor":', b'"actor": "somebody else", "actor":', 1)
    assert json.loads(twice) == proof
    with pytest.raises(standalone.Refused, match="twice"):
        standalone.check_proof(twice, made[1].public_key)


def test_another_entry_has_another_path(made: tuple[ResultStore, Seal], proof: dict[str, Any]) -> None:
    store, seal = made
    other = json.loads(store.prove("mäy", 8, seal=seal).dump_bytes())
    forged = {**proof, "path": other["path"]}
    assert "does not lead" in refuse(forged, seal.public_key)
    assert "another key" in refuse(proof, "07" * 32)


def test_what_a_seal_does_not_cover_is_not_proven(store: ResultStore, sealed: Seal) -> None:
    store.write("later", key="k2")
    with pytest.raises(MissingResult, match="newer than the seal"):
        store.prove("k2", seal=sealed)
    store.prove("k2", version=3, seal=sealed).check(sealed.public_key)
    with pytest.raises(MissingResult, match="version 9"):
        store.prove("k2", version=9, seal=sealed)
    with pytest.raises(MissingResult):
        store.prove("never", seal=sealed)


def test_what_was_erased_is_still_proven_without_its_payload(store: ResultStore, sealed: Seal) -> None:
    store.redact("k2", reason="asked to")
    proof = store.prove("k2", seal=sealed)
    proof.check(sealed.public_key)
    assert proof.payload is None


@pytest.mark.parametrize("which", ["seq = 2", "seq = 3"], ids=["another", "this one"])
def test_a_tampered_chain_is_not_proven(store: ResultStore, sealed: Seal, tamper: Sql, which: str) -> None:
    proof = store.prove("k2", version=3, seal=sealed)
    tamper(f"UPDATE pgresults.history SET actor = 'nobody', digest = sha256(digest) WHERE OF_K2 AND {which}")
    with pytest.raises(IntegrityError, match="verify"):
        store.prove("k2", version=3, seal=sealed)
    proof.check(sealed.public_key)  # it was handed on before


def of_format_1(store: ResultStore, sealed: Seal) -> Seal:
    """The seal that an earlier release would have made."""
    tree = Tree(sealed.depth, 1)
    for key in ("k1", "k2", "k3"):
        for leaf in PAST[store.result_storage.id][key]:
            tree.add(store.result_storage.id, leaf)
    buckets = tree.buckets()
    unsigned = {"format": 1, "buckets": buckets, "root": root_of(1, buckets, sealed.depth)}
    return sign(sealed.model_copy(update=unsigned), store.result_storage.settings.seal_key_file)


PAST: dict[Any, Any] = {}


async def test_a_seal_of_an_earlier_release_still_verifies(
    call: Any, store: ResultStore, sealed: Seal, tamper: Sql
) -> None:
    from pgresults.operations.verify import Leaf

    PAST[store.result_storage.id] = {
        key: [Leaf(key, one.seq, bytes.fromhex(one.digest), one.at) for one in store.history(key)]
        for key in ("k1", "k2", "k3")
    }
    old = of_format_1(store, sealed)
    earlier = ("format", "previous", "endorsements", "timestamps")
    kept = json.dumps({name: value for name, value in json.loads(old.dump_bytes()).items() if name not in earlier})
    loaded = Seal.load_bytes(kept.encode())
    assert (loaded.format, FORMAT) == (1, 2)
    assert (await call(store, "verify", against=loaded)).intact
    with pytest.raises(IntegrityError, match="format 1"):
        await call(store, "prove", "k2", seal=loaded)
    with pytest.raises(IntegrityError, match="altered"):
        await call(store, "verify", against=loaded.model_copy(update={"format": 2}))
    tamper("UPDATE pgresults.history SET digest = sha256(digest) WHERE OF_K2 AND seq = 2")
    assert {finding.kind for finding in (await call(store, "verify", against=loaded)).findings} >= {"seal"}


@given(st.integers(1, 70), st.data())
def test_a_path_leads_from_every_leaf_to_the_root(size: int, data: st.DataObject) -> None:
    leaves = [bytes([n]) for n in range(size)]
    index = data.draw(st.integers(0, size - 1))
    grown, whole = MerkleTree(), WholeTree()
    for leaf in leaves:
        grown.add(leaf)
        whole.add(leaf)
    assert grown.root() == whole.root() == PAGE["tree"](leaves)
    found = whole.path(leaves[index])
    assert found is not None
    assert (found[0], len(found[1]) <= size.bit_length()) == (index, True)
    assert whole.path(b"none") is None


def test_the_checker_of_one_file_knows_what_we_know() -> None:
    assert (standalone.CONTENT, standalone.LATER) == (CONTENT_FIELDS, LATER_FIELDS)
    assert set(standalone.SEAL) == set(Seal.model_fields) - {"buckets", "timestamps"}


@given(VALUES)
def test_the_checker_of_one_file_writes_json_as_we_do(value: Any) -> None:
    assert standalone.canonical(value) == canonical_json(value)


@given(st.binary(max_size=200), st.integers(0, 63), st.integers(1, 255))
def test_the_checker_of_one_file_checks_signatures(message: bytes, index: int, change: int) -> None:
    key = Ed25519PrivateKey.generate()
    public_key, signature = key.public_key().public_bytes_raw(), key.sign(message)
    assert standalone.is_signed(public_key, signature, message)
    assert not standalone.is_signed(public_key, signature, message + b"x")
    forged = bytearray(signature)
    forged[index] ^= change
    assert not standalone.is_signed(public_key, bytes(forged), message)
    larger = int.from_bytes(signature[32:], "little") + standalone.L
    assert not standalone.is_signed(public_key, signature[:32] + larger.to_bytes(32, "little"), message)


def test_the_checker_needs_python_alone(made: tuple[ResultStore, Seal], proof: dict[str, Any], tmp_path: Path) -> None:
    checker = Path(standalone.__file__).read_text()
    (tmp_path / "verify.py").write_text(checker)
    (tmp_path / "proof.json").write_bytes(as_file(proof))
    command = [sys.executable, "-I", "-S", "verify.py", "proof.json", "--public-key"]
    done = subprocess.run([*command, made[1].public_key], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "write of 'mäy', version 7" in done.stdout
    done = subprocess.run([*command, "07" * 32], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("REFUSED: ")
