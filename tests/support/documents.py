"""Documents whose blocks run, in order and in what the blocks before them left behind.

A block is ``python``, ``sh``, ``sql``, ``toml`` (put into ``pyproject.toml``) or ``ini`` (a service). A ``text`` block
is the output of the one above it: ``…`` there stands for what differs from run to run, on a line of its own for any
lines.
"""

import configparser
import contextlib
import io
import linecache
import os
import pty
import re
import shlex
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import psycopg
from psycopg import sql
from sqlalchemy import URL

from pgresults.server import binaries
from tests.support.database import psycopg_url

ROOT = Path(__file__).parents[2]
SCRIPTS = Path(sysconfig.get_path("scripts"))

_SOMEBODYS_URL = re.compile(
    r"postgresql://(\w+):\w+@(?:db\.example(?:\.com)?|standby\.example\.com|localhost)/(\w+)(?:\?([\w=&%.-]+))?"
)
"""The database of a reader, whose place the tests' own takes."""

_FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_ROLE = re.compile(r"\bCREATE ROLE (\w+)")
_OUTPUT = "text"

_PIP = """#!{python}
import re, sys
from importlib.metadata import metadata
action, *wanted = sys.argv[1:]
assert action == "install" and wanted, sys.argv
for requirement in wanted:
    name, extras = re.fullmatch(r"(\\w+)(?:\\[([\\w,]+)\\])?", requirement).groups()
    assert not extras or set(extras.split(",")) <= set(metadata(name).get_all("Provides-Extra")), requirement
"""
"""Stands for pip: what the documents have installed must exist, and is."""


class Block(NamedTuple):
    """A fenced block; ``output`` is the text that stands below it."""

    language: str
    text: str
    output: str | None
    line: int


def parse(document: str) -> list[Block]:
    """The blocks of a document, each with its output.

    Raises: ValueError for a fence that is no block, and for an output of nothing.
    """
    found = list(_FENCED.finditer(document))
    if document.count("```") != 2 * len(found) or "~~~" in document:
        raise ValueError("there is a fence that does not begin or end a block")
    blocks: list[Block] = []
    for match in found:
        language, text = match.groups()
        line = document.count("\n", 0, match.start()) + 2
        if language != _OUTPUT:
            blocks.append(Block(language, text, None, line))
        elif not blocks or blocks[-1].output is not None:
            raise ValueError(f"line {line}: an output below no block")
        else:
            blocks[-1] = blocks[-1]._replace(output=text)
    return blocks


def require_output(expected: str, printed: str) -> None:
    """Fail unless a block printed what its document says; runs of spaces count as one."""
    pattern = "".join(map(_line_pattern, _tidied(expected).splitlines()))
    assert re.fullmatch(pattern, _tidied(printed)), f"says:\n{expected}\nprinted:\n{printed}"


def _line_pattern(line: str) -> str:
    if line == "…":
        return r"(?:.*\n)*"
    return ".*".join(map(re.escape, line.split("…"))) + r"\n"


def _tidied(text: str) -> str:
    lines = (re.sub("[ \t]+", " ", line).strip() for line in text.strip("\n").splitlines())
    return "".join(f"{line}\n" for line in lines)


def client_programs(server: URL) -> Path:
    """Where pg_dump and its kin of a server's version are: with the embedded server, or where Debian has them."""
    with psycopg.connect(psycopg_url(server)) as connection:
        major = connection.info.server_version // 10_000
    return next(Path("/usr/lib/postgresql").glob(f"{major}/bin"), binaries.bin_directory())


