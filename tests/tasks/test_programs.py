"""Tasks of programs: whose results they find, run after run."""

from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import URL

from tests.support.database import psycopg_url
from tests.support.programs import python, written

Run = Callable[..., list[str]]

TASK = """
from pgresults import task
from pgresults.cache_policies import INPUTS, TASK_SOURCE

@task(cache_policy=INPUTS)
def load(tag):
    print("computed", end=" ")
    return f"{tag} of NAME"

print(load("a"))
"""


@pytest.fixture
def run(tmp_path: Path, fresh_url: URL) -> Run:
    """Runs Python in a directory, with a database of the test's own."""

    def run(*arguments: str, typed: str | None = None, **environment: str) -> list[str]:
        return python(
            *arguments, directory=tmp_path, typed=typed, PGRESULTS_DATABASE_URL=psycopg_url(fresh_url), **environment
        )

    return run


def test_two_programs_with_a_task_of_one_name(run: Run, tmp_path: Path) -> None:
    written(tmp_path, {"sales.py": TASK.replace("NAME", "sales"), "stock.py": TASK.replace("NAME", "stock")})
    assert run("sales.py") == ["computed a of sales"]
    assert run("stock.py") == ["computed a of stock"]
    assert run("sales.py") == ["a of sales"]
    assert run("-m", "cProfile", "-o", "out", "sales.py") == ["a of sales"]
    assert run("-m", "sales") == ["computed a of sales"]  # a module, which others may import
    assert run("-c", "import sales") == ["a of sales"]


@pytest.mark.slow
def test_programs_without_a_file(run: Run) -> None:
    one, other = TASK.replace("NAME", "one"), TASK.replace("NAME", "other")
    assert run("-", typed=one) == ["computed a of one"]
    assert run("-", typed=other) == ["computed a of other"]
    assert run("-c", one) == ["a of one"]  # the same code: there is nothing else to tell it by


@pytest.mark.slow
def test_a_package_is_the_same_started_and_imported(run: Run, tmp_path: Path) -> None:
    written(tmp_path, {"pkg/__init__.py": "", "pkg/mod.py": TASK.replace("NAME", "mod")})
    assert run("-m", "pkg.mod") == ["computed a of mod"]
    assert run("-c", "import pkg.mod") == ["a of mod"]


BRANCHES = """
import sys
from pgresults import task
from pgresults.cache_policies import INPUTS

if sys.argv[1] == "double":
    @task(cache_policy=INPUTS)
    def change(x):
        return x * 2
else:
    @task(cache_policy=INPUTS)
    def change(x):
        return x + 100

class Scale:
    if sys.argv[1] == "double":
        @staticmethod
        @task(cache_policy=INPUTS)
        def change(x):
            return x * 2
    else:
        @staticmethod
        @task(cache_policy=INPUTS)
        def change(x):
            return x + 100

def scaled(by):
    def decorate(fn):
        from functools import wraps
        @wraps(fn)
        def scale(x):
            return by * fn(x)
        return scale
    return decorate

@task(cache_policy=INPUTS)
@scaled(2 if sys.argv[1] == "double" else 100)
def scale(x):
    return x

print(change(10), Scale.change(10), scale(10))
"""


@pytest.mark.slow
def test_a_name_that_is_now_this_and_now_that(run: Run, tmp_path: Path) -> None:
    written(tmp_path, {"job.py": BRANCHES})
    assert run("job.py", "double") == ["20 20 20"]
    assert run("job.py", "add") == ["110 110 1000"]
    assert run("job.py", "double") == ["20 20 20"]


EDITED = """
from pathlib import Path
from pgresults import task
from pgresults.cache_policies import INPUTS, TASK_SOURCE

@task(cache_policy=INPUTS + TASK_SOURCE)
def version(x):
    return "old"

path = Path(__file__)
path.write_text(path.read_text().replace("old", "new", 1))
print(version(1))
"""


