"""Which program a module belongs to."""

from pathlib import Path

import pytest

from pgresults.objects import programs
from pgresults.objects.programs import ANONYMOUS, main_module_program, program_of
from tests.support.programs import python, written

SAY = "from pgresults.objects.programs import program_of; print(program_of(globals()))\n"
CHILD = """
from multiprocessing import get_context
from pgresults.objects.programs import main_module_program, program_of

def say(_):
    return program_of(globals()), main_module_program()

if __name__ == "__main__":
    with get_context("spawn").Pool(1) as pool:
        print(*say(0), *pool.apply(say, (0,)))
"""


def test_a_module_is_itself_however_it_was_started(tmp_path: Path) -> None:
    written(tmp_path, {"pkg/__init__.py": "", "pkg/mod.py": SAY, "pkg/__main__.py": SAY})
    assert python("-m", "pkg.mod", directory=tmp_path) == ["pkg.mod"]
    assert python("-c", "import pkg.mod", directory=tmp_path) == ["pkg.mod"]
    assert python("-m", "cProfile", "-o", "out", "-m", "pkg.mod", directory=tmp_path) == ["pkg.mod"]
    assert python("-m", "pkg", directory=tmp_path) == ["pkg.__main__"]
    assert python("-c", "import pkg.__main__", directory=tmp_path) == ["pkg.__main__"]


def test_a_script_is_its_file(tmp_path: Path) -> None:
    run = "import runpy; runpy.run_path('load.py', run_name='__main__')"
    written(tmp_path, {"load.py": SAY, "folder/__main__.py": SAY, "run.py": run})
    (tmp_path / "link.py").symlink_to("load.py")
    script = [str(tmp_path.resolve() / "load.py")]
    assert python("load.py", directory=tmp_path) == script
    assert python("link.py", directory=tmp_path) == script
    assert python("run.py", directory=tmp_path) == script
    assert python("-m", "cProfile", "-o", "out", "load.py", directory=tmp_path) == script
    assert python("folder", directory=tmp_path) == [str(tmp_path.resolve() / "folder" / "__main__.py")]


def test_children_belong_to_the_program_of_their_parent(tmp_path: Path) -> None:
    written(tmp_path, {"job.py": CHILD, "pkg/job.py": CHILD})
    (path,) = {name for line in python("job.py", directory=tmp_path) for name in line.split()}
    assert path == str(tmp_path.resolve() / "job.py")
    assert python("-m", "pkg.job", directory=tmp_path) == [" ".join(["pkg.job"] * 4)]


def test_what_has_no_file_is_no_program(tmp_path: Path) -> None:
    assert python("-c", SAY, directory=tmp_path) == [ANONYMOUS]
    assert python("-", directory=tmp_path, typed=SAY) == [ANONYMOUS]
    assert program_of({}) == ANONYMOUS


def test_a_notebook_is_its_path_where_the_kernel_tells_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cell = {"__name__": "__main__"}
    monkeypatch.setenv("JPY_SESSION_NAME", str(tmp_path / "a.ipynb"))
    assert program_of(cell) == ANONYMOUS  # the variable may be inherited from a notebook that started this
    assert program_of({**cell, "get_ipython": None}) == str(tmp_path.resolve() / "a.ipynb")
    assert program_of({**cell, "__vsc_ipynb_file__": "/b.ipynb"}) == "/b.ipynb"


def test_a_relative_path_stays_what_it_was(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    module = {"__name__": "__main__", "__file__": "only-here.py"}
    before = program_of(module)
    monkeypatch.chdir("/")
    assert program_of(module) == before == str(tmp_path.resolve() / "only-here.py")
    assert main_module_program() == program_of(vars(__import__("__main__")))
    programs._real.cache_clear()
