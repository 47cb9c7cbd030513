"""``pgresults redact --certificate`` and ``check-proof``: what is erased others see without a database."""

from pathlib import Path

import pytest

from pgresults.audit.certificates import Certificate
from pgresults.store import ResultStore
from tests.support.cli import Cli, succeeded


def test_what_is_erased_is_certified_and_checked(
    cli: Cli, store: ResultStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGRESULTS_SEAL_KEY", str(tmp_path / "seal.pem"))
    for number in range(2):
        store.write(number, key="7/a", tags=["subject 7"])
    store.write(1, key="7/b", tags=["subject 7"])
    file = tmp_path / "certificate.json"
    redact = ("redact", "--reason", "asked to", "--yes")
    for wrong in ((), ("k", "--prefix", "7/"), ("--prefix", "7/"), ("k", "--log-until", "in 3 days")):
        assert cli(*redact, *wrong).exit_code == 2
    assert cli(*redact, "7/a", "--certificate", str(file), "--force").exit_code == 2
    assert store.exists("7/a")
    said = succeeded(cli(*redact, "--tag", "subject 7", "--certificate", str(file), "--log-until", "in 3 days"))
    assert "2 keys erased" in said
    key = Certificate.load_bytes(file.read_bytes()).public_key
    checked = succeeded(cli("check-proof", str(file), "--public-key", key))
    assert checked.startswith("3 versions of 2 keys were erased from")
    assert "backups may have them until a time that nobody said" in " ".join(checked.split())
    assert cli("check-proof", str(file), "--public-key", key, "--payload", str(file)).exit_code == 2
    file.write_text(file.read_text().replace("asked to", "asked by"))
    refused = cli("check-proof", str(file), "--public-key", key)
    assert refused.exit_code == 1
    assert "the certificate does not hold" in refused.output
