"""What can be asked for in SQL, and in Python over the same views: stable columns, indexes used, pages that hold."""

import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from sqlalchemy import URL

from pgresults.errors import InvalidArgument, InvalidKey
from pgresults.records.keys import prefix_end, storage_id
from pgresults.records.provenance import RUN
from pgresults.serializers import JSONSerializer
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore
from tests.support.database import psycopg_url
from tests.support.documents import ROOT

HOUR = timedelta(hours=1)
ROWS = 60_000

COLUMNS = {
    "live_results": "storage key version created_at expires_at size serializer sha256 tags provenance actor db_user"
    " holder fence storage_id task flow",
    "expirations": "storage key version expires_at remaining expired size created_at storage_id",
    "result_history": "storage key seq version action at actor db_user holder fence expires_at size serializer reason"
    " tags provenance digest storage_id previous payload_id payload_digest serializer_settings storage_key"
    " storage_block_id pgresults_version prefect_version signature xid derived_from",
    "lineage": "storage key version at actor task parent_storage parent_key parent_version derived_from storage_id"
    " parent_storage_id",
    "held_locks": "storage key holder fence since held_for expires_at actor pid taken_over_from backend_pid waiters "
    "waiting_holders",
    "storage_usage": "storage keys live live_bytes expired_bytes last_change storage_id",
    "json_results": "storage key version created_at expires_at document storage_id",
}


@pytest.mark.parametrize("view", COLUMNS)
def test_the_columns_of_the_views_are_stable(connection: Any, view: str) -> None:
    described = connection.execute(f"SELECT * FROM pgresults.{view} LIMIT 0").description
    assert " ".join(column.name for column in described) == COLUMNS[view]


def test_the_views_show_what_is_stored(store: ResultStore, connection: Any) -> None:
    now, name = datetime.now(UTC), store.result_storage.name
    token = RUN.set({"task": {"name": "t"}, "flow": {"name": "f"}})
    store.write({"a": 1}, key="live", tags=["x"])
    RUN.reset(token)
    store.write(1, key="soon", expiration=now + HOUR)
    store.write(1, key="expired", expiration=now - HOUR)
    store.write(1, key="deleted")
    store.delete("deleted", reason="wrong")

    def rows(query: str) -> list[Any]:
        return connection.execute(query, [name]).fetchall()

    live = "SELECT key, tags, task, flow FROM pgresults.live_results WHERE storage = %s ORDER BY key"
    assert rows(live) == [("live", ["x"], "t", "f"), ("soon", None, None, None)]
    expirations = "SELECT key, expired, remaining > '0' FROM pgresults.expirations WHERE storage = %s ORDER BY key"
    assert rows(expirations) == [("expired", True, False), ("soon", False, True)]
    steps = "SELECT action, reason FROM pgresults.result_history WHERE storage = %s AND key = 'deleted' ORDER BY seq"
    assert rows(steps) == [("write", None), ("delete", "wrong")]
    usage = "SELECT keys, live, live_bytes > 0, expired_bytes > 0 FROM pgresults.storage_usage WHERE storage = %s"
    assert rows(usage) == [(4, 2, True, True)]


# JSON results as documents


@pytest.fixture
def documents(fresh_url: URL) -> Iterator[tuple[ResultStore, psycopg.Connection[Any]]]:
    storage = PostgresStorage(fresh_url)
    with psycopg.connect(psycopg_url(fresh_url), autocommit=True) as connection:
        yield ResultStore(result_storage=storage, serializer=JSONSerializer()), connection
    storage.close()


BEST = "SELECT key FROM pgresults.json_results WHERE (document ->> 'accuracy')::float > 0.5 ORDER BY key"


def test_json_results_are_projected_where_that_is_wanted(documents: Any) -> None:
    store, connection = documents
    store.write({"accuracy": 0.9}, key="before")
    assert connection.execute(BEST).fetchall() == []
    connection.execute("SELECT pgresults.project_documents()")
    store.write({"accuracy": 0.8}, key="after")
    store.write({"accuracy": 0.1}, key="poor")
    store.model_copy(update={"serializer": ResultStore().serializer}).write({"accuracy": 1}, key="pickled")
    store.write({"text": "a\0b"}, key="not for jsonb")
    assert store.read("not for jsonb").result == {"text": "a\0b"}
    assert connection.execute(BEST).fetchall() == [("after",), ("before",)]
    store.write({"accuracy": 0.2}, key="before")
    store.redact("after", "law")
    assert connection.execute(BEST).fetchall() == []
    assert connection.execute("SELECT key FROM pgresults.document ORDER BY key").fetchall() == [("before",), ("poor",)]
    assert store.verify().findings == ()
    connection.execute("SELECT pgresults.project_documents(false)")
    store.write({"accuracy": 0.8}, key="after")
    assert connection.execute("SELECT count(*) FROM pgresults.document").fetchone() == (0,)


