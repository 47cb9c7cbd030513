"""The commands of the program: all are there, and what one does not need is not imported."""

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import typer
from typer.main import get_group

from pgresults import cli
from pgresults.cli import commands

HEAVY = {"alembic", "cryptography", "numpy", "pyarrow"}


def test_every_command_of_every_module_is_in_the_program() -> None:
    registered = {}
    for path in Path(cli.__file__).parent.glob("*.py"):
        module = import_module(f"pgresults.cli.{path.stem}")
        if hasattr(module, "register"):
            app = typer.Typer()
            module.register(app)
            registered |= dict.fromkeys(get_group(app).commands, path.stem)
    groups = {name: f"a group of {module}" for name, module in commands._GROUPS.items()}
    assert {name: commands._MODULES[name] for name in registered} == registered
    assert set(commands.Commands()) == registered.keys() | groups.keys()


def _imported(*arguments: str) -> set[str]:
    program = "import sys; from pgresults.cli import main\ntry: main()\nfinally: print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True)
    return set(done.stderr.split())


@pytest.mark.parametrize(
    ("arguments", "without"),
    [
        (["--version"], HEAVY | {"sqlalchemy", "psycopg", "pydantic"}),
        (["config", "--help"], HEAVY),
        (["ls", "--help"], HEAVY | {"pgresults.cli.sealing", "pgresults.cli.transfer"}),
    ],
)
def test_a_command_imports_what_it_needs(arguments: list[str], without: set[str]) -> None:
    assert not _imported(*arguments) & without