@dataclass
class Reader:
    """Somebody who follows a document: a directory, an environment, a Python session and databases of his own.

    Parameters:
        directory: where he works; his home, too.
        databases: the first one is his; the others are for documents that speak of several, by name.
        environment: what he has set; changed by what he exports.
        compares: whether what blocks print must be what the document shows.
    """

    directory: Path
    databases: dict[str, URL]
    environment: dict[str, str] = field(default_factory=dict)
    names: dict[str, Any] = field(default_factory=lambda: {"__name__": "document"})
    renamed: dict[str, str] = field(default_factory=dict)
    compares: bool = True
    printed: str = ""

    def __post_init__(self) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PGRESULTS_")}
        tools = self.directory / ".tools"
        tools.mkdir()
        (tools / "pip").write_text(_PIP.format(python=sys.executable))
        (tools / "pip").chmod(0o755)
        path = (tools, SCRIPTS, client_programs(self.database), os.environ["PATH"])
        self.environment = {
            **kept,
            "PATH": os.pathsep.join(map(str, path)),
            "HOME": str(self.directory),
            "TERM": "dumb",
            "COLUMNS": "120",
            "PGRESULTS_DATABASE_URL": psycopg_url(self.database),
            **self.environment,
        }

    @property
    def database(self) -> URL:
        """The reader's database."""
        return next(iter(self.databases.values()))

    def follow(self, name: str, document: str) -> None:
        """Run every block of a document.

        Raises: AssertionError, or what a block raises, with the block's line in a note.
        """
        self.renamed = {role: f"{role}_{uuid4().hex[:8]}" for role in _ROLE.findall(document)}
        try:
            for block in parse(document):
                try:
                    self.run(block)
                except BaseException as error:
                    error.add_note(f"in the block at line {block.line} of {name}")
                    raise
        finally:
            self._drop_roles()

    def run(self, block: Block) -> None:
        """Run a block, keep what it prints, and compare that where the document shows it."""
        text = block.text if block.language == "sh" else self._mine(block.text)
        printed = RUNNERS[block.language](self, text)
        self.printed += printed
        if block.output is not None and self.compares:
            require_output(block.output, self._theirs(printed))

    def shell(self, script: str, cwd: Path | None = None) -> "subprocess.CompletedProcess[str]":
        """Run a script as on a terminal, with the tests' own databases in it; what it exports stays."""
        exported = self.directory / ".exported"
        script = self._mine(script, shlex.quote)
        script = f"trap 'env -0 > {shlex.quote(str(exported))}' EXIT\n{script}"
        master, terminal = pty.openpty()
        with (self.directory / ".errors").open("w+") as errors:
            process = subprocess.Popen(
                ["bash", "-euo", "pipefail", "-c", script],
                cwd=cwd or self.directory,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=terminal,
                stderr=errors,
            )
            os.close(terminal)
            printed = b"".join(_read(master)).decode().replace("\r\n", "\n")
            process.wait()
            errors.seek(0)
            done = subprocess.CompletedProcess(script, process.returncode, printed, errors.read())
        if exported.exists():
            left = (variable.partition("=") for variable in exported.read_text().split("\0"))
            self._take_over({name: value for name, _, value in left})
        return done

    def _run_shell(self, script: str) -> str:
        done = self.shell(script)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def _run_python(self, program: str) -> str:
        file = f"<document {uuid4().hex}>"
        linecache.cache[file] = (len(program), None, program.splitlines(keepends=True), file)
        printed = io.StringIO()
        with self._as_process(), contextlib.redirect_stdout(printed):
            exec(compile(program, file, "exec"), self.names)
        return printed.getvalue()

    def _run_sql(self, script: str) -> str:
        """Run statements one by one, and print rows as psql does."""
        printed = []
        with psycopg.connect(psycopg_url(self.database), autocommit=True) as connection:
            cursor = connection.execute(script.encode())
            while True:
                if cursor.description:
                    printed.append(" | ".join(column.name for column in cursor.description))
                    printed.extend(" | ".join("" if v is None else str(v) for v in row) for row in cursor)
                if not cursor.nextset():
                    return "\n".join(printed)

    def _write_project(self, text: str) -> str:
        (self.directory / "pyproject.toml").write_text(text)
        return ""

    def _run_service(self, unit: str) -> str:
        """Start what a unit of systemd's starts, until it says something."""
        parsed = configparser.ConfigParser(interpolation=None)
        parsed.optionxform = str  # type: ignore[assignment,method-assign] # names differ by case
        parsed.read_string(unit)
        service = parsed["Service"]
        process = subprocess.Popen(
            shlex.split(service["ExecStart"].replace("/usr/local/bin/", "")),
            env=self.environment | {"PYTHONUNBUFFERED": "1"},
            cwd=self.directory,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        try:
            return process.stdout.readline()
        finally:
            process.terminate()
            process.wait()
            process.stdout.close()

    @contextlib.contextmanager
    def _as_process(self) -> Iterator[None]:
        """This process in the reader's directory and environment."""
        here, before = Path.cwd(), dict(os.environ)
        try:
            os.chdir(self.directory)
            os.environ.update(self.environment)
            yield
        finally:
            self._take_over(os.environ)
            os.environ.clear()
            os.environ.update(before)
            os.chdir(here)

    def _take_over(self, left: Mapping[str, str]) -> None:
        """Set what a block has set, and unset what it has unset."""
        kept = {name: value for name, value in self.environment.items() if not name.startswith("PGRESULTS_")}
        self.environment = kept | {name: value for name, value in left.items() if name.startswith("PGRESULTS_")}

    def _mine(self, text: str, quote: Callable[[str], str] = str) -> str:
        """A block with the tests' own databases and roles in it."""
        for role, mine in self.renamed.items():
            text = re.sub(rf"\b{role}\b", mine, text)
        return _SOMEBODYS_URL.sub(lambda match: quote(self._url(*match.groups())), text)

    def _theirs(self, printed: str) -> str:
        for role, mine in self.renamed.items():
            printed = printed.replace(mine, role)
        return printed

    def _url(self, user: str, database: str, options: str | None) -> str:
        url = self.databases.get(database, self.database).update_query_string(options or "")
        if user in self.renamed.values():
            url = url.set(username=user, password="password")
        return psycopg_url(url)

    def _drop_roles(self) -> None:
        """In every database: what was dumped and restored speaks of them, too."""
        statements = ["DROP OWNED BY {} CASCADE"] * len(self.databases) + ["DROP ROLE {}"]
        for url, statement in zip([*self.databases.values(), self.database], statements, strict=True):
            with psycopg.connect(psycopg_url(url), autocommit=True) as connection:
                for role in self.renamed.values():
                    if connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [role]).fetchone():
                        connection.execute(sql.SQL(statement).format(sql.Identifier(role)))


RUNNERS: dict[str, Callable[[Reader, str], str]] = {
    "python": Reader._run_python,
    "sh": Reader._run_shell,
    "sql": Reader._run_sql,
    "toml": Reader._write_project,
    "ini": Reader._run_service,
}


def _read(terminal: int) -> Iterator[bytes]:
    """What is written to a terminal, until nobody has it open any more."""
    with contextlib.suppress(OSError):
        while content := os.read(terminal, 65536):
            yield content
    os.close(terminal)
