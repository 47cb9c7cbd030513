"""Results by hand: put, got, listed, deleted."""

import datetime
import json
from pathlib import Path
from typing import Any

import pytest

from pgresults.cli.output import shown
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore
from tests.support.cli import Cli, refused, succeeded


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


class TestListing:
    def test_keys_are_listed_by_prefix_and_number(self, cli: Cli) -> None:
        for key in ("b/2", "a/1", "b/1"):
            succeeded(cli("put", key, "x"))
        listed = [line.split("\t")[0] for line in succeeded(cli("ls")).splitlines()]
        assert listed == ["a/1", "b/1", "b/2"]
        assert [row["key"] for row in json.loads(succeeded(cli("ls", "b/", "--json")))] == ["b/1", "b/2"]
        assert [row["key"] for row in json.loads(succeeded(cli("ls", "--limit", "1", "--json")))] == ["a/1"]
        assert json.loads(succeeded(cli("ls", "none", "--json"))) == []

    def test_json_rows_say_everything(self, cli: Cli) -> None:
        succeeded(cli("put", "k", "1", "--json-value", "--expires-at", "2100-01-31T12:00:00Z"))
        (row,) = json.loads(succeeded(cli("ls", "--json")))
        created = datetime.datetime.fromisoformat(row.pop("created_at"))
        assert abs(datetime.datetime.now(datetime.UTC) - created) < datetime.timedelta(hours=1)
        assert row.pop("provenance")["process"]
        assert row == {
            "key": "k",
            "version": 1,
            "expires_at": "2100-01-31T12:00:00+00:00",
            "size": 1,
            "serializer": "json",
            "tags": None,
            "task": None,
            "flow": None,
        }

    def test_pages_are_put_together(self, cli: Cli, store: ResultStore, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("pgresults.storage.finding.PAGE", 2)
        for number in range(5):
            store.write(number, key=f"k{number}")
        assert len(succeeded(cli("ls")).splitlines()) == 5
        assert len(succeeded(cli("ls", "--limit", "3")).splitlines()) == 3

    def test_a_deleted_result_is_gone_and_says_why(self, cli: Cli, store: ResultStore) -> None:
        succeeded(cli("put", "k", "x"))
        assert succeeded(cli("rm", "k", "--reason", "wrong input")) == "k: deleted\n"
        assert "deleted at" in refused(cli("get", "k"))
        assert "deleted at" in refused(cli("rm", "k"))
        assert "never written" in refused(cli("rm", "never"))
        store.write(1, key="old", expiration=datetime.datetime(2001, 1, 1, tzinfo=datetime.UTC))
        assert "expired at 2001" in refused(cli("rm", "old"))
        assert succeeded(cli("ls")) == ""

    def test_keys_cannot_steer_the_terminal(self, cli: Cli, store: ResultStore) -> None:
        store.write(1, key="\x1b[31m\tred\n\u202e")
        assert succeeded(cli("ls")).startswith("\\u001b[31m\\tred\\n\\u202e\t1\t")
        assert shown("\ud800") == "\\ud800"
