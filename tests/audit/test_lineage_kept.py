"""What a version was computed from is kept as it was said: by roles, altered, forged, exported and proven."""

import contextlib
import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import URL

from pgresults.audit.evidence import evidence
from pgresults.audit.seals import Seal
from pgresults.audit.transfer import exported, import_result
from pgresults.database.programs import perform
from pgresults.errors import ConfigurationError
from pgresults.sql.digests import CONTENT_FIELDS, content_digest, framed
from pgresults.sql.grants import Kind
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore
from tests.audit.test_lineage import edges, names
from tests.support.database import psycopg_url
from tests.support.roles import logged_in


def forge(connection: psycopg.Connection[Any], storage: PostgresStorage, key: str, parents: list[str]) -> None:
    for table in ("result", "history"):
        connection.execute(f"ALTER TABLE pgresults.{table} DISABLE TRIGGER USER")
        connection.execute(
            f"UPDATE pgresults.{table} SET derived_from = %s WHERE storage_id = %s AND key = %s",
            [parents, storage.id, key],
        )
        connection.execute(f"ALTER TABLE pgresults.{table} ENABLE TRIGGER USER")
    connection.execute("ALTER TABLE pgresults.history ENABLE ALWAYS TRIGGER append_only")
    connection.execute("ALTER TABLE pgresults.history ENABLE ALWAYS TRIGGER kept")


def test_a_forged_circle_ends(fresh_url: URL) -> None:
    storage = PostgresStorage(fresh_url)
    store = ResultStore(result_storage=storage)
    store.write_many({"a": 1, "b": 2, "c": 3})
    with psycopg.connect(psycopg_url(fresh_url), autocommit=True) as connection:
        for key, parents in (("a", ["1:b", "1:a"]), ("b", ["1:c"]), ("c", ["1:a"])):
            forge(connection, storage, key, parents)
        assert connection.execute("SELECT count(*) FROM pgresults.lineage").fetchone() == (4,)
    for direction in ("up", "down"):
        assert len(store.lineage("a", direction=direction).versions) == 3  # type: ignore[arg-type]
        assert len(store.lineage("a", direction=direction, depth=50).versions) == 3  # type: ignore[arg-type]
    assert {finding.kind for finding in store.verify().findings} == {"entry"}
    assert {finding.keys for finding in store.verify().findings} == {("a",), ("b",), ("c",)}
    assert store.invalidate(prefix="a", downstream=True) == 3
    storage.close()


@pytest.mark.parametrize("parents", [["1:other"], None])
def test_an_altered_lineage_is_found(fresh_url: URL, parents: Any) -> None:
    storage = PostgresStorage(fresh_url)
    store = ResultStore(result_storage=storage)
    store.write_many({"a": 1, "other": 2})
    store.write(3, key="b", derived_from=[("a", 1)])
    assert store.verify().intact
    with psycopg.connect(psycopg_url(fresh_url), autocommit=True) as connection:
        forge(connection, storage, "b", parents)
        assert [(one.kind, one.keys) for one in store.verify().findings] == [("entry", ("b",))]
        forge(connection, storage, "b", ["1:a"])
        assert store.verify().intact
        connection.execute("ALTER TABLE pgresults.result DISABLE TRIGGER USER")
        connection.execute("UPDATE pgresults.result SET derived_from = %s WHERE key = 'b'", [parents])
        connection.execute("ALTER TABLE pgresults.result ENABLE TRIGGER USER")
        assert [(one.kind, one.keys) for one in store.verify().findings] == [("head", ("b",))]
    storage.close()


def test_who_has_no_parents_has_the_digest_of_old() -> None:
    import hashlib

    said = {"action": "write", "actor": "a", "size": 1, "tags": ["t"]}
    assert content_digest(said) == hashlib.sha256(framed(said, CONTENT_FIELDS)).digest()
    assert content_digest({**said, "derived_from": None}) == content_digest(said)
    assert content_digest({**said, "derived_from": []}) != content_digest(said)
    assert content_digest({**said, "derived_from": ["1:a"]}) != content_digest({**said, "derived_from": ["1:b"]})


# Who may


