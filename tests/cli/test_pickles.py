"""Pickles are only looked at, unless told otherwise."""

import collections
import datetime
import decimal
import fractions
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pgresults.serializers import Serializer
from pgresults.serializers.preview import content_of, hexdump, imports
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore
from tests.support.cli import Cli, refused, succeeded


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


PLAIN: dict[str, Any] = {
    "the first program's": {"rows": 1000, "failed": []},
    "numbers": [1, -2, 2**70, 1.5, 1j, True, None],
    "texts": ["a", "grün", "\ud800", "\x1b[31m"],
    "times": [
        datetime.datetime(2030, 1, 1, 12, tzinfo=datetime.UTC),
        datetime.date(2030, 1, 1),
        datetime.timedelta(1.5),
        datetime.time(1, 2, tzinfo=datetime.timezone(datetime.timedelta(hours=2))),
        decimal.Decimal("1.10"),
    ],
    "containers": {"t": (1, 2), "s": {1}, "f": frozenset({2}), "b": b"x", "a": bytearray(b"y"), 3: {"deep": [[]]}},
}


class TestPlainValues:
    @pytest.mark.parametrize("name", PLAIN)
    @pytest.mark.parametrize("kind", ["pickle", "compressed/pickle"])
    def test_it_is_shown_as_python_writes_it(self, cli: Cli, store: ResultStore, name: str, kind: str) -> None:
        serializer = Serializer(type=kind)
        ResultStore(result_storage=store.result_storage, serializer=serializer).write(PLAIN[name], key="k")
        for options in ((), ("--unpickle",)):
            assert eval(succeeded(cli("get", "k", *options)), {"datetime": datetime, **vars(decimal)}) == PLAIN[name]

    def test_a_shared_part_is_shown_as_often_as_it_is_there(self, cli: Cli, store: ResultStore) -> None:
        part = [1]
        store.write([part, part], key="k")
        assert succeeded(cli("get", "k")) == "[[1], [1]]\n"

    @pytest.mark.parametrize(
        "value",
        [collections.Counter("a"), fractions.Fraction(1, 3), Path("x"), os.environ, print, range(3)],
        ids=lambda value: type(value).__name__,
    )
    def test_whatever_names_anything_else_is_only_looked_at(self, cli: Cli, store: ResultStore, value: Any) -> None:
        store.write(value if value is not os.environ else {"deep": [collections.deque("a")]}, key="k")
        result = cli("get", "k")
        assert ("imports\t" in succeeded(result), "--unpickle" in result.stderr) == (True, True)

    @pytest.mark.parametrize(
        "payload",
        [
            b"\x80\x04cos\nsystem\n(S'touch sprung'\ntR.",
            b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x0ctouch sprung\x85R.",
            b"(S'touch sprung'\nios\nsystem\n.",
            b"\x80\x04\x8c\x08datetime\x8c\x11datetime.__class__\x93.",
            b"cdatetime\ndatetime\n(S'now'\ntR.",
            b"\x80\x02\x82\x01.",
            b"Pelsewhere\n.",
            b"r\xff\xff\xff\x7f.",
            b"Nr\xff\xff\xff\x7f.",
            b"\x80\x04",
            b"I" + b"9" * 5000 + b"\n.",
        ],
    )
    def test_nothing_is_run_and_nothing_large_made(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, payload: bytes
    ) -> None:
        monkeypatch.chdir(tmp_path)
        content = content_of('{"type": "pickle"}', payload)
        assert content.kind in ("pickle", "unknown") or content.document is None
        assert list(tmp_path.iterdir()) == []

    def test_what_grows_when_it_is_written_is_not(self, cli: Cli, store: ResultStore) -> None:
        laughs: Any = "ha" * 100
        for _ in range(12):
            laughs = [laughs] * 10
        itself: list[Any] = []
        itself.append(itself)
        deep: list[Any] = []
        for _ in range(100):
            deep = [deep]
        for value in (laughs, itself, 10**5000):
            store.write(value, key="k")
            assert "imports\tnothing\n" in succeeded(cli("get", "k"))
        store.write(deep, key="k")
        assert succeeded(cli("get", "k"))


class TestRaw:
    @pytest.mark.parametrize("serializer", ["pickle", "json", "compressed/json"])
    @pytest.mark.parametrize("text", ["", "two\nlines\n", "grün\r\n", "\x1b[31m no newline"])
    def test_a_text_as_it_went_in(
        self, cli: Cli, store: ResultStore, tmp_path: Path, serializer: str, text: str
    ) -> None:
        ResultStore(result_storage=store.result_storage, serializer=serializer).write(text, key="k")
        assert cli("get", "k", "--raw").stdout_bytes == text.encode()
        assert cli("show", "k", "--version", "1", "--raw").stdout_bytes == text.encode()
        succeeded(cli("get", "k", "--raw", "-o", str(tmp_path / "out")))
        assert (tmp_path / "out").read_bytes() == text.encode()

    def test_bytes_as_they_went_in(self, cli: Cli, store: ResultStore) -> None:
        store.write(b"\x00\xff", key="k")
        assert cli("get", "k", "--raw").stdout_bytes == b"\x00\xff"

    @pytest.mark.parametrize("value", [{"a": 1}, 1, None, collections.Counter("a"), "\ud800"], ids=repr)
    def test_of_anything_else_there_is_nothing_raw(
        self, cli: Cli, store: ResultStore, tmp_path: Path, value: Any
    ) -> None:
        store.write(value, key="k")
        assert "'k' is " in refused(cli("get", "k", "--raw"))
        refused(cli("get", "k", "--raw", "-o", str(tmp_path / "out")))
        assert not (tmp_path / "out").exists()


class TestArraysAndFrames:
    def test_their_shape_and_columns_are_shown(self, cli: Cli, store: ResultStore) -> None:
        store.write(pd.DataFrame({"name": ["a"], "n": [1]}), key="frame")
        lines = succeeded(cli("get", "frame")).splitlines()
        assert {"type\tpandas.DataFrame", "shape\t1 x 2"} <= set(lines)
        assert any(line.startswith("columns\tname (") and line.endswith("n (int64)") for line in lines)
        store.write(np.zeros((2, 3)), key="array")
        assert {"shape\t2 x 3", "dtype\tfloat64"} <= set(succeeded(cli("get", "array")).splitlines())

    @pytest.mark.parametrize("said", ["1", '{"columns": 1}', '{"columns": [1, [2]], "shape": {}}', '"x"', "null"])
    def test_what_somebody_else_wrote_there_harms_nothing(
        self, cli: Cli, store: ResultStore, connection: Any, said: str
    ) -> None:
        store.write(np.zeros(3), key="k")
        changed = "UPDATE pgresults.result SET provenance = jsonb_set(provenance, '{object}', %s) WHERE storage_id = %s"
        connection.execute(changed, [said, store.result_storage.id])
        assert "imports\t" in succeeded(cli("get", "k"))
