"""What README and the pages say, done by an ordinary user in an empty environment, in locales that know no UTF-8."""

import os
import pwd
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.documents import ROOT, parse

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user"),
]

LOCALES = {
    "C": {"LC_ALL": "C", "LANG": "C"},
    "POSIX, no UTF-8 mode": {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
}
README = parse((ROOT / "README.md").read_text())
NOT_COPIED = shutil.ignore_patterns(".*", "__pycache__", "site", "node_modules")
TEAM = re.compile(r"postgresql://user:password@db\.example\.com/team")


@dataclass(frozen=True)
class Newcomer:
    """Somebody who is not root, with a home and a checkout of his own, and nothing installed."""

    home: Path
    uid: int
    gid: int

    @property
    def checkout(self) -> Path:
        return self.home / "checkout"

    def shell(self, script: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        path = os.pathsep.join([str(self.home / "env" / "bin"), "/usr/local/bin", "/usr/bin", "/bin"])
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=self.checkout,
            env={"HOME": str(self.home), "TMPDIR": str(self.home), "PATH": path, **environment},
            user=self.uid,
            group=self.gid,
            extra_groups=[],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            check=False,
        )

    def does(self, script: str, **environment: str) -> str:
        """What a script prints, which succeeds."""
        done = self.shell(script, **environment)
        assert done.returncode == 0, f"{script}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
        return done.stdout


@pytest.fixture(scope="module")
def newcomer() -> Iterator[Newcomer]:
    nobody = pwd.getpwnam("nobody")
    home = Path(tempfile.mkdtemp(prefix="new-"))
    somebody = Newcomer(home, nobody.pw_uid, nobody.pw_gid)
    try:
        shutil.copytree(ROOT, somebody.checkout, ignore=NOT_COPIED)
        for path in (home, *home.rglob("*")):
            os.chown(path, nobody.pw_uid, nobody.pw_gid, follow_symlinks=False)
        somebody.does(f"{python_for(somebody)} -m venv ../env")
        yield somebody
    finally:
        shutil.rmtree(home)


def python_for(somebody: Newcomer) -> str:
    """A Python that he may run, with all that an environment needs."""
    suits = "import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))"
    for python in (sys.executable, "/usr/bin/python3", "/usr/local/bin/python3"):
        if somebody.shell(f"{python} -c '{suits}'").returncode == 0:
            return python
    pytest.skip("there is no Python of 3.11 or later that others than root may run")


def blocks(language: str) -> list[str]:
    return [block.text for block in README if block.language == language]


@pytest.mark.parametrize("locale", LOCALES)
def test_the_readme(newcomer: Newcomer, locale: str) -> None:
    install, _, stop, *others = blocks("sh")
    (program,) = blocks("python")
    spoken = LOCALES[locale]
    try:
        for again in (False, True):
            demo = newcomer.does(f"{install.strip()} --limit 20", **spoken)
            assert "0 reused" not in demo if again else " 0 reused" in demo
            (newcomer.checkout / "first.py").write_text(program)
            assert newcomer.does("python first.py", **spoken).startswith(
                "{'rows': 1000, 'failed': []} version 1 expires"
            )
        url = newcomer.does("pgresults embedded start", **spoken).strip()
        examples, team, *by_sql = (block for block in others if "pytest" not in block)
        newcomer.does(examples, **spoken)
        ours = TEAM.sub(lambda _: f"'{url}'", team)
        assert ours != team
        assert '"hello"' in newcomer.does(ours, **spoken)
        for block in by_sql:
            newcomer.does(block, PGRESULTS_DATABASE_URL=url, **spoken)
        umlauts = newcomer.does("pgresults put k - <<< 'grün 日本' && pgresults get k --raw", **spoken)
        assert umlauts.endswith("grün 日本\n")
    finally:
        assert "stopped" in newcomer.does(stop, **spoken)
        shutil.rmtree(newcomer.checkout / ".pgresults")


def test_every_page(newcomer: Newcomer) -> None:
    """By the tests of the pages, block by block; in a short directory, for sockets are made in it."""
    tests = f"{blocks('sh')[1].strip()} -q -n 2 --timeout=600 --basetemp=../t tests/docs"
    assert tests.startswith("pip install -e '.[dev]' && pytest")
    assert " failed" not in newcomer.does(tests, **LOCALES["C"])
