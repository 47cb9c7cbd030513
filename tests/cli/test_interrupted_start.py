"""Ctrl-C while the program starts: it ends, without a traceback."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.cli import PROGRAM

HOOK = """
import os, signal, sys
from importlib.abc import MetaPathFinder

class Interrupting(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == {name!r}:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupting())
"""


def interrupted(directory: Path, name: str, *command: str) -> "subprocess.CompletedProcess[str]":
    """The program, interrupted when it begins to import a module."""
    (directory / "sitecustomize.py").write_text(HOOK.format(name=name))
    program = f"import sys; sys.path.insert(0, {str(directory)!r}); import sitecustomize; import runpy; "
    program += f"sys.argv = {[str(PROGRAM), *command]!r}; runpy.run_path({str(PROGRAM)!r}, run_name='__main__')"
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(directory), "PYTHONPATH": ":".join(sys.path)}
    return subprocess.run(
        [sys.executable, "-S", "-c", program],
        env=environment,
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("name", ["sqlalchemy", "typer", "pgresults.cli.app", "pgresults.cli.listing"])
def test_no_traceback(tmp_path: Path, name: str) -> None:
    done = interrupted(tmp_path, name, "ls")
    assert (done.returncode, done.stdout, done.stderr) in [(-signal.SIGINT, "", ""), (130, "", "")]


def test_the_hook_hits(tmp_path: Path) -> None:
    done = interrupted(tmp_path, "no.such.module", "--version")
    assert (done.returncode, done.stderr) == (0, "")
