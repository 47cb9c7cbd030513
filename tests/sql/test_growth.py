"""Questions whose cost does not grow with the store: what their plans go through, and what an estimate is worth."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from sqlalchemy import URL

from pgresults.database.driver import drive
from pgresults.database.programs import call, perform
from pgresults.operations import verify as operations
from pgresults.operations import views
from pgresults.operations.verify import Span
from pgresults.sql import monitoring
from pgresults.sql.compiled import Statement
from pgresults.sql.frequency import ARE_FREQUENT
from pgresults.sql.lineage import DOWNSTREAM, WALKS
from pgresults.sql.log import log
from pgresults.sql.usage import LAST_CHANGE
from pgresults.sql.verify import COUNT_SINCE
from pgresults.sql.views import WRITTEN_DAILY, find
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore
from tests.support.database import psycopg_url
from tests.support.growth import grow

KEYS = 20_000


@pytest.fixture(scope="module")
def grown(create_database: Any) -> Iterator[PostgresStorage]:
    """A storage of 20,000 results with five tags, and one with a rare one."""
    storage = PostgresStorage(create_database(), name="grown")
    ResultStore(result_storage=storage).write("a result", key="seed", tags=["rare"])
    grow(storage.database.url(), "seed", KEYS)
    yield storage
    storage.close()


def _passed(storage: PostgresStorage, statement: Statement, **values: Any) -> float:
    """How many rows the nodes of a statement's plan looked at, those that they gave and those that they dropped."""
    query = statement.query("pgresults")
    parameters = {"storage_id": storage.id, **values}
    with psycopg.connect(psycopg_url(storage.database.url())) as connection:
        raw = psycopg.RawCursor(connection)
        raw.execute(b"EXPLAIN (ANALYZE, FORMAT JSON) " + query.text, list(query.values(parameters)))
        row = raw.fetchone()
    assert row is not None
    return max(_looked_at(row[0][0]["Plan"]))


def _looked_at(node: dict[str, Any]) -> Iterator[float]:
    dropped = node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
    yield (node["Actual Rows"] + dropped) * node["Actual Loops"]
    for inner in node.get("Plans", ()):
        yield from _looked_at(inner)


def test_a_rare_tag_is_found_without_going_through_all(grown: PostgresStorage) -> None:
    page = {"after": "", "limit": 101}
    assert _passed(grown, find(frozenset(["tags"]), few=True), tags=["rare"], **page) < 10
    assert _passed(grown, find(frozenset(["tags"])), tags=["tag 3"], **page) < KEYS / 10
    assert [found.key for found in ResultStore(result_storage=grown).find(tags=["rare"])] == ["seed"]


@pytest.mark.parametrize(
    ("tags", "frequent"),
    [(["tag 1"], True), (["rare"], False), (["never"], False), (["tag 1", "rare"], False), (["tag 1"] * 2, False)],
)
def test_what_is_frequent_is_known_of_every_tag(grown: PostgresStorage, tags: list[str], frequent: bool) -> None:
    query = ARE_FREQUENT.query("pgresults")
    with psycopg.connect(psycopg_url(grown.database.url())) as connection:
        found = psycopg.RawCursor(connection).execute(query.text, list(query.values({"tags": tags, "limit": 101})))
        assert found.fetchall() == [(frequent,)]


def test_what_was_computed_from_one_is_looked_up_one_by_one(create_database: Any) -> None:
    storage = PostgresStorage(create_database(), name="grown")
    store = ResultStore(result_storage=storage)
    of_root = {"derived_from": [store.write("a result", key="seed")]}
    grow(storage.database.url(), "seed", KEYS)
    store.write_many((f"child/{n}", n, of_root) for n in range(1000))
    with psycopg.connect(psycopg_url(storage.database.url()), autocommit=True) as connection:
        connection.execute("ANALYZE pgresults.history, pgresults.result")
    walked = {"key": "seed", "version": 1, "depth": None, "limit": 10_000}
    assert _passed(storage, WALKS["down"], **walked) < KEYS
    assert _passed(storage, DOWNSTREAM, keys=["seed"], versions=[1]) < KEYS
    storage.close()