def test_a_file_that_is_edited_while_it_runs(run: Run, tmp_path: Path) -> None:
    written(tmp_path, {"job.py": EDITED})
    assert run("job.py") == ["old"]
    assert run("job.py") == ["new"]
    written(tmp_path, {"job.py": EDITED})
    assert run("job.py") == ["old"]


WITHOUT_FILE = """
import math
from pgresults import task
from pgresults.cache_policies import INPUTS, TASK_SOURCE

@task(cache_policy=TASK_SOURCE + INPUTS)
def rounded(x):
    print("computed", end=" ")
    return [*map(lambda y: math.floor(y), (x,))], x in {"a", "b", "c"}

print(rounded(1.5))
"""


@pytest.mark.slow
def test_code_without_a_file_is_the_same_in_every_process(run: Run) -> None:
    assert run("-c", WITHOUT_FILE, PYTHONHASHSEED="1") == ["computed ([1], False)"]
    assert run("-c", WITHOUT_FILE, PYTHONHASHSEED="2") == ["([1], False)"]
    assert run("-", typed=WITHOUT_FILE.replace("floor", "ceil")) == ["computed ([2], False)"]


OWN_CLASSES = """
from dataclasses import dataclass
from enum import Enum
import numpy as np
from pgresults import task
from pgresults.cache_policies import INPUTS

class Color(Enum):
    RED = "red"

@dataclass
class Row:
    number: int
    color: Color

class Plain:
    def __init__(self, names):
        self.names = names

def helper(x):
    return x

@task(cache_policy=INPUTS)
def work(*values):
    print("computed", end=" ")
    return len(values)

mixed = {"names": {"c", "a", "b"}, "array": np.arange(3)}
print(work(Row(1, Color.RED), Plain({"x", "y"}), mixed, Color, Plain, helper, helper.__get__(Plain(1)), lambda: helper))
"""


def test_what_a_script_defines_has_one_key_in_every_process(run: Run, tmp_path: Path) -> None:
    written(tmp_path, {"job.py": OWN_CLASSES, "twin.py": OWN_CLASSES})
    assert run("job.py", PYTHONHASHSEED="1") == ["computed 8"]
    assert run("job.py", PYTHONHASHSEED="2") == ["8"]
    assert run("twin.py") == ["computed 8"]


MAPPED = """
from functools import wraps
from pgresults import task
from pgresults.cache_policies import INPUTS
from pgresults.tasks import explain

def tripled(fn):
    def triple(x):
        return 3 * fn(x)
    return triple

@task(cache_policy=INPUTS)
@tripled
def work(x):
    return x

@task(cache_policy=INPUTS)
def plain(x):
    return x

@task
def keys(x):
    return work.identity, work.code_hash, plain.identity, plain.code_hash

def adder(number):
    @task(cache_policy=INPUTS)
    def add(x):
        return x + number, add.identity
    return add

if __name__ == "__main__":
    there = keys.map([1], processes=1)[0]
    assert there == keys(1), (there, keys(1))
    add = adder(5)
    assert add.map([1], processes=1) == [(6, add.identity)]
    print("same")
"""


def test_what_a_function_is_travels_to_other_processes(run: Run, tmp_path: Path) -> None:
    written(tmp_path, {"job.py": MAPPED, "pkg/__init__.py": "", "pkg/job.py": MAPPED})
    assert run("job.py") == ["same"]
    assert run("-m", "pkg.job") == ["same"]


POOL = """
from multiprocessing import get_context
from pgresults import task
from pgresults.cache_policies import INPUTS

@task(cache_policy=INPUTS)
def load(tag):
    print("computed", end=" ", flush=True)
    return tag

def call(tag):
    return load(tag)

if __name__ == "__main__":
    with get_context("spawn").Pool(1) as pool:
        print(pool.apply(load, ("a",)), pool.apply(call, ("a",)), load("a"))
"""


@pytest.mark.slow
def test_processes_of_a_program_are_the_program(run: Run, tmp_path: Path) -> None:
    written(tmp_path, {"job.py": POOL})
    assert run("job.py") == ["computed a a a"]
    (tmp_path / "link.py").symlink_to("job.py")
    assert run("link.py") == ["a a a"]
