"""Programs of a test's own, each in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent


def written(directory: Path, sources: dict[str, str]) -> Path:
    """Write files, each under its path in a directory; gives the directory."""
    for name, source in sources.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(source))
    return directory


def python(*arguments: str | Path, directory: Path, typed: str | None = None, **environment: str) -> list[str]:
    """Run Python in a directory until it ends well.

    Parameters:
        arguments: its command line.
        directory: where it runs, and from where it imports.
        typed: its standard input.
        environment: variables beside those of this process.

    Returns: the lines that it printed.
    """
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(directory), **environment},
        input=None if typed is None else dedent(typed),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()