@pytest.fixture(scope="module")
def roles(create_database: Any) -> Iterator[dict[str, Any]]:
    url = create_database()
    storage = PostgresStorage(url)
    store = ResultStore(result_storage=storage)
    store.write(1, key="a")
    store.write(2, key="b", derived_from=[("a", 1)])
    with contextlib.ExitStack() as stack:
        kinds = (Kind.READER, Kind.WRITER, Kind.AUDITOR, Kind.HISTORIAN)
        yield {kind.value: stack.enter_context(logged_in(url, kind)) for kind in kinds} | {"id": storage.id}
    storage.close()


def test_who_sees_no_history_sees_no_lineage(roles: dict[str, Any]) -> None:
    for kind in ("reader", "writer", "auditor", "historian"):
        with (
            contextlib.closing(PostgresStorage(roles[kind])) as storage,
            psycopg.connect(psycopg_url(roles[kind]), autocommit=True) as connection,
        ):
            store, asked = ResultStore(result_storage=storage), "SELECT key, parent_key FROM pgresults.lineage"
            if kind == "reader":
                with pytest.raises(ConfigurationError):
                    store.lineage("b")
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(asked)
            else:
                assert names(store.lineage("b")) == [("b", 1, 0), ("a", 1, 1)]
                assert ("b", "a") in connection.execute(asked).fetchall()


@pytest.mark.parametrize(
    "parents", [["2:a"], ["1:nothing"], ["0:a"], ["x"], [None], ["1:b"], [":a"], ["-1:a"], ["1@x:a"], ["2:b"]]
)
def test_no_writer_forges_a_parent_that_never_was(roles: dict[str, Any], parents: Any) -> None:
    version = (
        "UPDATE pgresults.result SET derived_from = %s, version = version + 1, seq = seq + 1, previous = digest, "
        "digest = sha256('x'), payload_id = gen_random_uuid(), db_user = session_user, action = 'write', "
        "at = greatest(statement_timestamp(), at + interval '1 microsecond'), "
        "created_at = greatest(statement_timestamp(), at + interval '1 microsecond') WHERE key = 'b'"
    )
    touched = (
        "UPDATE pgresults.result SET derived_from = %s, seq = seq + 1, previous = digest, digest = sha256('x'), "
        "db_user = session_user, action = 'break', at = greatest(statement_timestamp(), at + interval '1 microsecond') "
        "WHERE key = 'b'"
    )
    with psycopg.connect(psycopg_url(roles["writer"])) as connection:
        if parents != ["1:b"]:  # that is the version before: a claim like any other
            with pytest.raises(psycopg.Error), connection.transaction():
                connection.execute(version, [parents])
        with pytest.raises(psycopg.Error), connection.transaction():
            connection.execute(touched, [parents])
        with pytest.raises(psycopg.errors.InsufficientPrivilege), connection.transaction():
            connection.execute(touched, [None])
        connection.rollback()


# To others


def test_the_view_has_an_edge_a_row(store: ResultStore, connection: psycopg.Connection[Any]) -> None:
    for key, parents in (("a", []), ("b", [("a", 1)]), ("c", [("a", 1), ("b", 1)])):
        store.write(1, key=key, derived_from=parents)
    store.touch("c", None)
    place = "storage_id = {}".format(f"'{store.result_storage.id}'")  # type: ignore[union-attr]
    asked = f"SELECT key, version, parent_key, parent_version FROM pgresults.lineage WHERE {place}"
    assert set(connection.execute(asked).fetchall()) == {("b", 1, "a", 1), ("c", 1, "a", 1), ("c", 1, "b", 1)}
    down = connection.execute(f"{asked} AND derived_from @> ARRAY['1:a'] AND parent_key = 'a'").fetchall()
    assert {row[0] for row in down} == {"b", "c"}


def test_evidence_and_proofs_have_it(sealing_storage: PostgresStorage, tmp_path: Any) -> None:
    import io
    import subprocess
    import sys
    import zipfile

    store = ResultStore(result_storage=sealing_storage)
    store.write(1, key="a")
    made = store.write(2, key="b", derived_from=[("a", 1)])
    while (seal := store.seal()).until < (made.created_at or seal.until) or seal.entries < 2:
        pass
    proof = store.prove("b", seal=seal)
    assert proof.entry["derived_from"] == ["1:a"]
    assert "derived_from" not in store.prove("a", seal=seal).entry
    proof.check(seal.public_key)
    with zipfile.ZipFile(io.BytesIO(perform(evidence(sealing_storage, "b", seal, True)))) as bundle:
        bundle.extractall(tmp_path)
    assert json.loads((tmp_path / "history.json").read_text())[0]["derived_from"] == ["1:a"]
    derivations = json.loads((tmp_path / "lineage.json").read_text())["wasDerivedFrom"].values()
    assert [(one["prov:generatedEntity"][-3:], one["prov:usedEntity"][-3:]) for one in derivations] == [("b/1", "a/1")]
    command = [sys.executable, tmp_path / "verify.py", "--public-key", seal.public_key]
    assert subprocess.run(command, check=False, capture_output=True).returncode == 0
    forged = (tmp_path / "proofs" / "1.json").read_text().replace('"1:a"', '"1:c"')
    (tmp_path / "proofs" / "1.json").write_text(forged)
    assert subprocess.run(command, check=False, capture_output=True).returncode == 1
    assert isinstance(seal, Seal)


