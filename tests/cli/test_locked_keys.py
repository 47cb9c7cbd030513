"""Commands that change a key somebody else has locked: refused, or done by force, which is recorded."""

import os
import subprocess
from pathlib import Path

import pytest

from pgresults.errors import LockLostError
from pgresults.locking import PostgresLockManager
from pgresults.store import ResultStore
from tests.support.cli import PROGRAM, Cli, refused, succeeded

CHANGES = {
    "put": ("put", "k", "new"),
    "rm": ("rm", "k"),
    "redact": ("redact", "k", "--yes"),
    "touch": ("touch", "k", "--never"),
}
WHY = ("--reason", "the job hangs")


@pytest.fixture
def locks(guarded: ResultStore) -> PostgresLockManager:
    """Ann has the lock of a key, under which she has written."""
    manager = guarded.lock_manager
    assert isinstance(manager, PostgresLockManager)
    manager.acquire_lock("k", "ann")
    guarded.write("hers", key="k", holder="ann")
    return manager


@pytest.mark.parametrize("command", CHANGES)
def test_somebody_elses_key_is_left_alone(
    cli: Cli, guarded: ResultStore, locks: PostgresLockManager, command: str
) -> None:
    reason = WHY if command == "redact" else ()
    refusal = refused(cli(*CHANGES[command], *reason))
    assert "'k' is locked by ann since" in refusal
    assert "--force" in refusal
    assert [entry.action for entry in guarded.history("k")] == ["write"]
    assert locks.is_lock_holder("k", "ann")


@pytest.mark.parametrize("command", CHANGES)
def test_force_takes_the_lock_and_says_so_in_the_history(
    cli: Cli, guarded: ResultStore, locks: PostgresLockManager, command: str
) -> None:
    assert "--reason" in refused(cli(*CHANGES[command], "--force"), code=2)
    assert "the lock of ann, fence" in cli(*CHANGES[command], "--force", *WHY).stderr
    _, broken, changed = guarded.history("k")
    assert (broken.action, broken.holder, broken.reason) == ("break", "ann", "the job hangs")
    assert changed.action == {"put": "write", "rm": "delete"}.get(command, command)
    with pytest.raises(LockLostError):
        guarded.write("late", key="k", holder="ann")
    assert guarded.verify().intact


def test_force_without_a_lock_only_does_it(cli: Cli, guarded: ResultStore) -> None:
    succeeded(cli("put", "k", "x", "--force", *WHY))
    succeeded(cli("rm", "k", "--force", *WHY))
    assert [entry.action for entry in guarded.history("k")] == ["write", "delete"]
    assert "--force" in refused(cli("put", "k", "x", *WHY), code=2)


def test_what_is_removed_by_prefix_is_all_or_nothing(
    cli: Cli, guarded: ResultStore, locks: PostgresLockManager
) -> None:
    guarded.write(1, key="k2")
    assert "'k' is locked by ann" in refused(cli("rm", "--prefix", "k", "--yes"))
    assert guarded.exists("k2")
    assert "--force" in refused(cli("rm", "--prefix", "k", "--force", *WHY), code=2)


def test_a_file_does_not_go_over_a_lock(
    cli: Cli, guarded: ResultStore, locks: PostgresLockManager, tmp_path: Path
) -> None:
    file = tmp_path / "k.jsonl"
    succeeded(cli("export", "-o", str(file)))
    ended = cli("import", "file", str(file), "--overwrite")
    assert (ended.exit_code, "locked by ann" in ended.stderr) == (1, True)


def test_a_dead_processs_lock_is_in_nobodys_way(
    environment: dict[str, str], guarded: ResultStore, tmp_path: Path
) -> None:
    program = tmp_path / "holder.py"
    program.write_text(
        "import os, signal, sys\n"
        "from pgresults import PostgresStorage\n"
        "storage = PostgresStorage(os.environ['PGRESULTS_DATABASE_URL'], name=sys.argv[1])\n"
        "storage.lock_manager().acquire_lock('k', 'dead')\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    there = guarded.result_storage.name
    subprocess.run([os.sys.executable, str(program), there], env=environment, check=False)
    done = subprocess.run([str(PROGRAM), "--storage", there, "put", "k", "x", "--create"], env=environment, check=False)
    assert done.returncode == 0