def test_many_and_few_are_found_alike(grown: PostgresStorage) -> None:
    store = ResultStore(result_storage=grown)
    with_tag = store.find(tags=["tag 2"])
    keys = [found.key for found in with_tag]
    assert keys == sorted(keys)
    values = {"storage_id": grown.id, "after": "", "tags": ["tag 2"], "limit": 101}
    query = find(frozenset(["tags"]), few=True).query("pgresults")
    with psycopg.connect(psycopg_url(grown.database.url())) as connection:
        rows = psycopg.RawCursor(connection).execute(query.text, list(query.values(values))).fetchall()
    assert [row[0] for row in rows[:50]] == keys[:50]


def test_history_by_time_is_read_from_its_end(grown: PostgresStorage) -> None:
    assert _passed(grown, LAST_CHANGE) == 1
    sealed = {"bound": 2**62, "until": "tomorrow"}
    assert _passed(grown, COUNT_SINCE, **sealed) <= 1
    assert _passed(grown, WRITTEN_DAILY, span="1 minute") < KEYS / 10


def test_a_monitoring_goes_through_no_table(grown: PostgresStorage) -> None:
    assert _passed(grown, monitoring.OVERDUE) <= 1
    assert _passed(grown, monitoring.LOCKS) < 100
    assert _passed(grown, monitoring.LAST_CHANGES, limit=10) == 10


def test_history_by_actor_is_found_by_its_index(grown: PostgresStorage) -> None:
    with psycopg.connect(psycopg_url(grown.database.url())) as connection:
        plan = connection.execute(
            "EXPLAIN (FORMAT JSON) "
            "SELECT * FROM pgresults.result_history WHERE actor = 'nobody' ORDER BY at DESC LIMIT 9"
        ).fetchone()
    assert "history_actor_idx" in json.dumps(plan)


def test_a_page_of_the_log_goes_through_itself_alone(grown: PostgresStorage) -> None:
    half = ResultStore(result_storage=grown).log(limit=KEYS // 2)[-1]
    last = {"last_at": half.at, "last_key": half.key, "last_seq": half.seq}
    assert _passed(grown, log(frozenset()), limit=100) <= 200
    assert _passed(grown, log(frozenset({"last"})), limit=100, **last) <= 200
    assert _passed(grown, log(frozenset({"since", "until"})), limit=100, since=half.at, until="tomorrow") <= 200
    assert _passed(grown, log(frozenset({"actor"})), limit=100, actor="nobody@nowhere") <= 1


def test_totals_are_estimated_from_a_sample_and_exact_where_asked(
    grown: PostgresStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(views, "_SAMPLED_PAGES", 100)

    def usage(exact: bool) -> views.Usage:
        return perform(call(grown.database, lambda _: views.usage(grown.id, exact=exact)))

    counted, estimated = usage(exact=True), usage(exact=False)
    assert (counted.exact, counted.keys, counted.live) == (True, KEYS + 1, KEYS + 1)
    assert not estimated.exact
    assert estimated.keys == pytest.approx(counted.keys, rel=0.2)
    assert estimated.live_bytes == pytest.approx(counted.live_bytes, rel=0.2)
    assert estimated.last_change == counted.last_change


def test_few_keys_are_counted(store: ResultStore, shared_url: URL) -> None:
    store.write(1, key="one")
    storage = store.result_storage
    assert isinstance(storage, PostgresStorage)
    usage = perform(call(storage.database, lambda _: views.usage(storage.id)))
    assert (usage.keys, usage.live, usage.exact) == (1, 1, True)


@pytest.mark.parametrize("own", [True, False])
def test_what_is_planned_anew_is_never_prepared(grown: PostgresStorage, own: bool) -> None:
    """A prepared statement has a plan for any values after some calls: one that goes through all."""
    lent = psycopg.connect(psycopg_url(grown.database.url()), autocommit=True)
    with grown.database.connect() if own else lent as connection:
        for _ in range(20):
            drive(connection, "pgresults", operations.tasks(grown.id, None, 9, Span(2**62, datetime.now(UTC))))
            drive(connection, "pgresults", operations.count_since(grown.id, Span(2**62, datetime.now(UTC))))
        prepared = connection.execute("SELECT statement FROM pg_prepared_statements").fetchall()
    lent.close()
    assert prepared == []
