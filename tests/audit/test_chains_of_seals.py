"""Seals that continue one another, by keys that follow one another, with the time stamps of others."""

import base64
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pgresults.audit import signing
from pgresults.audit.seals import Seal, sign
from pgresults.audit.timestamps import attach, stamps
from pgresults.errors import ConfigurationError, IntegrityError
from pgresults.settings import Settings
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore
from tests.docs.test_format import PAGE
from tests.support.sealing import Sql

HIDE = "UPDATE pgresults.history SET digest = sha256(digest) WHERE OF_K2 AND seq = 2"


@pytest.fixture
def storage(sealing_storage: PostgresStorage) -> PostgresStorage:
    return sealing_storage


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    return tmp_path / "keys" / "seal.pem"


def next_seal(store: ResultStore, previous: Seal, entries: int) -> Seal:
    """A seal that continues another, over so many entries."""
    while (seal := store.seal(previous=previous)).entries < entries:
        pass
    return seal


@pytest.fixture
def chain(store: ResultStore, sealed: Seal) -> list[Seal]:
    """Three seals, each over one entry more."""
    store.write("5", key="k2")
    second = next_seal(store, sealed, sealed.entries + 1)
    store.write("6", key="k4")
    return [sealed, second, next_seal(store, second, sealed.entries + 2)]


async def test_seals_that_continue_one_another_are_a_chain(call: Any, store: ResultStore, chain: list[Seal]) -> None:
    report = await call(store, "verify", chain=reversed(chain))
    assert report.intact, report.findings
    assert report.chain == tuple(seal.sealed_at for seal in chain)
    assert [seal.previous for seal in chain] == [None, chain[0].digest, chain[1].digest]


async def test_a_seal_that_is_left_out_of_a_chain_is_missed(call: Any, store: ResultStore, chain: list[Seal]) -> None:
    (finding,) = (await call(store, "verify", chain=[chain[0], chain[2]])).findings
    assert (finding.kind, "does not name the one before it" in finding.message) == ("seal", True)
    forged = chain[1].model_copy(update={"previous": None})
    with pytest.raises(IntegrityError, match="altered"):
        await call(store, "verify", chain=[chain[0], forged, chain[2]])


async def test_an_alteration_is_told_by_the_first_seal_that_has_it(
    call: Any, store: ResultStore, chain: list[Seal], tamper: Sql
) -> None:
    tamper(HIDE)
    found = [one for one in (await call(store, "verify", chain=chain)).findings if one.kind == "seal"]
    assert [f"seal of {chain[0].sealed_at}" in one.message for one in found] == [True]
    assert "k2" in found[0].keys


async def test_no_seal_continues_one_whose_entries_are_gone(
    call: Any, store: ResultStore, chain: list[Seal], tamper: Sql
) -> None:
    tamper(HIDE)
    with pytest.raises(IntegrityError, match="no seal continues"):
        await call(store, "seal", previous=chain[1])
    assert (await call(store, "seal")).previous is None


def test_a_later_seal_must_cover_what_the_earlier_one_does(
    store: ResultStore, chain: list[Seal], key_file: Path
) -> None:
    short = chain[0].model_copy(update={"sealed_at": chain[1].sealed_at, "previous": chain[1].digest})
    findings = store.verify(chain=[chain[1], sign(short, key_file)]).findings
    assert ["1 entries" in one.message and "not covered" in one.message for one in findings] == [True]


async def test_a_key_that_follows_another_is_endorsed(
    call: Any, store: ResultStore, chain: list[Seal], key_file: Path
) -> None:
    keys = [chain[0].public_key]
    for _ in range(2):
        old, new = signing.rotate(key_file)
        assert old == keys[-1]
        keys.append(new)
    after = next_seal(store, chain[-1], chain[-1].entries)
    assert (after.public_key, [one.by for one in after.endorsements]) == (keys[2], keys[:2])
    for seal in (chain[0], after):
        assert (await call(store, "verify", against=seal)).intact
    assert (await call(store, "verify", chain=[*chain, after])).intact
    PAGE["require_genuine"](after.model_dump(mode="json"), keys[0])
    proof = store.prove("k2", seal=after)
    for key in keys:
        proof.check(key)
    for key in keys:  # wherever the trust begins
        settings = Settings(seal_key=key_file.with_name("none"), seal_public_key=key)
        other = PostgresStorage(store.result_storage.database.url(), store.result_storage.name, settings=settings)
        report = await call(ResultStore(result_storage=other), "verify", chain=[*chain, after])
        other.close()
        assert report.intact, report.findings


