"""Rules of retention: what every rule lets go a sweep takes, and nothing that one of them, a hold or a lock keeps."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import URL

from pgresults import task
from pgresults.errors import ConfigurationError, InvalidArgument, MissingResult
from pgresults.operations.history import retained, retained_upto
from pgresults.sql.grants import Kind
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore
from tests.support import apart
from tests.support.database import psycopg_url
from tests.support.roles import logged_in

SOON, YEAR = timedelta(microseconds=1), timedelta(days=365)
FOREVER: dict[str, Any] = {"redact_after": YEAR}
"""A rule that keeps all superseded versions."""


shared_url = apart.shared_url


def kept(store: ResultStore, key: str) -> list[int]:
    """The versions of a key whose payloads are there."""
    return sorted({entry.version for entry in store.history(key, with_results=True) if entry.has_result})


def fill(store: ResultStore, key: str, versions: int = 4, **said: Any) -> None:
    for number in range(1, versions + 1):
        store.write(number, key=key, **said)


async def test_the_twins_do_the_same(call: Any, store: ResultStore) -> None:
    fill(store, "a/1")
    placed = await call(store, "set_retention", prefix="a/", versions=2, age=SOON, redact_after=YEAR, reason="tidy")
    (rule,) = await call(store, "retention")
    assert (rule.id, rule.prefix, rule.tags, rule.task) == (placed, "a/", None, None)
    assert (rule.versions, rule.age, rule.redact_after, rule.reason) == (2, SOON, YEAR, "tidy")
    due = await call(store, "retention_due")
    assert [(one.key, one.version, one.action, one.payloads, one.held, one.rules) for one in due] == [
        ("a/1", version, "retain", 1, False, [placed]) for version in (1, 2)
    ]
    (whole,) = [one for one in await call(store, "retention_due", within=YEAR, limit=10) if one.action == "redact"]
    written = store.history("a/1")[-1].at
    assert (whole.version, whole.due, whole.payloads) == (None, written + YEAR, 4)
    assert await call(store, "end_retention", placed, "over")
    assert not await call(store, "end_retention", placed, "over")
    assert await call(store, "retention") == await call(store, "retention_due") == []


@pytest.mark.parametrize(
    ("rules", "left"),
    [
        ([{"prefix": "a/", "versions": 2}], [3, 4]),
        ([{"prefix": "", "versions": 2}], [3, 4]),
        ([{"prefix": "b/", "versions": 1}], [1, 2, 3, 4]),
        ([{"tags": ["x"], "versions": 1}], [4]),
        ([{"tags": ["x", "z"], "versions": 1}], [1, 2, 3, 4]),
        ([{"prefix": "a/", "age": SOON}], [4]),
        ([{"prefix": "a/", "age": YEAR}], [1, 2, 3, 4]),
        ([{"prefix": "a/", "versions": 3, "age": SOON}], [2, 3, 4]),
        ([{"prefix": "a/", "versions": 1, "age": YEAR}], [1, 2, 3, 4]),
        ([{"prefix": "a/", "redact_after": SOON}], []),
        ([{"prefix": "a/", "redact_after": YEAR}], [1, 2, 3, 4]),
        # Which of several wins: none takes away what another keeps.
        ([{"prefix": "", "versions": 1}, {"prefix": "a/", "versions": 3}], [2, 3, 4]),
        ([{"prefix": "", "versions": 3}, {"prefix": "a/", "versions": 1}], [2, 3, 4]),
        ([{"prefix": "", "versions": 1}, {"tags": ["x"], "age": YEAR}], [1, 2, 3, 4]),
        ([{"prefix": "", "versions": 1}, {"prefix": "a/", **FOREVER}], [1, 2, 3, 4]),
        ([{"prefix": "", "versions": 2}, {"prefix": "a/", "redact_after": SOON}], [1, 2, 3, 4]),
        ([{"prefix": "", "versions": 2, "redact_after": SOON}, {"prefix": "a/", "redact_after": SOON}], []),
        ([{"prefix": "", "versions": 2, "redact_after": YEAR}, {"prefix": "a/", "redact_after": SOON}], [1, 2, 3, 4]),
        ([{"prefix": "", "versions": 1}, {"prefix": "b/", "versions": 3}], [4]),
    ],
)
def test_a_sweep_takes_what_every_rule_lets_go(
    store: ResultStore, rules: list[dict[str, Any]], left: list[int]
) -> None:
    fill(store, "a/1", tags=["x", "y"])
    for rule in rules:
        store.set_retention(**rule, reason="tidy")
    dry = store.sweep(dry_run=True)
    due = {one.version for one in store.retention_due()}
    swept = store.sweep()
    assert (dry.by_rules, swept.by_rules, swept) == (4 - len(left), 4 - len(left), 0)
    assert kept(store, "a/1") == left
    assert due == (set(range(1, 5)) - set(left) if left else due | {None})
    assert store.sweep().by_rules == 0
    assert store.verify().findings == ()
    ids = ", ".join(sorted(str(rule.id) for rule in store.retention() if rule.prefix != "b/"))
    last = store.history("a/1")[-1]
    if not left:
        assert (last.action, last.reason) == ("redact", f"by rule {ids}")
    elif len(left) < 4:
        assert (last.action, last.reason) == ("retain", f"payloads of versions up to {4 - len(left)}, by rule {ids}")


@pytest.mark.parametrize("upto", [1, 12, 10**18])
def test_what_was_retained_is_read_back(upto: int) -> None:
    assert retained_upto(retained(upto, "by rule 3")) == retained_upto(retained(upto)) == upto


def test_a_rule_for_a_task_is_for_its_results(store: ResultStore) -> None:
    @task(persist_result=True, result_storage=store.result_storage, result_storage_key="by-task", refresh_cache=True)
    def compute() -> int:
        return 1

    fill(store, "by-hand")
    for _ in range(3):
        compute()
    store.set_retention(task="compute", versions=1, reason="tidy")
    assert store.sweep().by_rules == 2
    assert (kept(store, "by-task"), kept(store, "by-hand")) == ([3], [1, 2, 3, 4])


def test_what_was_deleted_is_covered_by_what_it_was(store: ResultStore) -> None:
    fill(store, "a/1", tags=["subject 7"])
    store.delete("a/1")
    store.set_retention(tags=["subject 7"], redact_after=SOON, reason="law")
    assert store.sweep().by_rules == 4
    assert kept(store, "a/1") == []
    assert store.retention_due() == []


def test_a_hold_wins_and_is_counted(store: ResultStore) -> None:
    fill(store, "a/1")
    fill(store, "a/2")
    store.set_retention(prefix="a/", versions=1, reason="tidy")
    store.hold(key="a/1", reason="case 7")
    assert {(one.key, one.held) for one in store.retention_due()} == {("a/1", True), ("a/2", False)}
    dry, swept = store.sweep(dry_run=True), store.sweep(batch_size=1)
    assert (dry.by_rules, dry.held, swept.by_rules, swept.held) == (3, 3, 3, 3)
    assert kept(store, "a/1") == [1, 2, 3, 4]
    store.release_hold(key="a/1", reason="over")
    assert store.sweep().by_rules == 3


@pytest.mark.parametrize("rule", [{"versions": 1}, {"redact_after": SOON}], ids=str)
def test_what_somebody_has_locked_stays(store: ResultStore, rule: dict[str, Any]) -> None:
    fill(store, "a/1")
    store.set_retention(prefix="", **rule, reason="tidy")
    manager = store.result_storage.lock_manager()
    manager.acquire_lock("a/1", "another")
    assert (store.sweep(dry_run=True).by_rules, store.sweep().by_rules) == (0, 0)
    manager.release_lock("a/1", "another")
    assert store.sweep().by_rules == (3 if "versions" in rule else 4)


class _Interrupted(BaseException):
    pass


def test_a_sweep_goes_on_where_it_was_interrupted(store: ResultStore) -> None:
    for number in range(5):
        fill(store, f"a/{number}", 2)
    store.set_retention(prefix="", versions=1, reason="tidy")

    def interrupt(_: int) -> None:
        raise _Interrupted

    with pytest.raises(_Interrupted):
        store.sweep(batch_size=2, progress=interrupt)
    assert [kept(store, f"a/{number}") for number in range(5)] == [[2], [2], [1, 2], [1, 2], [1, 2]]
    assert store.sweep(batch_size=2).by_rules == 3
    assert store.verify().findings == ()


def test_a_rule_is_seen_by_a_sweep_that_began_before(store: ResultStore, connection: Any) -> None:
    """Whoever sets a rule waits for what is under way, and what comes after sees it."""
    fill(store, "a/1")
    store.set_retention(prefix="", versions=1, reason="tidy")
    seen: list[int] = []

    def keep(taken: int) -> None:
        seen.append(taken)
        store.set_retention(prefix="b/", **FOREVER, reason="law")

    fill(store, "b/1")
    assert store.sweep(batch_size=1, progress=keep).by_rules == 3
    assert kept(store, "b/1") == [1, 2, 3, 4]


@pytest.mark.parametrize(
    "given_",
    [
        {},
        {"prefix": "a"},
        {"prefix": "a", "tags": ["b"], "versions": 1},
        {"tags": [], "versions": 1},
        {"task": 3, "versions": 1},
        {"prefix": "a", "versions": 0},
        {"prefix": "a", "age": timedelta()},
        {"prefix": "a", "age": 7},
        {"prefix": "a", "redact_after": timedelta(days=400_000)},
        {"prefix": "a", "versions": 1, "reason": ""},
    ],
    ids=str,
)
async def test_a_rule_that_says_nothing_is_refused(call: Any, store: ResultStore, given_: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument):
        await call(store, "set_retention", **{"reason": "why", **given_})
    assert store.retention() == []


def test_who_set_and_ended_a_rule_is_history(fresh_url: URL) -> None:
    storage = PostgresStorage(fresh_url)
    store = ResultStore(result_storage=storage)
    store.write(1, key="k")
    placed = store.set_retention(prefix="k", versions=2, reason="tidy")
    store.end_retention(placed, "no more")
    with psycopg.connect(psycopg_url(fresh_url)) as admin:
        rows = admin.execute(
            "SELECT storage, action, reason, about, db_user FROM pgresults.activity WHERE action <> 'write' ORDER BY at"
        ).fetchall()
        user = admin.info.user
    about = {"prefix": "k", "versions": 2}
    assert rows == [("default", "rule", "tidy", about, user), ("default", "repeal", "no more", about, user)]
    assert store.verify().findings == ()
    storage.close()


# Which rule wins, by a model

KEYS = ("a/1", "a/2", "b/1")
TAGS = {"a/1": ["x"], "a/2": ["x", "y"], "b/1": ["y"]}
_spans = st.sampled_from([timedelta(seconds=1), timedelta(days=1), timedelta(days=30), timedelta(days=3650)])
_scopes = st.sampled_from([{"prefix": ""}, {"prefix": "a/"}, {"prefix": "b"}, {"tags": ["x"]}, {"tags": ["x", "y"]}])
_bounds = st.fixed_dictionaries(
    {}, optional={"versions": st.integers(1, 4), "age": _spans, "redact_after": _spans}
).filter(bool)


@pytest.fixture(scope="module")
def modelled(shared_url: URL) -> Iterator[tuple[psycopg.Connection[Any], ResultStore, dict[str, list[Any]]]]:
    store = ResultStore(result_storage=PostgresStorage(shared_url, name=f"model-{uuid4().hex}"))
    for key in KEYS:
        fill(store, key, 3, tags=TAGS[key])
    store.delete("b/1")
    with psycopg.connect(psycopg_url(shared_url)) as connection:
        yield connection, store, {key: store.history(key) for key in KEYS}
    store.result_storage.close()


@settings(max_examples=60)
@given(rules=st.lists(st.tuples(_scopes, _bounds), max_size=4))
def test_no_rule_takes_what_another_keeps(modelled: Any, rules: list[tuple[dict[str, Any], dict[str, Any]]]) -> None:
    connection, store, histories = modelled
    for scope, bounds in rules:
        said = {name: f"{one.total_seconds()} seconds" if name != "versions" else one for name, one in bounds.items()}
        connection.execute(
            "SELECT pgresults.set_rule(%s, %s, %s, 'why')",
            [store.result_storage.id, json.dumps(scope), json.dumps(said)],
        )
    found = connection.execute(
        "SELECT key, version, due FROM pgresults.retention_due WHERE storage_id = %s", [store.result_storage.id]
    ).fetchall()
    connection.rollback()
    assert {(key, version): due for key, version, due in found} == {
        place: due for key in KEYS for place, due in model(key, histories[key], rules) if due is not None
    }


def model(key: str, entries: list[Any], rules: list[Any]) -> Iterator[tuple[tuple[str, int | None], datetime | None]]:
    """When what of a key goes: all rules that cover it must let it go; None: never."""
    covering = [
        bounds
        for scope, bounds in rules
        if ("prefix" in scope and key.startswith(scope["prefix"]))
        or ("tags" in scope and {*scope["tags"]} <= {*TAGS[key]})
    ]
    for entry, then in pairwise(entries):
        yield (key, entry.version), latest([released(entry, then.at, bounds) for bounds in covering])
    written = entries[2].at
    yield (key, None), latest(["redact_after" in one and written + one["redact_after"] for one in covering])


def released(entry: Any, superseded: datetime, bounds: dict[str, Any]) -> datetime | bool:
    if not {"versions", "age"} & bounds.keys() or ("versions" in bounds and entry.version > 3 - bounds["versions"]):
        return False
    return superseded + bounds.get("age", timedelta())


def latest(times: list[datetime | bool]) -> datetime | None:
    return max(times) if times and all(times) else None  # type: ignore[type-var, return-value]


# From each role


@pytest.fixture(scope="module")
def database(create_database: Callable[[], URL]) -> URL:
    return create_database()


@pytest.mark.parametrize("kind", list(Kind))
def test_who_sweeps_or_owns_sets_rules(database: URL, kind: Kind) -> None:
    owned = ResultStore(result_storage=PostgresStorage(database, name=f"of {kind}"))
    fill(owned, "k", 2)
    standing = owned.set_retention(prefix="other", versions=1, reason="law")
    with logged_in(database, kind) as url:
        theirs = ResultStore(result_storage=PostgresStorage(url, name=f"of {kind}"))
        sets = kind in (Kind.SWEEPER, Kind.OWNER)
        assert may(lambda: theirs.set_retention(prefix="", versions=1, reason="mine")) == sets
        assert may(lambda: theirs.end_retention(standing, "mine")) == sets
        assert may(theirs.retention_due) == may(theirs.retention) == (kind is not Kind.READER)
        assert may(theirs.sweep) == sets
        with psycopg.connect(psycopg_url(url)) as connection:
            for change in ("reason = '{}'", "action = 'repeal', seq = seq + 1", "action = 'delete', seq = seq + 1"):
                rule = f"UPDATE pgresults.result SET {change} WHERE key = 'rule/{standing}'"
                if kind is not Kind.OWNER:
                    with pytest.raises(psycopg.errors.InsufficientPrivilege), connection.transaction():
                        connection.execute(rule)
            with pytest.raises(psycopg.errors.InsufficientPrivilege), connection.transaction():
                connection.execute("SELECT pgresults.note_hold('rule/x', 'rule', '{}', 'me')")
        theirs.result_storage.close()
    assert kept(owned, "k") == ([2] if sets else [1, 2])
    assert owned.verify().findings == ()
    owned.result_storage.close()


def may(act: Callable[[], Any]) -> bool:
    try:
        act()
    except ConfigurationError:
        return False
    return True


def test_where_metadata_lies_apart_rules_are_the_storages_own(store: ResultStore, shared_url: URL) -> None:
    apart = store.model_copy(update={"metadata_storage": PostgresStorage(shared_url, name=f"m-{uuid4().hex}")})
    with pytest.raises(ConfigurationError, match="by a store for each"):
        apart.set_retention(prefix="", versions=1, reason="tidy")
    apart.metadata_storage.close()


def test_what_was_erased_by_a_rule_is_told(store: ResultStore) -> None:
    store.write(1, key="k")
    store.set_retention(prefix="k", redact_after=SOON, reason="law")
    store.sweep()
    with pytest.raises(MissingResult):
        store.read("k", version=1)
    assert store.history("k")[-1].at <= datetime.now(UTC)
