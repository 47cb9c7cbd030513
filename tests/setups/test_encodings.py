"""Databases whose encoding lacks characters: what can be stored comes back, the rest is refused, not tried again."""

from collections.abc import Iterator
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import URL

from pgresults import PostgresStorage, ResultStore, task
from pgresults.database import migrations
from pgresults.database.programs import perform
from pgresults.errors import InvalidArgument
from tests.setups.test_settings import workout
from tests.support.calls import Call
from tests.support.database import psycopg_url

HAS = {"LATIN1": "größe", "EUC_JP": "日本", "LATIN2": "źródło"}
LACKS = {"LATIN1": "€", "EUC_JP": "🐘", "LATIN2": "日本"}


@pytest.fixture(scope="module", params=sorted(HAS))
def encoded(server_url: URL, request: pytest.FixtureRequest) -> Iterator[tuple[URL, str]]:
    """A database in an encoding."""
    name = f"pgresults_encoded_{uuid4().hex[:12]}"
    with psycopg.connect(psycopg_url(server_url), autocommit=True) as connection:
        connection.execute(sql.SQL(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING '{request.param}' LOCALE 'C'"))
        url = server_url.set(database=name)
        migrations.upgrade(url.set(drivername="postgresql+psycopg"))
        yield url, request.param
        connection.execute(sql.SQL(f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture
def store(encoded: tuple[URL, str]) -> Iterator[ResultStore]:
    storage = PostgresStorage(encoded[0], f"test-{uuid4().hex}")
    yield ResultStore(result_storage=storage, lock_manager=storage.lock_manager())
    storage.close()


def test_a_workout(store: ResultStore) -> None:
    workout(store)


async def test_what_the_encoding_has_comes_back(call: Call, store: ResultStore, encoded: tuple[URL, str]) -> None:
    text = HAS[encoded[1]]
    await call(store, "write", text, text, tags=[text], provenance={text: text})
    await call(store, "write", LACKS[encoded[1]], f"{text}/other")
    assert (await call(store, "read", text)).result == text
    assert (await call(store, "read", f"{text}/other")).result == LACKS[encoded[1]]
    assert [found.key for found in await call(store, "find", tags=[text])] == [text]
    assert [found.key for found in await call(store, "find", prefix=f"{text}/")] == [f"{text}/other"]
    assert [listed.key for listed in perform(store.result_storage._page("", "", 10))] == [text, f"{text}/other"]
    assert await call(store, "acquire_lock", text, text)
    assert [held.holder for held in await call(store.lock_manager, "held_locks")] == [text]
    await call(store, "release_lock", text, text)
    assert (await call(store, "verify")).intact
    assert await call(store, "invalidate", prefix=f"{text}/") == 1


async def test_what_it_lacks_is_refused(call: Call, store: ResultStore, encoded: tuple[URL, str]) -> None:
    text = LACKS[encoded[1]]
    await call(store, "write", 0, "before")
    for name, given in [
        ("write", {"obj": 1, "key": text}),
        ("write", {"obj": 1, "key": "k", "tags": [text]}),
        ("write", {"obj": 1, "key": "k", "provenance": {"said": text}}),
        ("write_many", {"items": {"k": 1, text: 2}}),
        ("write", {"obj": bytes(3_000_000), "key": text}),
        ("read", {"key": text}),
        ("exists", {"key": text}),
        ("delete", {"key": text}),
        ("acquire_lock", {"key": text, "holder": "me"}),
        ("acquire_lock", {"key": "k", "holder": text}),
        ("find", {"tags": [text]}),
    ]:
        with pytest.raises(InvalidArgument, match=encoded[1]):
            await call(store, name, **given)
    assert [found.key for found in await call(store, "find")] == ["before"]
    assert not await call(store, "is_locked", "k")
    assert (await call(store, "verify")).intact


async def test_a_prefix_finds_all_or_is_refused(call: Call, store: ResultStore, encoded: tuple[URL, str]) -> None:
    """The end of what begins with a character is found by its number, which is not its place in every encoding."""
    text = HAS[encoded[1]]
    await call(store, "write", 1, text)
    for length in range(1, len(text)):
        prefix = text[:length]
        if prefix[-1].isascii() or encoded[1] == "LATIN1":
            assert [found.key for found in await call(store, "find", prefix=prefix)] == [text]
            continue
        for name in ("find", "invalidate"):
            with pytest.raises(InvalidArgument, match=encoded[1]):
                await call(store, name, prefix=prefix)


def test_a_storage_whose_name_it_lacks_is_refused(encoded: tuple[URL, str]) -> None:
    storage = PostgresStorage(encoded[0], LACKS[encoded[1]])
    with pytest.raises(InvalidArgument, match=encoded[1]):
        ResultStore(result_storage=storage).write(1, key="k")
    storage.close()


def test_a_task_whose_name_it_lacks_says_so(store: ResultStore, encoded: tuple[URL, str]) -> None:
    named = task(lambda: 1, name=LACKS[encoded[1]], result_storage=store.result_storage, persist_result=True)
    with pytest.raises(InvalidArgument, match=encoded[1]):
        named()


def test_a_check_warns(encoded: tuple[URL, str]) -> None:
    (doubt,) = migrations.require_sound(encoded[0])
    assert encoded[1] in doubt
    assert "UTF8" in doubt