FORGED = {
    "another key's word": {"by": "07" * 32},
    "for another key": {"key": "07" * 32},
    "signature": {"signature": "00" * 64},
    "no hex": {"signature": "x"},
}


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_endorsement_is_refused(store: ResultStore, sealed: Seal, key_file: Path, name: str) -> None:
    trusted = sealed.public_key
    signing.rotate(key_file)
    seal = store.seal()
    endorsement = seal.endorsements[0].model_copy(update=FORGED[name])
    forger = key_file.with_name("forger.pem")
    forged = sign(seal.model_copy(update={"bound": 2**62}), forger)
    key = signing.SigningKey(forger)
    forged = forged.model_copy(update={"endorsements": (endorsement.model_copy(update={"key": key.public_key}),)})
    forged = forged.model_copy(update={"signature": key.sign(forged.signed_bytes())})
    settings = Settings(seal_key=key_file.with_name("none"), seal_public_key=trusted)
    other = PostgresStorage(store.result_storage.database.url(), store.result_storage.name, settings=settings)
    for one in (forged, seal.model_copy(update={"endorsements": (endorsement,)})):
        with pytest.raises(IntegrityError):
            ResultStore(result_storage=other).verify(against=one)
        with pytest.raises(IntegrityError):
            ResultStore(result_storage=other).verify(chain=[one])
    other.close()


def test_a_chain_goes_on_with_no_key_that_was_not_endorsed(
    store: ResultStore, chain: list[Seal], key_file: Path
) -> None:
    forged = sign(chain[2], key_file.with_name("forger.pem"))
    (finding,) = store.verify(chain=[*chain[:2], forged]).findings
    assert "not endorsed" in finding.message


def test_a_rotation_that_was_interrupted_leaves_the_old_key(
    store: ResultStore, sealed: Seal, key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def replace(self: Path, target: Path) -> Path:
        if self.name == "seal.pem.new":
            raise OSError(28, "No space left on device", str(self))
        return original(self, target)

    original = Path.replace
    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", replace)
        with pytest.raises(ConfigurationError):
            signing.rotate(key_file)
    again = store.seal()
    assert (again.public_key, again.endorsements) == (sealed.public_key, ())
    signing.rotate(key_file)
    assert key_file.stat().st_mode & 0o777 == 0o600
    assert [one.by for one in store.seal().endorsements] == [sealed.public_key]


def test_there_is_nothing_to_follow_without_a_key(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError):
        signing.rotate(tmp_path / "seal.pem")
    assert list(tmp_path.iterdir()) == []


AUTHORITY = """
[tsa]
serial = {0}/serial
signer_cert = {0}/tsa.pem
signer_key = {0}/tsa.key
signer_digest = sha256
default_policy = 1.2.3.4
digests = sha256, sha512
accuracy = secs:1
ess_cert_id_alg = sha256
"""


class Authority:
    """Stamps what it is asked to, with a root of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir()
        (directory / "serial").write_text("01\n")
        (directory / "tsa.cnf").write_text(AUTHORITY.format(directory))
        (directory / "usage").write_text("extendedKeyUsage=critical,timeStamping\nkeyUsage=critical,digitalSignature\n")
        self._run("req -x509 -newkey rsa:2048 -nodes -keyout root.key -out root.pem -days 9 -subj /CN=root")
        self._run("req -newkey rsa:2048 -nodes -keyout tsa.key -out tsa.csr -subj /CN=tsa")
        self._run("x509 -req -in tsa.csr -CA root.pem -CAkey root.key -CAcreateserial -out tsa.pem -extfile usage")
        self.root = (directory / "root.pem").read_bytes()

    def stamp(self, digest: str, kind: str = "sha256") -> bytes:
        self._run(f"ts -query -digest {digest} -{kind} -cert -out query")
        self._run("ts -reply -queryfile query -config tsa.cnf -section tsa -out reply")
        return (self.directory / "reply").read_bytes()

    def _run(self, command: str) -> None:
        subprocess.run(["openssl", *command.split()], cwd=self.directory, check=True, capture_output=True)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    if shutil.which("openssl") is None:
        pytest.skip("no openssl that could stamp")
    return Authority(tmp_path_factory.mktemp("authorities") / "one")


def test_a_time_stamp_is_attached_and_checked(
    store: ResultStore, sealed: Seal, authority: Authority, tmp_path: Path
) -> None:
    response = authority.stamp(sealed.digest)
    stamped = attach(sealed, response, [authority.root])
    assert attach(stamped, response, []) == stamped
    assert Seal.load_bytes(stamped.dump_bytes()) == stamped
    (at,) = stamps(stamped, [authority.root])
    assert abs((at - sealed.sealed_at).total_seconds()) < 3600
    assert stamped.digest == sealed.digest
    assert store.verify(against=stamped).intact
    other = Authority(tmp_path / "other")
    for seal, given, roots in (
        (stamped.model_copy(update={"bound": 7}), response, [authority.root]),
        (sealed, response, [other.root]),
        (sealed, b"nothing", []),
        (sealed, response[:-40], [authority.root]),
        (sealed, authority.stamp("00" * 64, "sha512"), [authority.root]),
    ):
        with pytest.raises(IntegrityError):
            attach(seal, given, roots)
    middle = len(response) // 2
    forged = response[:middle] + bytes([response[middle] ^ 1]) + response[middle + 1 :]
    with pytest.raises(IntegrityError):
        attach(sealed, forged, [authority.root])
    damaged = sealed.model_copy(update={"timestamps": ("?", base64.b64encode(response).decode())})
    with pytest.raises(IntegrityError):
        stamps(damaged, [authority.root])
    with pytest.raises(ConfigurationError, match="PEM"):
        attach(sealed, response, [b"nothing"])
