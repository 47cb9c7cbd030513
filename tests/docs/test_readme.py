"""The README: every block runs, and the table of commands is complete."""

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import typer
from sqlalchemy import URL

from pgresults.cli.app import app
from tests.support.database import psycopg_url
from tests.support.documents import ROOT, Reader, parse

README = (ROOT / "README.md").read_text()
BLOCKS = parse(README)

SET_UP = re.compile(r"pip install -e '\.\[(\w+)\]' && (.*)\n")


@pytest.fixture
def reader(fresh_url: URL, server_url: URL, tmp_path: Path) -> Reader:
    """Somebody with a migrated database, and a server where the tests may make theirs."""
    return Reader(tmp_path, {"team": fresh_url, "postgres": server_url})


def blocks(language: str) -> list[str]:
    return [block.text for block in BLOCKS if block.language == language]


def test_every_block_is_of_a_kind_that_runs() -> None:
    assert {block.language for block in BLOCKS} == {"sh", "python", "sql"}


def test_the_two_commands() -> None:
    assert "```sh\npip install -e '.[embedded]' && pgresults demo\n```" in README
    assert "```sh\npip install -e '.[dev]' && pytest\n```" in README


@pytest.mark.parametrize("block", [block for block in blocks("sh") if SET_UP.fullmatch(block)])
def test_set_up_blocks(block: str, reader: Reader) -> None:
    match = SET_UP.fullmatch(block)
    assert match is not None
    extra, command = match.groups()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert extra in project["optional-dependencies"]
    if command == "pytest":  # this is it: a run within a run only shows that it would start
        done = reader.shell("pytest --collect-only -q -n0", ROOT)
        assert "tests collected" in done.stdout
    else:
        done = reader.shell(f"{command} --limit 3")
        assert "3 modules: 3 computed" in done.stdout
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("block", [block for block in blocks("sh") if not SET_UP.fullmatch(block)])
def test_shell_blocks(block: str, reader: Reader) -> None:
    if block.endswith(" pytest\n"):  # one test stands for all: they are running
        done = reader.shell(block.strip() + " -n0 -q tests/store/test_store.py -k exists", ROOT)
        assert " passed" in done.stdout
    else:
        done = reader.shell(block, ROOT) if "examples/" in block else reader.shell(block)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_examples_are_all_named() -> None:
    assert set(re.findall(r"^python (.+)$", README, re.MULTILINE)) == {
        path.relative_to(ROOT).as_posix() for path in (ROOT / "examples").glob("*.py")
    }


@pytest.mark.parametrize("block", blocks("python"))
def test_python_blocks(block: str, reader: Reader) -> None:
    (reader.directory / "program.py").write_text(block)
    for _ in range(2):
        done = reader.shell(f"'{sys.executable}' -W error -W ignore::ResourceWarning program.py")
        assert (done.returncode, done.stderr) == (0, "")
        assert "version 1 " in done.stdout


@pytest.mark.parametrize("block", blocks("sql"))
def test_sql_blocks(block: str, reader: Reader) -> None:
    assert reader.shell("pgresults put greeting hello").returncode == 0
    with psycopg.connect(psycopg_url(reader.database)) as connection:
        assert len(connection.execute(block.encode()).fetchall()) == 1


def test_a_wrong_block_is_noticed(reader: Reader) -> None:
    assert reader.shell("pgresults db no-such-command\npgresults ls").returncode == 2


def commands(group: Any, prefix: str = "pgresults") -> Iterator[tuple[str, Any]]:
    """Every command with its full name."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{prefix} {name}")
        else:
            yield f"{prefix} {name}", command


def test_the_table_names_every_command() -> None:
    listed = re.findall(r"^\| `(pgresults [a-z -]+[a-z])", README, re.MULTILINE)
    assert sorted(listed) == sorted(name for name, _ in commands(typer.main.get_command(app)))


def test_named_options_are_there() -> None:
    program = typer.main.get_command(app)
    known = {option for _, command in commands(program) for parameter in command.params for option in parameter.opts}
    known.update(option for parameter in program.params for option in parameter.opts)
    assert set(re.findall(r"`(--[a-z-]+)", README)) <= known


def test_named_views_are_there(fresh_url: URL) -> None:
    (views,) = re.findall(r"The views (.+) are for", README)
    with psycopg.connect(psycopg_url(fresh_url)) as connection:
        for view in re.findall(r"`(\w+)`", views):
            connection.execute(f"SELECT 1 FROM pgresults.{view}".encode())
