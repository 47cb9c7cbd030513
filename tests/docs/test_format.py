"""The page on the digests' form is enough to verify by: its verifier agrees with ours, whatever is in the history."""

import json
import math
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from cryptography.exceptions import InvalidSignature
from hypothesis import given
from hypothesis import strategies as st
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb
from pydantic import SecretStr
from sqlalchemy import URL

from pgresults.audit.seals import Seal
from pgresults.serializers import JSONSerializer
from pgresults.settings import Settings
from pgresults.sql.digests import CONTENT_FIELDS, LATER_FIELDS, canonical_json
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore
from tests.support.database import psycopg_url
from tests.support.documents import ROOT, parse

PAGE: dict[str, Any] = {}
exec(parse(Path(ROOT, "docs", "format.md").read_text())[0].text, PAGE)

TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)))
NUMBERS = st.integers(-(10**30), 10**30) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


@given(VALUES)
def test_json_has_one_form(value: Any) -> None:
    assert PAGE["canonical"](value) == canonical_json(value)


@given(st.floats(allow_nan=False, allow_infinity=False) | st.decimals(-1000, 1000, places=9).map(float))
def test_numbers_are_written_as_the_page_says(value: float) -> None:
    assert PAGE["canonical"](value) == canonical_json(value)
    assert math.isclose(float(PAGE["numbered"](value)["\0"]), value, rel_tol=0)


def test_the_columns_are_those_of_the_page() -> None:
    assert (tuple(PAGE["CONTENT"]), tuple(PAGE["LATER"])) == (CONTENT_FIELDS, LATER_FIELDS)
    listed = "`action`, `actor`" + "".join(f", `{name}`" for name in CONTENT_FIELDS[2:])
    assert listed in Path(ROOT, "docs", "format.md").read_text().replace("\n", " ")


@pytest.mark.parametrize(
    "column", [*CONTENT_FIELDS, *LATER_FIELDS, "version", "at", "expires_at", "db_user", "previous", "seq"]
)
def test_the_page_finds_what_was_altered(fresh_url: URL, column: str) -> None:
    store = ResultStore(result_storage=PostgresStorage(fresh_url))
    store.write(1, key="k")
    store.write({"a": 1}, key="k", tags=["a"], provenance={"n": 1}, derived_from=[("k", 1)])
    with psycopg.connect(psycopg_url(fresh_url)) as connection:
        assert not list(PAGE["altered"](PAGE["entries_of"](connection, "now")))
        kind = {"serializer": Jsonb({"type": "x"}), "provenance": Jsonb({"n": 2}), "tags": ["b"]}
        kind["derived_from"] = ["1:other"]
        numbers, times = ("fence", "size", "version", "seq"), ("at", "expires_at")
        uuids, binary = ("payload_id", "storage_block_id"), ("payload_digest", "signature", "previous")
        kind |= dict.fromkeys(numbers, 9) | dict.fromkeys(times, "2020-01-01Z") | dict.fromkeys(binary, b"x")
        kind |= dict.fromkeys(uuids, "00000000-0000-0000-0000-000000000009")
        connection.execute("ALTER TABLE pgresults.history DISABLE TRIGGER ALL")
        changed = psycopg.sql.SQL("UPDATE pgresults.history SET {} = %s WHERE seq = 2")
        connection.execute(changed.format(psycopg.sql.Identifier(column)), [kind.get(column, "other")])
        assert len(list(PAGE["altered"](PAGE["entries_of"](connection, "now")))) == 1
        connection.rollback()


SIGNING_KEY = "the key that signs payloads"


@pytest.fixture(scope="module")
def store(create_database: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ResultStore]:
    """Its history has an entry of every kind of column."""
    settings = Settings(signing_key=SecretStr(SIGNING_KEY), seal_key=tmp_path_factory.mktemp("keys") / "seal.pem")
    storage = PostgresStorage(create_database(), settings=settings)
    store = ResultStore(result_storage=storage, lock_manager=storage.lock_manager(), serializer=JSONSerializer())
    store.acquire_lock("k")
    store.write([1.50], key="k", tags=["a", 'b"'], provenance={"n": [1e22, None]})
    store.touch("k", datetime.now(UTC) + timedelta(days=1))
    store.lock_manager.break_lock("k", "an example")
    store = store.model_copy(update={"lock_manager": None})
    store.delete("k", reason="it is over")
    store.write("again", key="k", derived_from=[("k", 1)])
    yield store
    storage.close()


def test_a_seals_signature_is_checked(store: ResultStore) -> None:
    seal = json.loads(store.seal().dump_bytes())
    PAGE["require_genuine"](seal, seal["public_key"])
    for name, value in seal.items():
        if name not in ("signature", "buckets", "timestamps"):  # the root covers these; a token speaks for itself
            forged = {**seal, name: value + 1 if isinstance(value, int) else f"{value}00"}
            with pytest.raises((InvalidSignature, AssertionError)):
                PAGE["require_genuine"](forged, seal["public_key"])
    with pytest.raises(AssertionError):
        PAGE["require_genuine"](seal, "07" * 32)


def test_the_page_names_every_field_of_a_seal() -> None:
    page = Path(ROOT, "docs", "format.md").read_text()
    rows = page.split("Its file is a JSON object of these fields:")[1].split("## A proof")[0].splitlines()
    named = [name for row in rows if row.startswith("| `") for name in re.findall("`([a-z_]+)`", row.split(" | ")[0])]
    assert named == list(Seal.model_fields)


VERSIONS = """
    SELECT h.*, h.serializer::text AS serializer, h.provenance::text AS provenance, s.identity, p.sha256
    FROM pgresults.history h JOIN pgresults.storage s ON s.id = h.storage_id
    JOIN pgresults.payload p USING (storage_id, key, payload_id) WHERE h.action = 'write' AND p.chunk = 0 ORDER BY seq
"""


def rows_of(store: ResultStore, query: str) -> list[dict[str, Any]]:
    with psycopg.connect(psycopg_url(store.result_storage.database.url()), row_factory=dict_row) as connection:
        return connection.execute(query).fetchall()


def test_a_versions_signature_is_the_pages(store: ResultStore) -> None:
    versions = rows_of(store, VERSIONS)
    assert len(versions) == 2
    for version in versions:
        assert PAGE["signature"](version, SIGNING_KEY.encode()) == version["signature"]
        assert PAGE["signature"]({**version, "identity": uuid4()}, SIGNING_KEY.encode()) != version["signature"]


VIEW = """
    SELECT *, serializer_settings::text AS serializer, provenance::text AS provenance,
        timestamptz_send(at) AS at_bytes, timestamptz_send(expires_at) AS expiry_bytes
    FROM pgresults.result_history ORDER BY storage_id, key, seq
"""
HEXADECIMAL = ("previous", "digest", "payload_digest", "signature")


def test_the_view_has_all_that_a_digest_takes(store: ResultStore) -> None:
    entries = rows_of(store, VIEW)
    for entry in entries:
        entry.update({name: bytes.fromhex(entry[name]) if entry[name] is not None else None for name in HEXADECIMAL})
    assert [entry["action"] for entry in entries] == ["write", "touch", "break", "delete", "write"]
    assert list(PAGE["altered"](entries)) == []
    for entry in entries:
        assert PAGE["digest"](entry) == entry["digest"]
    seal = store.seal()
    sealed = [{**entry, "until": True} for entry in entries]
    assert PAGE["root"](json.loads(seal.dump_bytes()), sealed) == seal.root
