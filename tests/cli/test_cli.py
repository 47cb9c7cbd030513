"""The command line: what it stores, shows and refuses, and how it ends."""

import collections
import datetime
import json
import os
import pickle
import pty
import re
import signal
import subprocess
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import URL
from typer.testing import CliRunner, Result

from pgresults.cli.app import app
from pgresults.cli.output import masked, shown
from pgresults.cli.preview import hexdump, imports
from pgresults.errors import LockLostError, MissingResult
from pgresults.locking import PostgresLockManager
from pgresults.serializers import Serializer
from pgresults.sql.schema import REVISION
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore
from tests.support.chains import are_intact, entries
from tests.support.database import psycopg_url

PROGRAM = Path(sysconfig.get_path("scripts"), "pgresults")

Cli = Callable[..., Result]


@pytest.fixture
def cli(storage: PostgresStorage) -> Cli:
    """Runs the program within this process, on the test's own storage."""
    url = psycopg_url(storage.database.url())

    def run(*arguments: str, stdin: str | bytes | None = None, url: str = url) -> Result:
        options = ("--database-url", url, "--storage", storage.name)
        return CliRunner().invoke(app, [*options, *arguments], input=stdin)

    return run


@pytest.fixture
def environment(storage: PostgresStorage) -> dict[str, str]:
    """The environment of a real process that works on the test's database."""
    return os.environ | {"PGRESULTS_DATABASE_URL": psycopg_url(storage.database.url()), "COLUMNS": "300"}


def succeeded(result: Result) -> str:
    assert result.exit_code == 0, result.output
    return result.stdout


def refused(result: Result, code: int = 1) -> str:
    assert (result.exit_code, result.stdout) == (code, "")
    assert isinstance(result.exception, SystemExit)
    return result.stderr


class TestPutAndGet:
    def test_a_text_comes_back_as_json(self, cli: Cli, store: ResultStore) -> None:
        assert "greeting: version 1, 12 bytes" in succeeded(cli("put", "greeting", "hällo"))
        assert succeeded(cli("get", "greeting")) == '"hällo"\n'
        assert store.read("greeting").result == "hällo"

    def test_json_is_parsed_only_when_asked(self, cli: Cli, store: ResultStore) -> None:
        succeeded(cli("put", "k", '{"a": [1]}', "--json-value"))
        assert json.loads(succeeded(cli("get", "k"))) == store.read("k").result == {"a": [1]}
        succeeded(cli("put", "k", '{"a": [1]}'))
        assert store.read("k").result == '{"a": [1]}'

    def test_standard_input_is_a_value(self, cli: Cli, store: ResultStore) -> None:
        succeeded(cli("put", "text", "-", stdin="two\nlines\n"))
        succeeded(cli("put", "number", "-", "--json-value", stdin="3"))
        assert (store.read("text").result, store.read("number").result) == ("two\nlines\n", 3)

    def test_a_file_is_kept_byte_by_byte(self, cli: Cli, store: ResultStore, tmp_path: Path) -> None:
        content = bytes(range(256)) * 400
        (tmp_path / "in").write_bytes(content)
        succeeded(cli("put", "k", "--file", str(tmp_path / "in")))
        succeeded(cli("get", "k", "--output", str(tmp_path / "out")))
        assert store.read("k").result == (tmp_path / "out").read_bytes() == content
        assert cli("get", "k").stdout_bytes == content
        assert store.read("k").metadata.size < len(content) + 100

    def test_bytes_without_metadata_are_bytes(self, cli: Cli, storage: PostgresStorage) -> None:
        storage.write_path("raw", b"\x80\x00raw")
        assert cli("get", "raw").stdout_bytes == b"\x80\x00raw"

    def test_expirations_and_tags_are_kept(self, cli: Cli, store: ResultStore, connection: Any) -> None:
        before = datetime.datetime.now(datetime.UTC)
        succeeded(cli("put", "in", "x", "--expires-in", "1d12h", "--tag", "a", "--tag", "b"))
        succeeded(cli("put", "at", "x", "--expires-at", "2100-01-31T12:00:00+02:00"))
        left = store.read("in").expiration - before
        assert datetime.timedelta(hours=36) <= left < datetime.timedelta(hours=37)
        assert store.read("at").expiration == datetime.datetime(2100, 1, 31, 10, tzinfo=datetime.UTC)
        query = "SELECT tags FROM pgresults.result WHERE storage_id = %s AND key = 'in'"
        assert connection.execute(query, [store.result_storage.id]).fetchone() == (["a", "b"],)

    @pytest.mark.parametrize(
        "arguments",
        [
            [],
            ["x", "--file", __file__],
            ["--file", __file__, "--json-value"],
            ["--file", "/no/such/file"],
            ["{", "--json-value"],
            ["x", "--expires-in", "7"],
            ["x", "--expires-in", "0d"],
            ["x", "--expires-in", "1d later"],
            ["x", "--expires-in", "99999999d"],
            ["x", "--expires-in", "9999999999999999999d"],
            ["x", "--expires-at", "2100-01-01T00:00:00"],
            ["x", "--expires-at", "soon"],
            ["x", "--expires-in", "7d", "--expires-at", "2100-01-01T00:00:00Z"],
        ],
    )
    def test_wrong_usage_stores_nothing(self, cli: Cli, store: ResultStore, arguments: list[str]) -> None:
        refused(cli("put", "k", *arguments), code=2)
        assert not store.exists("k")

    def test_input_that_is_no_text_is_refused(self, cli: Cli) -> None:
        assert "--file" in refused(cli("put", "k", "-", stdin=b"\xff\xfe"), code=2)


