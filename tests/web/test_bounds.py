"""What keeps the console within bounds, whatever is stored and whoever asks."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from pgresults.database.programs import perform
from pgresults.errors import InvalidArgument, StorageUnavailable
from pgresults.records.outlines import OUTLINE
from pgresults.serializers import JSONSerializer
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore
from pgresults.web.contents import _outline
from pgresults.web.figures import Figures
from pgresults.web.jobs import Jobs
from pgresults.web.options import is_loopback, plain_address
from pgresults.web.trees import tree
from tests.support.console import Browser

Console = Callable[..., Browser]


class TestFigures:
    async def test_are_made_once_for_all_who_ask(self) -> None:
        figures, made = Figures(timedelta(seconds=5)), 0

        async def count() -> int:
            nonlocal made
            made += 1
            await asyncio.sleep(0)
            return made

        found = await asyncio.gather(*(figures.get("one", count) for _ in range(5)))
        assert [figure.value for figure in found] == [1] * 5
        assert (await figures.get("one", count)).value == 1
        await figures.aclose()

    async def test_are_not_waited_for_longer_than_is_said(self) -> None:
        figures, enough = Figures(timedelta()), asyncio.Event()

        async def count() -> int:
            await enough.wait()
            return 7

        first = await figures.get("one", count)
        assert (first.value, first.coming) == (None, True)
        enough.set()
        while (found := await figures.get("one", count)).coming:
            await asyncio.sleep(0)
        assert found.value == 7
        await figures.aclose()

    async def test_that_failed_say_so_and_are_made_anew(self) -> None:
        figures = Figures(timedelta(seconds=5))

        async def fail() -> int:
            raise StorageUnavailable("away")

        async def count() -> int:
            return 7

        with pytest.raises(StorageUnavailable):
            await figures.get("one", fail)
        assert (await figures.get("one", count)).value == 7
        await figures.aclose()

    async def test_are_forgotten_when_there_are_many(self) -> None:
        figures = Figures(timedelta(seconds=5))

        async def count() -> int:
            return 7

        for name in range(1000):
            await figures.get(name, count)
        assert len(figures._kept) < 300
        await figures.aclose()


class TestJobs:
    async def test_go_on_one_of_a_kind_in_a_storage_and_few_at_once(self, storage: PostgresStorage) -> None:
        jobs, enough = Jobs(), asyncio.Event()

        async def work(_: Any) -> None:
            await enough.wait()

        def begin(kind: str) -> Any:
            return jobs.begin(kind, storage, "title", "ann", None, work)

        first = begin("verify")
        assert begin("verify") is first
        for kind in "abc":
            begin(kind)
        with pytest.raises(InvalidArgument, match="others go on"):
            begin("d")
        enough.set()
        await asyncio.gather(*(job.work for job in jobs._jobs.values()))
        assert begin("verify") is not first
        await jobs.aclose()

    async def test_that_end_with_the_console_are_ended(self, storage: PostgresStorage) -> None:
        jobs = Jobs()

        async def work(_: Any) -> None:
            await asyncio.Event().wait()

        job = jobs.begin("verify", storage, "title", "ann", None, work)
        await asyncio.sleep(0)
        await jobs.aclose()
        assert (job.goes_on, job.failure) == (False, "the console ended")


class TestTrees:
    def test_have_an_end(self) -> None:
        nested: list[Any] = []
        for _ in range(10_000):
            nested = [nested]
        wide = {str(number): "x" * 10_000 for number in range(10_000)}
        itself: list[Any] = []
        itself.append(itself)
        for value in (nested, wide, itself, 10**5000, {"a": {1: (2, {3})}}):
            assert size(tree(value)) < 100_000

    def test_say_where_they_go_on(self) -> None:
        found = tree({"a": list(range(250))})
        more = found.children[0].more
        assert more == ("0", 100, 150)
        assert [node.text for node in tree({"a": list(range(250))}, *more[:2]).children][:2] == ["100", "101"]

    @pytest.mark.parametrize("place", ["1", "0.250", "x", "-1", "0.0.0", "9" * 40, "0."])
    def test_refuse_a_place_that_is_none(self, place: str) -> None:
        with pytest.raises(InvalidArgument):
            tree({"a": list(range(250))}, place)


def size(node: Any) -> int:
    return len(node.text) + len(node.name or "") + sum(map(size, node.children))


@pytest.mark.parametrize(
    "said",
    [
        7,
        [],
        {},
        {"shape": 7},
        {"columns": 7},
        {"columns": [7, "ab", [1], [1, 2, 3], [None, {}]]},
        {"type": [1], "dtype": {}},
    ],
)
def test_an_outline_may_say_anything(said: Any) -> None:
    found = _outline(said)
    assert found is None or all(isinstance(part, str) for pair in found.columns for part in pair)


def test_what_a_writer_says_of_itself_may_be_anything(
    console: Console, storage: PostgresStorage, connection: Any
) -> None:
    ResultStore(result_storage=storage, serializer=JSONSerializer()).write(1, "k")
    said = f'{{"process": 7, "task": {{"name": [1]}}, "flow": "x", "{OUTLINE}": {{"shape": 7}}, "unreadable": null}}'
    with connection.transaction():
        connection.execute("SET LOCAL session_replication_role = replica")
        for table in ("result", "history"):
            if table == "history":
                connection.execute("ALTER TABLE pgresults.history DISABLE TRIGGER append_only")
            connection.execute(
                f"UPDATE pgresults.{table} SET provenance = %s WHERE storage_id = %s", [said, storage.id]
            )
        connection.execute("ALTER TABLE pgresults.history ENABLE ALWAYS TRIGGER append_only")
    browser = console()
    assert browser.see("/key", key="k").text
    assert browser.see("/log").text
    assert browser.see("/results").text


def test_a_key_of_the_longest_kind_is_shown(console: Console, storage: PostgresStorage) -> None:
    key = "ä" * 1024
    ResultStore(result_storage=storage).write(1, key=key, tags=[f"tag {number}" for number in range(40)])
    perform(storage._register())
    browser = console()
    assert "…" in browser.see("/log").text
    assert browser.see("/key", key=key).status == 200


@pytest.mark.parametrize(
    ("address", "own"),
    [
        ("127.0.0.1", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("localhost", True),
        ("10.0.0.1", False),
        ("", False),
    ],
)
def test_an_address_is_this_machines_own(address: str, own: bool) -> None:
    assert is_loopback(address) is own


def test_an_address_is_the_same_in_both_versions() -> None:
    assert plain_address("::ffff:192.0.2.9") == "192.0.2.9"
    assert plain_address("testclient") == "testclient"