# Indexes


@pytest.fixture(
    scope="module", params=[ROWS, pytest.param(1_000_000, marks=[pytest.mark.slow, pytest.mark.timeout(900)])]
)
def many(create_database: Callable[[], URL], request: pytest.FixtureRequest) -> Iterator[psycopg.Connection[Any]]:
    """A database in which a scan of a whole table would be dear."""
    with psycopg.connect(psycopg_url(create_database()), autocommit=True) as connection:
        connection.execute(
            """
            INSERT INTO pgresults.result (storage_id, key, version, payload_id, seq, action, at, actor, db_user,
                previous, digest, created_at, expires_at, size, tags, provenance, serializer)
            SELECT %(id)s, 'k' || n, 1, gen_random_uuid(), 1, 'write', now() - n * interval '1 minute', 'a', 'b', '',
                'd', now(), now() + n * interval '1 hour', 1, CASE WHEN n %% 100 = 0 THEN ARRAY['t' || n] END,
                CASE WHEN n %% 100 = 0 THEN jsonb_build_object('task', jsonb_build_object('name', 't' || n)) END,
                '{"type": "json"}'
            FROM generate_series(1, %(count)s) n
            """,
            {"id": storage_id("many"), "count": request.param},
        )
        connection.execute("INSERT INTO pgresults.storage VALUES (%s, 'many', now())", [storage_id("many")])
        connection.execute(
            """
            INSERT INTO pgresults.document
            SELECT storage_id, key, jsonb_build_object('model', 'm' || row_number() OVER ())
            FROM pgresults.result
            """
        )
        connection.execute("VACUUM ANALYZE")
        yield connection


ID = f"storage_id = '{storage_id('many')}'"
INDEXED = {
    "result_pkey": f"SELECT * FROM pgresults.live_results WHERE {ID} AND key = 'k7'",
    "result_pkey ": f"SELECT * FROM pgresults.live_results WHERE {ID} AND key >= 'k77' AND key < 'k78' ORDER BY key",
    "result_expires_at_idx": "SELECT * FROM pgresults.expirations WHERE expires_at < now() + interval '1 day'",
    "result_tags_idx": "SELECT * FROM pgresults.live_results WHERE tags @> ARRAY['t700']",
    "result_task_idx": f"SELECT * FROM pgresults.live_results WHERE {ID} AND task = 't700'",
    "history_pkey": f"SELECT * FROM pgresults.result_history WHERE {ID} AND key = 'k7' ORDER BY seq",
    "history_at_idx": "SELECT * FROM pgresults.result_history WHERE at > now() - interval '10 minutes'",
    "history_xid_idx": "SELECT * FROM pgresults.history WHERE xid < 3",
    "document_document_idx": """SELECT * FROM pgresults.json_results WHERE document @> '{"model": "m7"}'""",
}


def used(plan: dict[str, Any]) -> Iterator[str]:
    if "Index Name" in plan:
        yield plan["Index Name"]
    if plan["Node Type"] == "Seq Scan" and plan["Relation Name"] != "storage":
        yield f"scan of {plan['Relation Name']}"
    for child in plan.get("Plans", []):
        yield from used(child)


@pytest.mark.parametrize("index", INDEXED)
def test_the_hot_queries_use_their_index(many: psycopg.Connection[Any], index: str) -> None:
    ((plan,),) = many.execute(f"EXPLAIN (FORMAT JSON) {INDEXED[index]}").fetchall()
    names = set(used((json.loads(plan) if isinstance(plan, str) else plan)[0]["Plan"]))
    assert index.strip() in names
    assert not [name for name in names if name.startswith("scan of")]


def documented() -> Iterator[str]:
    """The queries of the page that ask for some results; what counts everything has to read it."""
    page = (ROOT / "docs" / "sql.md").read_text()
    for block in re.findall("```sql\n(.*?)```", page, re.DOTALL):
        for statement in block.split(";"):
            if re.search(r"FROM pgresults\.(live_results|expirations|result_history|json_results)", statement):
                yield statement.strip()


def looked_up(plan: dict[str, Any]) -> Iterator[str]:
    for name in ("Index Cond", "Recheck Cond"):
        if name in plan:
            yield plan[name]
    for child in plan.get("Plans", []):
        yield from looked_up(child)


@pytest.mark.parametrize("query", list(documented()))
def test_the_documented_queries_use_an_index(many: psycopg.Connection[Any], query: str) -> None:
    asked = query.replace("'default'", "'many'")
    ((plan,),) = many.execute(f"EXPLAIN (FORMAT JSON) {asked}").fetchall()
    assert not [name for name in used(plan[0]["Plan"]) if name.startswith("scan of")]
    conditions = " ".join(looked_up(plan[0]["Plan"]))
    for name in re.findall(r"\b(storage|key|task|tags|expires_at|document)(?:_id)? (?:=|<|>=|@>)", query):
        assert ("storage_id" if name == "storage" else name) in conditions


