"""Everything of somebody is erased at once or not at all, and a certificate says so to who has no database."""

import copy
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import URL

from pgresults.audit.certificates import Certificate, check
from pgresults.audit.signing import rotate
from pgresults.errors import ConfigurationError, IntegrityError, InvalidArgument, LockedError, MissingResult, OnHold
from pgresults.settings import Settings
from pgresults.sql.grants import Kind
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore
from tests.docs.test_format import PAGE
from tests.support.database import psycopg_url
from tests.support.roles import logged_in

BACKUPS = datetime(2031, 2, 3, 4, 5, 6, 7, tzinfo=UTC)


@pytest.fixture(scope="module")
def database(create_database: Callable[[], URL]) -> URL:
    return create_database()


@pytest.fixture
def store(database: URL, tmp_path: Path) -> Iterator[ResultStore]:
    """A store that signs."""
    settings = Settings(seal_key=tmp_path / "seal.pem")
    storage = PostgresStorage(database, f"test-{uuid4().hex}", settings=settings)
    yield ResultStore(result_storage=storage, lock_manager=storage.lock_manager())
    storage.close()


def fill(store: ResultStore) -> None:
    """Something of subject 7: a key that lost its tag, one that has expired, one that was deleted; and of another."""
    past = datetime.now(UTC) - timedelta(hours=1)
    store.write(1, key="7/a", tags=["subject 7"])
    store.write(2, key="7/a")
    store.write(b"x" * 5, key="7/b", tags=["subject 7"], expiration=past)
    store.write(1, key="7/c", tags=["subject 7"])
    store.delete("7/c")
    store.write(1, key="8/a", tags=["subject 8"])


def left(store: ResultStore, key: str) -> int:
    return sum(entry.has_result for entry in store.history(key, with_results=True))


@pytest.mark.parametrize("scope", [{"prefix": "7/"}, {"tags": ["subject 7"]}], ids=str)
async def test_everything_of_a_subject_is_erased_and_certified(call: Any, store: ResultStore, scope: Any) -> None:
    fill(store)
    made = await call(store, "erase", **scope, reason="asked to", backups_until=BACKUPS)
    assert [(one["entry"]["key"], one["entries"]) for one in made.keys] == [("7/a", 3), ("7/b", 2), ("7/c", 3)]
    assert [[version["version"] for version in one["versions"]] for one in made.keys] == [[1, 2], [1], [1]]
    assert (made.scope, made.reason) == (scope, "asked to")
    assert made.remains == {"backups_until": "2031-02-03T04:05:06.000007Z", "log_until": None}
    assert [left(store, key) for key in ("7/a", "7/b", "7/c", "8/a")] == [0, 0, 0, 1]
    assert store.history("7/b")[-1].reason == "asked to"
    assert store.verify().findings == ()
    made.check(made.public_key)
    PAGE["require_erased"](json.loads(made.dump_bytes()), made.public_key)
    assert Certificate.load_bytes(made.dump_bytes()) == made
    again = store.erase(**scope, reason="once more")
    assert again.keys == made.keys
    again.check(made.public_key)


def test_one_key_is_certified_as_well(store: ResultStore) -> None:
    fill(store)
    made = store.erase(key="8/a", reason="asked to")
    made.check(made.public_key)
    assert [one["entry"]["key"] for one in made.keys] == ["8/a"]


@pytest.mark.parametrize("scope", [{"prefix": "9/"}, {"tags": ["subject"]}, {"key": "9"}], ids=str)
def test_where_there_never_was_anything_nothing_is_certified(store: ResultStore, scope: Any) -> None:
    fill(store)
    with pytest.raises(MissingResult):
        store.erase(**scope, reason="asked to")


@pytest.mark.parametrize(
    "scope", [{}, {"prefix": ""}, {"tags": []}, {"key": "a", "prefix": "a"}, {"tags": "word"}], ids=str
)
async def test_what_is_meant_has_to_be_said(call: Any, store: ResultStore, scope: Any) -> None:
    with pytest.raises(InvalidArgument):
        await call(store, "erase", **scope, reason="asked to")
    with pytest.raises(InvalidArgument):
        await call(store, "erase", prefix="7/", reason="")
    with pytest.raises(InvalidArgument):
        await call(store, "erase", prefix="7/", reason="asked to", log_until=datetime(2031, 1, 1))


