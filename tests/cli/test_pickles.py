"""Pickles are only looked at, unless told otherwise."""

import collections
import os
import pickle
from pathlib import Path
from typing import Any

import pytest

from pgresults.cli.preview import hexdump, imports
from pgresults.serializers import Serializer
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore
from tests.support.cli import Cli, succeeded


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

    @pytest.mark.parametrize(
        "damaged",
        ["[]", '"json"', "{}", "1", "null", '{"type": []}', '{"compressionlib": "zlib"}', '{"compressionlib": []}'],
    )
    def test_a_damaged_description_is_shown(self, cli: Cli, store: ResultStore, connection: Any, damaged: str) -> None:
        store.write({"a": 1}, key="k")
        changed = "UPDATE pgresults.result SET serializer = %s WHERE storage_id = %s"
        connection.execute(changed, [damaged, store.result_storage.id])
        assert f"serializer\t{damaged}\n" in succeeded(cli("get", "k"))
        ended = cli("get", "k", "--unpickle")
        assert (ended.exit_code, "serializer" in ended.stderr) == (1, True)
        assert isinstance(ended.exception, SystemExit)
