"""What a map takes: iterables of one length, by position or name, and values for all calls; sync and async."""

import itertools
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from pgresults import PostgresStorage, task, unmapped
from pgresults.cache_policies import INPUTS
from pgresults.errors import InvalidArgument

Map = Callable[..., Awaitable[list[Any]]]


@task
def joined(a: Any, b: Any = "-", c: Any = "-") -> str:
    """Show what came."""
    return f"{a}{b}{c}"


@task
async def ajoined(a: Any, b: Any = "-", c: Any = "-") -> str:
    """Show what came."""
    return f"{a}{b}{c}"


class Unequal:
    """As an array, it is not to be asked whether it is equal to anything."""

    def __eq__(self, other: object) -> bool:
        raise AssertionError

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return "?"


@pytest.fixture(params=["map", "amap", "amap of an async task"])
def mapped(request: pytest.FixtureRequest) -> Map:
    """Maps a task in each of the ways there are."""

    async def mapped(*args: Any, **kwargs: Any) -> list[Any]:
        if request.param == "map":
            return joined.map(*args, **kwargs)
        return await (joined if request.param == "amap" else ajoined).amap(*args, **kwargs)

    return mapped


async def test_iterables_keywords_and_values_for_all(mapped: Map) -> None:
    assert await mapped([1, 2], [3, 4]) == ["13-", "24-"]
    assert await mapped([1, 2], c=[3, 4]) == ["1-3", "2-4"]
    assert await mapped([1, 2], unmapped([0]), c=iter("xy")) == ["1[0]x", "2[0]y"]
    assert await mapped(unmapped("abc"), b=(n for n in (1, 2))) == ["abc1-", "abc2-"]
    assert await mapped(a=range(2), b=unmapped(None)) == ["0None-", "1None-"]
    assert await mapped([]) == await mapped([], b=unmapped(1)) == []
    assert await mapped([Unequal(), Unequal()], [3, 4]) == ["?3-", "?4-"]
    same = iter([1, 2, 3, 4])
    assert await mapped(same, same) == ["12-", "34-"]


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("args", "kwargs", "said"),
    [
        (([1, 2, 3], [1, 2]), {}, "'b' ended after 2 items, and there are more of 'a'"),
        (([1, 2], [1, 2, 3]), {}, "'a' ended after 2 items, and there are more of 'b'"),
        (([], [1]), {}, "'a' ended after 0 items"),
        (([1, 2],), {"c": [1]}, "'c' ended after 1 items, and there are more of 'a'"),
        ((itertools.count(), [1, 2]), {}, "'b' ended after 2 items, and there are more of 'a'"),
        (([1, 2], itertools.repeat(1)), {}, r"'a' ended.*unmapped\(value\)"),
        (("abc", [1, 2, 3]), {}, r"'a' is mapped over, but is a str.*unmapped\(value\)"),
        (([1, 2], b"ab"), {}, "'b' is mapped over, but is a bytes"),
        (([1], 5), {}, "'b' is mapped over, but is a int"),
        (([1],), {"c": None}, "'c' is mapped over, but is a NoneType"),
        ((), {}, "nothing to map over"),
        ((unmapped(1),), {"b": unmapped(2)}, "nothing to map over"),
    ],
)
async def test_what_is_refused(mapped: Map, args: Any, kwargs: Any, said: str) -> None:
    with pytest.raises(InvalidArgument, match=said):
        await mapped(*args, **kwargs)


async def test_a_parameter_that_there_is_not(mapped: Map) -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'd'"):
        await mapped([1], d=[2])
    with pytest.raises(TypeError, match="multiple values for argument 'a'"):
        await mapped([1], a=[2])


def test_an_async_task_says_how_it_is_mapped(storage: PostgresStorage) -> None:
    work = ajoined.with_options(result_storage=storage, cache_policy=INPUTS)
    with pytest.raises(TypeError, match=r"await ajoined\.amap"):
        work.map([1])


async def test_an_async_task_takes_no_executor() -> None:
    with pytest.raises(InvalidArgument, match="awaited on this event loop"):
        await ajoined.amap([1], processes=2)


def test_a_value_for_all_is_a_value() -> None:
    assert unmapped([1]) == unmapped([1]) != unmapped([2])
    assert unmapped(value=3).value == 3
    assert repr(unmapped("a")) == "unmapped(value='a')"