def test_all_or_nothing(store: ResultStore, database: URL) -> None:
    fill(store)
    store.hold(key="7/c", reason="case 7")
    with pytest.raises(OnHold):
        store.erase(prefix="7/", reason="asked to")
    store.release_hold(key="7/c", reason="over")
    manager = store.result_storage.lock_manager()
    manager.acquire_lock("7/b", "another")
    with pytest.raises(LockedError):
        store.erase(prefix="7/", reason="asked to")
    manager.release_lock("7/b", "another")
    with psycopg.connect(psycopg_url(database), autocommit=True) as admin:
        change = "ALTER TABLE pgresults.history {0} TRIGGER USER"
        admin.execute(change.format("DISABLE"))
        admin.execute(
            "UPDATE pgresults.history SET actor = 'x' WHERE key = '7/c' AND seq = 1 AND storage_id = %s",
            [store.result_storage.id],
        )
        admin.execute(change.format("ENABLE"))
        for name in ("append_only", "kept"):
            admin.execute(f"ALTER TABLE pgresults.history ENABLE ALWAYS TRIGGER {name}")
    with pytest.raises(IntegrityError, match="nothing was erased"):
        store.erase(prefix="7/", reason="asked to")
    assert [left(store, key) for key in ("7/a", "7/b")] == [2, 1]


def test_without_a_key_nothing_is_erased(store: ResultStore, tmp_path: Path) -> None:
    fill(store)
    (tmp_path / "seal.pem").write_text("no key")
    with pytest.raises(ConfigurationError, match="no private key"):
        store.erase(prefix="7/", reason="asked to")
    assert left(store, "7/a") == 2


def test_who_trusts_an_older_key_takes_what_a_later_one_signed(store: ResultStore, tmp_path: Path) -> None:
    fill(store)
    store.seal()
    old, new = rotate(tmp_path / "seal.pem")
    made = store.erase(prefix="7/", reason="asked to")
    assert made.public_key == new
    for key in (old, new):
        made.check(key)
        PAGE["require_erased"](json.loads(made.dump_bytes()), key)
    with pytest.raises(IntegrityError, match="another key"):
        made.check("ab" * 32)


@pytest.mark.parametrize("kind", list(Kind))
def test_who_may_erase(database: URL, tmp_path: Path, kind: Kind) -> None:
    owned = ResultStore(result_storage=PostgresStorage(database, f"of {kind}"))
    fill(owned)
    with logged_in(database, kind) as url:
        storage = PostgresStorage(url, f"of {kind}", settings=Settings(seal_key=tmp_path / "seal.pem"))
        if kind in (Kind.SWEEPER, Kind.OWNER):
            assert len(ResultStore(result_storage=storage).erase(prefix="7/", reason="asked to").keys) == 3
        else:
            with pytest.raises(ConfigurationError):
                ResultStore(result_storage=storage).erase(prefix="7/", reason="asked to")
        storage.close()
    assert left(owned, "7/a") == (0 if kind in (Kind.SWEEPER, Kind.OWNER) else 2)
    owned.result_storage.close()


# Fuzzed


@pytest.fixture(scope="module")
def certificate(database: URL, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    settings = Settings(seal_key=tmp_path_factory.mktemp("keys") / "seal.pem")
    storage = PostgresStorage(database, f"fuzzed-{uuid4().hex}", settings=settings)
    store = ResultStore(result_storage=storage)
    fill(store)
    made: dict[str, Any] = json.loads(store.erase(prefix="7/", reason="asked to", log_until=BACKUPS).dump_bytes())
    storage.close()
    return made


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, item in inner:
        yield from places(item, (*path, name))


VALUES = st.sampled_from(
    [None, True, 0, 1, -1, 1.5, "", "7/", "ab" * 32, [], {}, "2031-02-03T04:05:06.000007Z", "redact"]
)


@given(data=st.data())
def test_an_altered_certificate_is_refused(certificate: dict[str, Any], data: st.DataObject) -> None:
    altered = copy.deepcopy(certificate)
    *path, name = data.draw(st.sampled_from([place for place in places(certificate) if place]))
    inner: Any = altered
    for step in path:
        inner = inner[step]
    value = data.draw(VALUES)
    if data.draw(st.booleans()):
        del inner[name]
    else:
        inner[name] = value
    refuses(altered, certificate)


def refuses(altered: dict[str, Any], certificate: dict[str, Any]) -> None:
    if altered == certificate and json.dumps(altered) == json.dumps(certificate):
        return
    with pytest.raises(IntegrityError):
        check(json.dumps(altered).encode(), certificate["public_key"])
    with pytest.raises(Exception):  # noqa: B017, PT011 (whatever the page's program says)
        PAGE["require_erased"](altered, certificate["public_key"])


@given(at=st.integers(0, 10_000), byte=st.integers(0, 255))
def test_altered_bytes_are_refused(certificate: dict[str, Any], at: int, byte: int) -> None:
    data = bytearray(json.dumps(certificate).encode())
    at %= len(data)
    data[at] = byte
    try:
        if json.loads(data) == certificate:
            return
    except ValueError:
        pass
    with pytest.raises(IntegrityError):
        check(bytes(data), certificate["public_key"])