def test_a_scan_would_be_seen(many: psycopg.Connection[Any]) -> None:
    ((plan,),) = many.execute("EXPLAIN (FORMAT JSON) SELECT * FROM pgresults.live_results WHERE actor = 'a'").fetchall()
    assert "scan of result" in set(used(plan[0]["Plan"]))


# The same in Python


@pytest.fixture
def filled(store: ResultStore) -> ResultStore:
    now = datetime.now(UTC)
    for n in range(10):
        run = RUN.set({"task": {"name": f"t{n % 2}"}, "flow": {"name": "f"}})
        expiration = now + n * HOUR if n >= 5 else None
        store.write(
            "x" * 100 * n, key=f"{'ab'[n % 2]}/{n}", tags=["even"] if n % 2 == 0 else None, expiration=expiration
        )
        RUN.reset(run)
    store.write(1, key="a/expired", expiration=now - HOUR)
    return store


CHOICES: dict[str, tuple[dict[str, Any], str]] = {
    "all": ({}, "0246813579"),
    "prefix": ({"prefix": "a/"}, "02468"),
    "tags": ({"tags": ["even"]}, "02468"),
    "no tags": ({"tags": []}, "02468"),
    "task": ({"task": "t1"}, "13579"),
    "flow": ({"flow": "g"}, ""),
    "size": ({"min_size": 200, "max_size": 500}, "243"),
    "expiry": ({"expires_before": datetime.now(UTC) + 7.5 * HOUR}, "657"),
    "written": ({"written_after": datetime.now(UTC) + HOUR}, ""),
    "written before": ({"written_before": datetime.now(UTC) + HOUR, "prefix": "b"}, "13579"),
    "several": ({"prefix": "b/", "task": "t1", "min_size": 700, "flow": "f"}, "79"),
}


@pytest.mark.parametrize("name", CHOICES)
async def test_results_are_found_by_what_is_known_of_them(call: Any, filled: ResultStore, name: str) -> None:
    conditions, expected = CHOICES[name]
    assert "".join(row.key[-1] for row in await call(filled, "find", **conditions)) == expected


async def test_what_is_found_is_described(call: Any, filled: ResultStore) -> None:
    (row,) = await call(filled, "find", prefix="a/8")
    stored = filled.read("a/8").metadata
    assert (row.version, row.created_at, row.expires_at) == (1, stored.created_at, stored.expiration)
    assert (row.size, row.serializer, row.tags, row.task, row.flow) == (stored.size, "pickle", ["even"], "t0", "f")


async def test_pages_hold_while_rows_arrive(call: Any, store: ResultStore) -> None:
    for n in range(0, 40, 2):
        await call(store, "write", n, key=f"k{n:02}")
    seen: list[str] = []
    while page := await call(store, "find", prefix="k", after=seen[-1] if seen else None, limit=7):
        seen += [row.key for row in page]
        await call(store, "write", 0, key="k00")
        await call(store, "write", 0, key=f"k{len(seen) - 1:02}x")
    assert [key for key in seen if not key.endswith("x")] == [f"k{n:02}" for n in range(0, 40, 2)]
    assert len(seen) == len(set(seen))


async def test_everything_is_found_unless_a_limit_is_given(
    call: Any, store: ResultStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write_many({f"k{n:03}": n for n in range(101)}, tags=["some"])
    store.write(0, key="other")
    for page in (1000, 101, 40, 1):
        monkeypatch.setattr("pgresults.storage.finding.PAGE", page)
        assert len(await call(store, "find")) == 102
        assert [row.key for row in await call(store, "find", tags=["some"])] == [f"k{n:03}" for n in range(101)]
        assert [row.key for row in await call(store, "find", "k", limit=41)][-1] == "k040"
        assert [row.key for row in await call(store, "find", after="k098")] == ["k099", "k100", "other"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"limit": 0},
        {"limit": "all"},
        {"min_size": -1},
        {"max_size": "1"},
        {"written_after": datetime(2026, 1, 1)},
        {"tags": "x"},
        {"prefix": ""},
    ],
)
async def test_a_question_without_sense_is_refused(call: Any, store: ResultStore, wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument):
        await call(store, "find", **wrong)
    with pytest.raises(InvalidKey):
        await call(store, "find", after="")


PREFIXES = ["a", "a/", "é", "\ud7ff", "\U0010ffff", "a\U0010ffff", "z\U0010ffff\U0010ffff"]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_prefix_ends_where_its_last_key_does(prefix: str) -> None:
    end = prefix_end(prefix).encode()
    inside = [prefix, prefix + "\U0010ffff" * 3, prefix + "\x01"]
    assert all(prefix.encode() <= key.encode() < end for key in inside)
    assert not end.startswith(prefix.rstrip("\U0010ffff").encode() or b"\0")
