"""An owner who chains a forged entry well is still found where it says what no server says."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pgresults.audit.seals import Seal
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore
from tests.support.chains import entries, recomputed
from tests.support.sealing import Sql


@pytest.fixture
def storage(sealing_storage: PostgresStorage) -> PostgresStorage:
    return sealing_storage


FORGERIES = {
    "promoted": {"action": "promote"},
    "dated back": {"at": datetime(2001, 1, 1, tzinfo=UTC)},
    "dated ahead": {"at": datetime.now(UTC) + timedelta(days=3)},
    "of a version to come": {"version": 4},
    "of an earlier version": {"version": 2},
    "written without a version": {"action": "write"},
}


@pytest.mark.parametrize("name", FORGERIES)
async def test_what_no_server_says_is_found(
    call: Any, store: ResultStore, sealed: Seal, connection: Any, tamper: Sql, name: str
) -> None:
    """The last entry of a key, with a digest that fits, in the history and in the key's row."""
    (last,) = [entry for entry in entries(connection, store) if (entry["key"], entry["seq"]) == ("k2", 4)]
    forged = {**last, **FORGERIES[name]}
    changes = {**FORGERIES[name], "digest": recomputed(forged)}
    said = ", ".join(f"{column} = %({column})s" for column in changes)
    for table, condition in (("history", " AND seq = 4"), ("result", "")):
        tamper(f"UPDATE pgresults.{table} SET {said} WHERE OF_K2{condition}", **changes)
    findings = (await call(store, "verify")).findings
    assert {finding.keys for finding in findings} == {("k2",)}
    (finding,) = [finding for finding in findings if "no server wrote it so" in finding.message]
    assert (finding.kind, finding.seq) == ("entry", 4)