class Trap:
    """Tells when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (os.environ["TRAP"],)


class TestPickles:
    @pytest.mark.parametrize("kind", ["pickle", "compressed/pickle"])
    def test_a_pickle_is_only_looked_at(
        self, cli: Cli, store: ResultStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
    ) -> None:
        monkeypatch.setenv("TRAP", str(tmp_path / "sprung"))
        trapped = ResultStore(result_storage=store.result_storage, serializer=Serializer(type=kind))
        stored = trapped.write(Trap(), key="k")
        result = cli("get", "k")
        assert f"sha256\t{stored.sha256}\n" in succeeded(result)
        assert "imports\tposix.mkdir\n" in result.stdout
        assert "--unpickle" in result.stderr
        assert "payload as stored" in cli("get", "k", "--output", str(tmp_path / "out")).stderr
        assert not (tmp_path / "sprung").exists()
        succeeded(cli("get", "k", "--unpickle"))
        assert (tmp_path / "sprung").is_dir()

    def test_plain_data_is_no_exception(self, cli: Cli, store: ResultStore) -> None:
        store.write({"a": 1}, key="k")
        assert "imports\tnothing\n" in succeeded(cli("get", "k"))

    def test_unpickled_objects_are_printed_and_saved(self, cli: Cli, store: ResultStore, tmp_path: Path) -> None:
        store.write(collections.Counter("aab"), key="k")
        assert succeeded(cli("get", "k", "--unpickle")) == "Counter({'a': 2, 'b': 1})\n"
        succeeded(cli("get", "k", "--unpickle", "-o", str(tmp_path / "out")))
        assert (tmp_path / "out").read_text() == "Counter({'a': 2, 'b': 1})\n"

    @pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
    def test_every_protocol_tells_its_imports(self, protocol: int) -> None:
        counters = [collections.Counter("a"), collections.Counter("b"), collections.OrderedDict(a=1)]
        names = set(imports(pickle.dumps(counters, protocol)))
        assert names >= {"collections.Counter", "collections.OrderedDict"}
        assert not any("?" in name for name in names)

    def test_what_cannot_be_told_is_said(self) -> None:
        assert imports(b"no pickle") == ["? (no readable pickle)"]
        assert imports(b"\x80\x04K\x01K\x02\x93.") == ["?.?"]

    def test_other_payloads_are_dumped(self, cli: Cli, storage: PostgresStorage, connection: Any) -> None:
        storage.write_path("k", b"two \xff bytes")
        update = 'UPDATE pgresults.result SET serializer = \'{"type": "unheard-of"}\' WHERE storage_id = %s'
        connection.execute(update, [storage.id])
        assert "00000000  74 77 6f 20 ff" in succeeded(cli("get", "k"))

    def test_a_dump_ends(self) -> None:
        assert [line[:8] for line in hexdump(bytes(300), limit=20)] == ["00000000", "00000010", "… and 28"]


class TestListing:
    def test_keys_are_listed_by_prefix_and_number(self, cli: Cli) -> None:
        for key in ("b/2", "a/1", "b/1"):
            succeeded(cli("put", key, "x"))
        listed = [line.split("\t")[0] for line in succeeded(cli("ls")).splitlines()]
        assert listed == ["a/1", "b/1", "b/2"]
        assert [row["key"] for row in json.loads(succeeded(cli("ls", "--prefix", "b/", "--json")))] == ["b/1", "b/2"]
        assert [row["key"] for row in json.loads(succeeded(cli("ls", "--limit", "1", "--json")))] == ["a/1"]
        assert json.loads(succeeded(cli("ls", "--prefix", "none", "--json"))) == []

    def test_json_rows_say_everything(self, cli: Cli) -> None:
        succeeded(cli("put", "k", "1", "--json-value", "--expires-at", "2100-01-31T12:00:00Z"))
        (row,) = json.loads(succeeded(cli("ls", "--json")))
        created = datetime.datetime.fromisoformat(row.pop("created_at"))
        assert abs(datetime.datetime.now(datetime.UTC) - created) < datetime.timedelta(hours=1)
        assert row == {
            "key": "k",
            "version": 1,
            "expires_at": "2100-01-31T12:00:00+00:00",
            "size": 1,
            "serializer": "json",
        }

    def test_pages_are_put_together(self, cli: Cli, store: ResultStore, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("pgresults.cli.results._PAGE", 2)
        for number in range(5):
            store.write(number, key=f"k{number}")
        assert len(succeeded(cli("ls")).splitlines()) == 5
        assert len(succeeded(cli("ls", "--limit", "3")).splitlines()) == 3

    def test_a_deleted_result_is_gone_and_says_why(self, cli: Cli) -> None:
        succeeded(cli("put", "k", "x"))
        assert succeeded(cli("rm", "k", "--reason", "wrong input")) == "k: deleted\n"
        assert "deleted at" in refused(cli("get", "k"))
        assert "deleted at" in refused(cli("rm", "k"))
        assert "never written" in refused(cli("rm", "never"))
        succeeded(cli("put", "old", "x", "--expires-at", "2001-01-01T00:00:00Z"))
        assert "expired at 2001" in refused(cli("rm", "old"))
        assert succeeded(cli("ls")) == ""

    def test_keys_cannot_steer_the_terminal(self, cli: Cli, store: ResultStore) -> None:
        store.write(1, key="\x1b[31m\tred\n\u202e")
        assert succeeded(cli("ls")).startswith("\\u001b[31m\\tred\\n\\u202e\t1\t")
        assert shown("\ud800") == "\\ud800"


class TestFailures:
    def test_a_missing_key_is_one_line(self, cli: Cli) -> None:
        assert refused(cli("get", "nothing")) == "error: no result under 'nothing': never written\n"
        assert refused(cli("get", "")).startswith("error: key '' cannot be stored")

    def test_a_database_out_of_reach_is_one_line_without_secrets(self, cli: Cli) -> None:
        error = refused(cli("ls", url="postgresql://user:secret@127.0.0.1:1/x?sslpassword=hidden"))
        assert error.startswith("error: the database cannot be reached")
        assert error.count("\n") == 1
        assert "secret" not in error
        assert "hidden" not in error

    def test_urls_are_shown_without_passwords(self) -> None:
        url = URL.create(
            "postgresql+psycopg", "user", "secret", "h", query={"password": "secret", "sslmode": "require"}
        )
        assert masked(url) == "postgresql://user:***@h?sslmode=require"

    def test_no_postgres_is_no_database(self, cli: Cli) -> None:
        assert "postgresql://" in refused(cli("ls", url="mysql://a/b"))

    def test_a_wrong_setting_is_named(self, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PGRESULTS_POOL_SIZE", "many")
        assert refused(cli("ls")).startswith("error: PGRESULTS_POOL_SIZE: ")

    def test_an_output_that_cannot_be_written_is_one_line(self, cli: Cli, tmp_path: Path) -> None:
        succeeded(cli("put", "k", "x"))
        assert "no/such: No such file" in refused(cli("get", "k", "-o", str(tmp_path / "no/such")))

    def test_ctrl_c_is_130(self, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
        def interrupt(*_: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(PostgresStorage, "page", interrupt)
        assert refused(cli("ls"), code=130) == ""


@dataclass(frozen=True)
class Granted:
    """A database made by ``pgresults db sql`` alone, with URLs of its two roles."""

    owner: str
    writer: str
    reader: str


@pytest.fixture
def granted(empty_url: URL) -> Iterator[Granted]:
    writer, reader = f"writer_{uuid4().hex}", f'odd"reader"{uuid4().hex}'
    script = CliRunner().invoke(app, ["--schema", "Odd schema", "db", "sql", "--writer", writer, "--reader", reader])
    with psycopg.connect(psycopg_url(empty_url), autocommit=True) as owner:
        if owner.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user").fetchone() != (True,):
            pytest.skip("only a superuser can become any role")
        owner.execute(succeeded(script))
        owner.execute(succeeded(script).rpartition("COMMIT;")[2])  # grants may be run again
        urls = [_as_role(empty_url, role) for role in (writer, reader)]
        yield Granted(psycopg_url(empty_url), *urls)
        for role in map(psycopg.sql.Identifier, (writer, reader)):
            owner.execute(psycopg.sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(role))


def _as_role(url: URL, role: str) -> str:
    return psycopg_url(url.update_query_dict({"options": f"-crole={role}"}))


class TestDatabase:
    def test_upgrade_makes_a_database_usable(self, cli: Cli, empty_url: URL) -> None:
        url = psycopg_url(empty_url)
        assert succeeded(cli("db", "current", url=url)) == "none\n"
        assert "run `pgresults db upgrade`" in refused(cli("db", "check", url=url))
        assert "run `pgresults db upgrade`" in refused(cli("put", "k", "x", url=url))
        assert succeeded(cli("db", "upgrade", url=url)) == f"schema pgresults is at revision {REVISION}\n"
        assert succeeded(cli("db", "current", url=url)) == f"{REVISION}\n"
        assert succeeded(cli("db", "check", url=url)) == "schema pgresults is up to date\n"
        succeeded(cli("put", "k", "x", url=url))

    def test_another_schema_is_another_place(self, cli: Cli, fresh_url: URL) -> None:
        url = psycopg_url(fresh_url)
        succeeded(cli("--schema", "second", "db", "upgrade", url=url))
        succeeded(cli("--schema", "second", "put", "k", "x", url=url))
        assert succeeded(cli("--schema", "second", "ls", url=url)).startswith("k\t")
        assert succeeded(cli("ls", url=url)) == ""

    def test_a_writer_writes_and_cannot_rewrite(self, cli: Cli, granted: Granted) -> None:
        there = ("--schema", "Odd schema")
        for _ in range(2):
            succeeded(cli(*there, "put", "k", "x", url=granted.writer))
        assert succeeded(cli(*there, "get", "k", url=granted.writer)) == '"x"\n'
        assert succeeded(cli(*there, "rm", "k", url=granted.writer)) == "k: deleted\n"
        with psycopg.connect(granted.writer, autocommit=True) as writer:
            for change in (
                "UPDATE \"Odd schema\".history SET actor = 'nobody'",
                'DELETE FROM "Odd schema".history',
                'DELETE FROM "Odd schema".payload',
                'DELETE FROM "Odd schema".result',
                'CREATE TABLE "Odd schema".mine ()',
            ):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    writer.execute(change)

    def test_a_reader_only_reads(self, cli: Cli, granted: Granted) -> None:
        there = ("--schema", "Odd schema")
        succeeded(cli(*there, "put", "k", "x", url=granted.owner))
        assert succeeded(cli(*there, "get", "k", url=granted.reader)) == '"x"\n'
        assert "refuses this user" in refused(cli(*there, "put", "k", "y", url=granted.reader))
        with psycopg.connect(granted.reader) as reader:
            assert reader.execute('SELECT key FROM "Odd schema".live_results').fetchall() == [("k",)]

    def test_grants_can_be_had_alone(self, cli: Cli) -> None:
        script = succeeded(cli("db", "sql", "--grants-only"))
        assert "CREATE TABLE" not in script
        assert 'GRANT INSERT ON "pgresults"."history" TO "pgresults_writer";\n' in script


def run(*arguments: str, env: dict[str, str], **options: Any) -> "subprocess.CompletedProcess[str]":
    command = [str(PROGRAM), *arguments]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False, **options)


class TestProcesses:
    """The installed program, as a shell starts it."""

    def test_results_by_hand(self, environment: dict[str, str], storage: PostgresStorage) -> None:
        there = ("--storage", storage.name)
        assert run(*there, "put", "k", "-", env=environment, input="hi").returncode == 0
        assert run(*there, "get", "k", env=environment).stdout == '"hi"\n'
        assert run(*there, "rm", "k", env=environment).returncode == 0
        failed = run(*there, "get", "k", env=environment)
        assert (failed.returncode, failed.stdout, failed.stderr.count("\n")) == (1, "", 1)
        assert "\x1b" not in failed.stderr

    def test_a_schema(self, environment: dict[str, str]) -> None:
        assert run("db", "check", env=environment).stdout == "schema pgresults is up to date\n"

    def test_version_and_usage(self, environment: dict[str, str]) -> None:
        assert re.fullmatch(r"\d+\.\d+\.\d+\n", run("--version", env=environment).stdout)
        assert run("no-such-command", env=environment).returncode == 2

    def test_an_embedded_server_starts_tells_and_stops(self, tmp_path: Path) -> None:
        environment = os.environ | {"PGRESULTS_EMBEDDED_PATH": str(tmp_path / "server")}
        idle = json.loads(run("embedded", "status", "--json", env=environment).stdout)
        assert (idle["running"], idle["url"]) == (False, None)
        assert not (tmp_path / "server").exists()
        try:
            url = run("embedded", "start", env=environment).stdout.strip()
            with psycopg.connect(url) as connection:
                assert connection.execute("SELECT 1").fetchone() == (1,)
            assert run("put", "k", "x", env=environment).returncode == 0
            status = run("embedded", "status", str(tmp_path / "server"), env=os.environ.copy()).stdout
            assert "running\tyes\n" in status
        finally:
            stopped = run("embedded", "stop", env=environment)
        assert stopped.stdout == f"{tmp_path}/server: stopped\n"
        assert run("embedded", "stop", env=environment).stdout == f"{tmp_path}/server: no server runs here\n"

    def test_a_reader_that_goes_away_ends_it_quietly(self, environment: dict[str, str], store: ResultStore) -> None:
        store.write(b"x" * 1_000_000, key="k")
        there = ("--storage", store.result_storage.name)
        reading, writing = os.pipe()
        os.close(reading)
        command = [str(PROGRAM), *there, "get", "k"]
        process = subprocess.Popen(command, env=environment, stdout=writing, stderr=subprocess.PIPE)
        os.close(writing)
        _, error = process.communicate(timeout=60)
        assert (process.returncode, error) == (141, b"")

    def test_ctrl_c_while_it_waits(self, environment: dict[str, str], storage: PostgresStorage) -> None:
        with psycopg.connect(psycopg_url(storage.database.url())) as blocker:
            blocker.execute("LOCK TABLE pgresults.result IN ACCESS EXCLUSIVE MODE")
            command = [str(PROGRAM), "--storage", storage.name, "ls"]
            process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
            while not _is_waiting(blocker):
                assert process.poll() is None
            process.send_signal(signal.SIGINT)
            _, error = process.communicate(timeout=60)
        assert (process.returncode, error) == (130, "")

    def test_a_terminal_gets_a_table(self, environment: dict[str, str], store: ResultStore) -> None:
        store.write(1, key="[red]\x1b[31m")
        command = [str(PROGRAM), "--storage", store.result_storage.name, "ls"]
        printed = on_terminal(command, environment)
        assert "created at" in printed
        assert "[red]\\u001b[31m" in printed

    def test_bytes_do_not_reach_a_terminal(self, environment: dict[str, str], store: ResultStore) -> None:
        store.write(b"\x1b[31m", key="k")
        command = [str(PROGRAM), "--storage", store.result_storage.name, "get", "k"]
        assert "1b 5b 33 31 6d" in on_terminal(command, environment)


def _is_waiting(blocker: "psycopg.Connection[Any]") -> bool:
    waiting = "SELECT FROM pg_locks WHERE NOT granted AND pg_backend_pid() = ANY(pg_blocking_pids(pid))"
    return blocker.execute(waiting).fetchone() is not None


def on_terminal(command: list[str], environment: dict[str, str]) -> str:
    """What a command prints when its output is a terminal."""
    controller, terminal = pty.openpty()
    process = subprocess.Popen(
        command, env=environment | {"TERM": "xterm-256color"}, stdin=terminal, stdout=terminal, stderr=terminal
    )
    os.close(terminal)
    printed = b""
    while True:
        try:
            piece = os.read(controller, 65536)
        except OSError:  # Linux: nobody has the terminal open any more
            piece = b""
        if not piece:
            break
        printed += piece
    os.close(controller)
    assert process.wait(60) == 0
    return printed.decode()


class TestLocks:
    @pytest.fixture
    def locks(self, storage: PostgresStorage) -> PostgresLockManager:
        return storage.lock_manager()

    def test_holders_are_listed(self, cli: Cli, locks: PostgresLockManager, store: ResultStore) -> None:
        assert succeeded(cli("locks")) == ""
        assert succeeded(cli("locks", "--json")) == "[]\n"
        locks.acquire_lock("b", "ann", hold_timeout=1000)
        locks.acquire_lock("a", "bob")
        for _ in range(2):
            listed = json.loads(succeeded(cli("locks", "--json")))
            assert [(lock["key"], lock["holder"], lock["waiters"]) for lock in listed] == [
                ("a", "bob", 0),
                ("b", "ann", 0),
            ]
            assert {lock["pid"] for lock in listed} == {os.getpid()}
            assert listed[0]["expires_at"] is None
            since, until = (datetime.datetime.fromisoformat(listed[1][name]) for name in ("since", "expires_at"))
            assert until - since == datetime.timedelta(seconds=1000)
            store.write(1, key="registered")  # from now on the storage has a name in the view
        lines = succeeded(cli("locks")).splitlines()
        assert [line.split("\t")[:2] for line in lines] == [["a", "bob"], ["b", "ann"]]

    def test_a_broken_lock_is_the_next_ones_and_its_holder_cannot_write(
        self, cli: Cli, locks: PostgresLockManager, store: ResultStore, connection: Any
    ) -> None:
        guarded = ResultStore(result_storage=store.result_storage, lock_manager=locks)
        stored = guarded.write("kept", key="k")
        locks.acquire_lock("k", "stuck")
        fence = locks._grant("k", "stuck").fence
        said = succeeded(cli("locks", "break", "k", "--reason", "host is gone"))
        assert said == f"k: taken away from stuck, fence {fence}\n"
        with pytest.raises(LockLostError):
            guarded.write("late", key="k", holder="stuck")
        assert locks.acquire_lock("k", "next", 0) is True
        record = guarded.read("k", holder="next")
        assert (record.result, record.metadata.version, record.metadata.sha256) == ("kept", 1, stored.sha256)
        now = datetime.datetime.now(datetime.UTC) + datetime.timedelta(minutes=1)
        assert guarded.read("k", holder="next", as_of=now).result == "kept"
        assert guarded.read("k", holder="next", version=1).result == "kept"
        chain = entries(connection, store)
        entry = chain[-1]
        assert [entry["action"] for entry in chain] == ["write", "break"]
        assert (entry["holder"], entry["fence"], entry["reason"]) == ("stuck", fence, "host is gone")
        assert are_intact(chain)
        assert store.verify().findings == ()

    def test_a_lock_of_a_key_without_a_result(
        self, cli: Cli, locks: PostgresLockManager, store: ResultStore, connection: Any
    ) -> None:
        for n in range(2):
            locks.acquire_lock("new", f"stuck {n}")
            succeeded(cli("locks", "break", "new", "--reason", "why"))
        assert not store.exists("new")
        with pytest.raises(MissingResult, match="never written"):
            store.read("new")
        assert store.write(1, key="new").version == 1
        store.delete("new")
        locks.acquire_lock("new", "stuck again")
        succeeded(cli("locks", "break", "new", "--reason", "why"))
        with pytest.raises(MissingResult, match="deleted"):
            store.read("new")
        chain = entries(connection, store)
        assert [entry["action"] for entry in chain] == ["break", "break", "write", "delete", "break"]
        assert [entry["version"] for entry in chain] == [0, 0, 1, 1, 1]
        assert are_intact(chain)
        assert store.verify().findings == ()

    def test_what_nobody_holds_cannot_be_broken(self, cli: Cli, connection: Any, store: ResultStore) -> None:
        assert "nobody holds the lock of 'k'" in refused(cli("locks", "break", "k", "--reason", "why"))
        assert "reason" in refused(cli("locks", "break", "k", "--reason", ""))
        refused(cli("locks", "break", "k"), code=2)
        assert entries(connection, store) == []
