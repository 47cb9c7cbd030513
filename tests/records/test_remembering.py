"""What is remembered of objects is bounded, and is true of them alone."""

import threading
from typing import Any

import pandas as pd
import pytest

from pgresults.records import remembering
from pgresults.records.lineage import Origin
from pgresults.records.remembering import Remembered
from tests.tasks.test_lineage import Frame


def test_what_cannot_be_referred_to_weakly_is_kept_alive_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembering, "_STRONG", 3)
    monkeypatch.setattr(remembering, "_STRONG_BYTES", 100)
    memory, lists = Remembered(), [[n] for n in range(5)]
    for n, one in enumerate(lists):
        memory.keep(one, (origin(n),), (), 10)
    assert [len(memory.origins_in([one])) for one in lists] == [0, 0, 1, 1, 1]
    memory.keep(big := ["big"], (origin(9),), (), 90)
    assert [len(memory.origins_in([one])) for one in [*lists, big]] == [0, 0, 0, 0, 1, 1]
    memory.keep(["huge"], (origin(10),), (), 1000)
    assert len(memory) == 0


def test_an_object_that_takes_the_place_of_another_tells_nothing() -> None:
    memory = Remembered()
    for n in range(200):
        frame = Frame(n)
        assert memory.origins_in([frame]) == []
        memory.keep(frame, (origin(n),), (), 0)
        assert len(memory.origins_in([frame, [frame], {"x": frame}])) == 1
    del frame
    assert len(memory) == 0


def test_circles_and_large_lists_end() -> None:
    memory = Remembered()
    circle: list[Any] = [1]
    circle.append(circle)
    memory.keep(circle, (origin(1),), (), 0)
    assert len(memory.origins_in([circle, {"c": circle}])) == 1
    parts = [Frame(n) for n in range(5000)]
    memory.keep(parts, (origin(2),), (), 0)
    assert len(memory.origins_in([parts[0]])) == 1
    assert memory.origins_in([parts[-1]]) == []


class Odd(dict[str, Any]):
    def values(self) -> Any:
        raise RuntimeError("what is in it is loaded, and cannot be")


class Lazy:
    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        raise RuntimeError("it stands for something that is not there")


@pytest.mark.parametrize("kind", [Odd, Lazy])
def test_what_is_looked_into_runs_no_code_of_its_own(kind: Any) -> None:
    memory, odd = Remembered(), kind()
    memory.keep([odd], (origin(1),), (), 0)
    assert len(memory.origins_in([odd])) == 1


@pytest.mark.parametrize("missing", [pd.NA, pd.NaT], ids=repr)
def test_what_is_missing_in_frames_is_the_same_everywhere(missing: Any) -> None:
    memory = Remembered()
    memory.keep([missing], (origin(1),), (), 0)
    assert memory.origins_in([missing]) == []


def test_threads_remember_together() -> None:
    memory, frames = Remembered(), [[Frame(n) for n in range(300)] for _ in range(4)]

    def keep(mine: list[Frame]) -> None:
        for n, frame in enumerate(mine):
            memory.keep(frame, (origin(n),), (), 0)

    threads = [threading.Thread(target=keep, args=[mine]) for mine in frames]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(memory.origins_in([frame])[0].version == n for mine in frames for n, frame in enumerate(mine))


def origin(n: int) -> Any:
    return Origin(f"k{n}", "place", None, n)
