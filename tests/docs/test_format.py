"""The page on the digests' form is enough to verify by: its verifier agrees with ours, whatever is in the history."""

import math
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.types.json import Jsonb
from sqlalchemy import URL

from pgresults.sql.digests import CONTENT_FIELDS, canonical_json
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
    assert tuple(PAGE["CONTENT"]) == CONTENT_FIELDS
    listed = "`action`, `actor`" + "".join(f", `{name}`" for name in CONTENT_FIELDS[2:])
    assert listed in Path(ROOT, "docs", "format.md").read_text().replace("\n", " ")


@pytest.mark.parametrize("column", [*CONTENT_FIELDS, "version", "at", "expires_at", "db_user", "previous", "seq"])
def test_the_page_finds_what_was_altered(fresh_url: URL, column: str) -> None:
    store = ResultStore(result_storage=PostgresStorage(fresh_url))
    store.write(1, key="k")
    store.write({"a": 1}, key="k", tags=["a"], provenance={"n": 1})
    with psycopg.connect(psycopg_url(fresh_url)) as connection:
        assert not list(PAGE["altered"](PAGE["entries_of"](connection, "now")))
        kind = {"serializer": Jsonb({"type": "x"}), "provenance": Jsonb({"n": 2}), "tags": ["b"]}
        numbers, times = ("fence", "size", "version", "seq"), ("at", "expires_at")
        uuids, binary = ("payload_id", "storage_block_id"), ("payload_digest", "signature", "previous")
        kind |= dict.fromkeys(numbers, 9) | dict.fromkeys(times, "2020-01-01Z") | dict.fromkeys(binary, b"x")
        kind |= dict.fromkeys(uuids, "00000000-0000-0000-0000-000000000009")
        connection.execute("ALTER TABLE pgresults.history DISABLE TRIGGER ALL")
        changed = psycopg.sql.SQL("UPDATE pgresults.history SET {} = %s WHERE seq = 2")
        connection.execute(changed.format(psycopg.sql.Identifier(column)), [kind.get(column, "other")])
        assert len(list(PAGE["altered"](PAGE["entries_of"](connection, "now")))) == 1
        connection.rollback()