def test_an_export_carries_it(store: ResultStore, shared_url: URL) -> None:
    store.write(1, key="a")
    store.write(2, key="b", derived_from=[("a", 1)])
    a, b = exported(store.result_storage)  # type: ignore[arg-type]
    assert (a.derived_from, b.derived_from) == (None, ["1:a"])
    assert b"derived_from" not in a.signed_bytes()
    assert b"derived_from" in b.signed_bytes()
    with contextlib.closing(PostgresStorage(shared_url, name=f"test-{uuid4().hex}")) as other:
        assert import_result(other, b)
        there = ResultStore(result_storage=other)
        assert there.read("b").metadata.provenance["imported"]["derived_from"] == ["1:a"]  # type: ignore[index]
        assert edges(there.lineage("b")) == set()
        assert there.verify().intact


def test_lineages_are_said_in_the_words_of_others(store: ResultStore) -> None:
    store.write(1, key="ä/1 2")
    store.write(2, key="b", derived_from=[("ä/1 2", 1)], expires_in=timedelta(days=1))
    found = store.lineage("b")
    require_prov(found.to_prov())
    for event in found.to_openlineage():
        require_run_event(event)
    first, second = found.to_openlineage()
    assert (first["inputs"], second["inputs"]) == ([], first["outputs"])
    json.dumps([found.to_prov(), found.to_openlineage()])


RELATIONS = {
    "wasGeneratedBy": {"prov:entity": "entity", "prov:activity": "activity"},
    "used": {"prov:activity": "activity", "prov:entity": "entity"},
    "wasDerivedFrom": {"prov:generatedEntity": "entity", "prov:usedEntity": "entity", "prov:activity": "activity"},
    "wasAssociatedWith": {"prov:activity": "activity", "prov:agent": "agent"},
    "wasAttributedTo": {"prov:entity": "entity", "prov:agent": "agent"},
}


def require_prov(document: dict[str, Any]) -> None:
    """As PROV-JSON has it: no other members, names with a declared prefix, and each that is used is described."""
    assert document.keys() == {"prefix", "entity", "activity", "agent", *RELATIONS}
    described = [name for kind in ("entity", "activity", "agent") for name in document[kind]]
    assert all(name.partition(":")[0] in document["prefix"] and " " not in name for name in described)
    attributes = {name for kind in ("entity", "activity", "agent") for said in document[kind].values() for name in said}
    assert all(name.partition(":")[0] in {"prov", *document["prefix"]} for name in attributes)
    for kind, ends in RELATIONS.items():
        for said in document[kind].values():
            assert said.keys() - {"prov:time"} == ends.keys()
            assert all(said[name] in document[of] for name, of in ends.items())


def require_run_event(event: dict[str, Any]) -> None:
    """As the schema of OpenLineage has a run event."""
    from datetime import datetime
    from urllib.parse import urlsplit
    from uuid import UUID

    assert event["eventType"] in ("START", "RUNNING", "COMPLETE", "ABORT", "FAIL", "OTHER")
    assert datetime.fromisoformat(event["eventTime"]).tzinfo is not None
    assert all(urlsplit(event[name]).scheme for name in ("producer", "schemaURL"))
    assert str(UUID(event["run"]["runId"])) == event["run"]["runId"]
    assert event["job"].keys() >= {"namespace", "name"}
    for dataset in (*event["inputs"], *event["outputs"]):
        assert dataset["namespace"]
        assert dataset["name"]
        for facet in dataset["facets"].values():
            assert all(urlsplit(facet[name]).scheme for name in ("_producer", "_schemaURL"))
