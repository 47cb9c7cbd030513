"""Arguments, results and failures of calls in other processes arrive as themselves."""

import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL

from pgresults import task
from pgresults.errors import PgResultsError, SerializationError
from tests.support.database import psycopg_url
from tests.support.programs import python, written


@pytest.fixture
def run(fresh_url: URL, tmp_path: Path) -> Callable[[str], list[str]]:
    """Runs a program on this test's database; says what it printed."""

    def run(source: str, *arguments: str) -> list[str]:
        written(tmp_path, {"program.py": source})
        return python(
            *(arguments or ("program.py",)), directory=tmp_path, PGRESULTS_DATABASE_URL=psycopg_url(fresh_url)
        )

    return run


CLASSES = """
import enum, sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pydantic import BaseModel
from pgresults import ResultStore, task
from pgresults.cache_policies import INPUTS

class Color(enum.Enum):
    RED = 1
    GREEN = 2

@dataclass(frozen=True)
class Row:
    x: int
    color: Color = Color.RED

class Model(BaseModel):
    row: Row

def work(color, row, model):
    assert color is Color.RED, color
    assert type(row) is Row and type(model) is Model and type(model.row) is Row
    return [color, row, model, Row, {row: color}]

def check(results):
    color, row, model, cls, pairs = results[0]
    assert color is Color.RED and row == Row(1) and type(row) is Row and cls is Row
    assert type(model) is Model and model == Model(row=Row(1)) and pairs[Row(1)] is Color.RED
    print("as themselves")
"""


@pytest.mark.parametrize(
    ("options", "started"),
    [
        ("cache_policy=INPUTS", "-m program"),
        *(
            pytest.param(*both, marks=pytest.mark.slow)
            for both in (("", "program.py"), ("", "-m program"), ("cache_policy=INPUTS", "program.py"))
        ),
    ],
)
def test_classes_of_a_program_arrive_as_themselves(run: Callable[..., list[str]], options: str, started: str) -> None:
    source = f"""{CLASSES}
@task({options})
def made(color, row, model):
    return work(color, row, model)

given = [Color.RED], [Row(1)], [Model(row=Row(1))]
if __name__ == "__main__":
    check(made.map(*given, processes=1))
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        check(made.with_options(refresh_cache=True).map(*given, executor=pool))
    check(made.map(*given))
    check([made(Color.RED, Row(1), Model(row=Row(1)))])
"""
    assert run(source, *started.split()) == ["as themselves"] * 4
    if options:
        assert run(source, *started.split()) == ["as themselves"] * 4


def test_what_a_worker_stores_any_program_reads(run: Callable[..., list[str]], tmp_path: Path) -> None:
    source = f"""{CLASSES}
@task(result_storage_key="rows")
def made(x):
    return [Row(x), Color.GREEN, lambda: Row(x)]

if __name__ == "__main__":
    made.map([3], processes=1)
"""
    assert run(source) == []
    assert run(
        "from pgresults import ResultStore\nrow, color, made = ResultStore().read('rows').result\n"
        "print(row, type(row).__module__, color, made())",
    ) == ["Row(x=3, color=<Color.RED: 1>) __main__ Color.GREEN Row(x=3, color=<Color.RED: 1>)"]


FAILING = """
import traceback
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pgresults import task

class MyError(Exception):
    def __init__(self, *, code):
        super().__init__(f"code {code}")
        self.code = code

class Gone(OSError):
    def __init__(self, path):
        super().__init__(2, "gone", path)

@task
def fail(code):
    try:
        raise Gone("/x")
    except OSError as cause:
        error = MyError(code=code)
        error.add_note("noted")
        raise error from cause

def attempt(**options):
    try:
        fail.map([3], **options)
    except MyError as error:
        cause = error.__cause__
        print(str(error), error.code, error.args, error.__notes__, type(cause) is Gone, cause.filename, cause.errno)
        print("in fail" in "".join(traceback.format_exception(error)))

if __name__ == "__main__":
    attempt()
    attempt(processes=1)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        attempt(executor=pool)
"""


def test_failures_of_a_program_arrive_as_themselves(run: Callable[..., list[str]]) -> None:
    assert run(FAILING) == ["code 3 3 ('code 3',) ['noted'] True /x 2", "True"] * 3


def test_what_was_set_when_the_program_began_holds_in_workers(run: Callable[..., list[str]]) -> None:
    assert run(
        """
        from pgresults import task

        factor = 1

        @task
        def scale(x):
            return x * factor * more

        if __name__ == "__main__":
            factor, more = 5, 2
            print(scale.map([3], processes=1))
        """
    ) == ["[30]"]


@pytest.mark.slow
def test_an_inner_task_of_a_worker_has_the_key_that_it_has_here(run: Callable[..., list[str]]) -> None:
    source = """
        from pgresults import task
        from pgresults.cache_policies import INPUTS, TASK_SOURCE
        from pgresults.tasks import explain

        @task(cache_policy=INPUTS + TASK_SOURCE)
        def inner(x):
            return x

        @task
        def outer(x):
            return inner(x)

        if __name__ == "__main__":
            outer.map([1], processes=1)
            print(explain(inner, 1).hit)
        """
    assert run(source) == ["True"]
    assert run(source, "-m", "program") == ["True"]


@task
def given_back(x: Any) -> Any:
    """Give an argument back."""
    return x


class Unreadable:
    """Can be sent, but not received."""

    def __reduce__(self) -> Any:
        return int, ("no number",)


class Unsendable(Exception):  # noqa: N818 (its name is what the test looks for)
    """Cannot be sent."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.lock = threading.Lock()


@task
def fail_with(kind: str) -> None:
    """Fail in one of several ways."""
    if kind == "unsendable":
        raise Unsendable("too much")
    raise {"system exit": SystemExit(3), "stop": StopAsyncIteration(1), "key": KeyError("k")}[kind]


@pytest.fixture(scope="module")
def pool() -> Any:
    """One process for several tests."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        yield pool


def test_what_cannot_be_sent_is_said_and_the_process_lives(pool: ProcessPoolExecutor) -> None:
    with pytest.raises(SerializationError, match=r"cannot be pickled \(TypeError: cannot pickle '_thread.lock'"):
        given_back.map([threading.Lock()], executor=pool)
    with pytest.raises(ValueError, match="no number"):
        given_back.map([Unreadable()], executor=pool)
    assert given_back.map([1], executor=pool) == [1]


def test_what_a_worker_cannot_send_is_said_and_the_process_lives(pool: ProcessPoolExecutor) -> None:
    with pytest.raises(SerializationError, match="cannot pickle"):
        task(threading_lock).map([1], executor=pool)
    with pytest.raises(PgResultsError, match=r"Unsendable: too much.*cannot be sent"):
        fail_with.map(["unsendable"], executor=pool)
    with pytest.raises(SystemExit) as ended:
        fail_with.map(["system exit"], executor=pool)
    assert ended.value.code == 3
    with pytest.raises(StopAsyncIteration):
        fail_with.map(["stop"], executor=pool)
    with pytest.raises(KeyError) as missing:
        fail_with.map(["key"], executor=pool)
    assert "in fail_with" in str(missing.value.__cause__)
    assert given_back.map([1], executor=pool) == [1]


def threading_lock(_: int) -> Any:
    """Give what cannot be pickled."""
    return threading.Lock()
