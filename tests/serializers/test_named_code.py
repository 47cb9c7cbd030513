"""Stored data names code: nothing is imported or called for that which the program or its settings have not named."""

import hashlib
import json
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from pydantic import BaseModel, ImportString, Json
from sqlalchemy import URL
from typer.testing import CliRunner

from pgresults.cli.app import app
from pgresults.errors import SerializationError
from pgresults.records.records import ResultRecord, ResultRecordMetadata
from pgresults.serializers import JSONSerializer, Serializer
from pgresults.settings import Settings, temporary_settings
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore
from tests.support.calls import Call
from tests.support.database import psycopg_url
from tests.support.programs import python, written

StoreWith = Callable[..., ResultStore]
TRAP = """
from pathlib import Path
from pydantic import BaseModel
Path(__file__).with_name("sprung").touch()

class X(BaseModel):
    n: int

def dumps(obj): return b"1"
def loads(blob, **_): return 1
def compress(data): return data
def decompress(data): return data
def hook(value): return value
"""


@pytest.fixture
def store_with(shared_url: URL) -> StoreWith:
    """Makes stores on one storage, each with settings of its own."""
    name = f"named-{uuid4().hex}"

    def make(**settings: Any) -> ResultStore:
        storage = PostgresStorage(shared_url, name, settings=Settings(**settings))
        return ResultStore(result_storage=storage, serializer=JSONSerializer())

    return make


@pytest.fixture
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a package on the path, not imported yet, with a module of that name's own; it leaves a mark."""
    name = f"trap_{uuid4().hex}"
    written(tmp_path, {f"{name}/__init__.py": TRAP, f"{name}/inner.py": TRAP})
    monkeypatch.syspath_prepend(tmp_path)
    yield name
    for module in (name, f"{name}.inner"):
        sys.modules.pop(module, None)


def is_sprung(tmp_path: Path, name: str) -> bool:
    return name in sys.modules or (tmp_path / name / "sprung").exists()


def describe(store: ResultStore, description: Any) -> None:
    """Have the database say that a result was written by another serializer."""
    storage = store.result_storage
    with psycopg.connect(psycopg_url(storage.database.url()), autocommit=True) as sql:
        sql.execute("ALTER TABLE pgresults.history DISABLE TRIGGER append_only")
        for table in ("result", "history"):
            sql.execute(
                f"UPDATE pgresults.{table} SET serializer = %s WHERE storage_id = %s",
                (json.dumps(description), storage.id),
            )
        sql.execute("ALTER TABLE pgresults.history ENABLE ALWAYS TRIGGER append_only")
        sql.execute("ALTER TABLE pgresults.history ENABLE ALWAYS TRIGGER kept")


async def test_a_record_starts_no_program(store_with: StoreWith, call: Call, tmp_path: Path) -> None:
    mark, store = tmp_path / "mark", store_with()
    store.write({"/usr/bin/touch": 1, str(mark): 2}, key="k")
    describe(store, {"type": "json", "object_decoder": "subprocess.Popen"})
    assert subprocess.Popen  # it is imported, and all the same it is not called
    with pytest.raises(SerializationError, match=r"subprocess\.Popen.*PGRESULTS_IMPORTABLE"):
        await call(store, "read", "k")
    with pytest.raises(SerializationError, match="Popen"):
        await call(store_with(allow_pickle=False), "read", "k")
    assert not mark.exists()
    trusting = store_with(importable=("subprocess.Popen",))
    with pytest.raises(SerializationError, match="Popen"):
        await call(store, "read", "k")  # what another storage's settings allow is not remembered
    trusting.read("k").result.wait()
    assert mark.exists(), "the decoder is none, the test proves nothing"


DESCRIPTIONS: list[Callable[[str], dict[str, Any]]] = [
    lambda trap: {"type": "json", "jsonlib": trap},
    lambda trap: {"type": "json", "jsonlib": f"{trap}.inner"},
    lambda trap: {"type": "json", "object_encoder": f"{trap}.hook"},
    lambda trap: {"type": "json", "object_decoder": f"{trap}:hook"},
    lambda trap: {"type": "pickle", "picklelib": trap},
    lambda trap: {"type": "compressed", "serializer": "json", "compressionlib": trap},
    lambda trap: {"type": "compressed", "serializer": {"type": "pickle", "picklelib": trap}},
    lambda trap: {"type": "compressed/json", "serializer": {"type": "json", "jsonlib": trap}},
]


@pytest.mark.parametrize("allow_pickle", [True, False])
@pytest.mark.parametrize("describing", DESCRIPTIONS)
def test_a_description_imports_nothing(
    store_with: StoreWith,
    tmp_path: Path,
    trap: str,
    describing: Callable[[str], dict[str, Any]],
    allow_pickle: bool,
) -> None:
    store, description = store_with(allow_pickle=allow_pickle), describing(trap)
    store.write({"a": 1}, key="k")
    describe(store, description)
    for read in (store.read, lambda key: store.history(key, with_results=True), lambda key: store.read_many([key])):
        with pytest.raises(SerializationError):
            read("k")
    document = {"metadata": {"serializer": description}, "result": "1"}
    with pytest.raises(SerializationError):
        ResultRecord.deserialize(json.dumps(document).encode())
    with pytest.raises(ValueError, match=r"stored data|no function|cannot be imported|refused"):
        ResultRecordMetadata.load_bytes(json.dumps(document["metadata"]).encode())
    assert not is_sprung(tmp_path, trap)


def payload_of(path: str) -> bytes:
    return json.dumps({"__class__": path, "data": {"n": 3}, "exact": {}}).encode()


@pytest.mark.parametrize("allow_pickle", [True, False])
@pytest.mark.parametrize("inner", ["", ".inner"])
def test_a_payload_imports_nothing(tmp_path: Path, trap: str, inner: str, allow_pickle: bool) -> None:
    path = f"{trap}{inner}.X"
    parameters = {"__class__": "tests.support.serialized.Inner", "data": {}, "parameters": [{"class": path}]}
    with temporary_settings(allow_pickle=allow_pickle):
        for blob in (payload_of(path), json.dumps({"__exc_type__": path, "message": ""}).encode()):
            with pytest.raises(ValueError, match=r"not found here: import its module before.*PGRESULTS_IMPORTABLE"):
                JSONSerializer().loads(blob)
        with pytest.raises(ValueError, match="payload names"):
            JSONSerializer().loads(json.dumps(parameters).encode())
    assert not is_sprung(tmp_path, trap)


@pytest.mark.parametrize("listed", ["{}", "{}.inner"])
def test_what_settings_list_is_imported(tmp_path: Path, trap: str, listed: str) -> None:
    with temporary_settings(importable=f"other, {listed.format(trap)}"):
        assert JSONSerializer().loads(payload_of(f"{trap}.inner.X")).n == 3


def test_a_module_that_is_listed_is_not_run_for_a_name_it_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    written(tmp_path, {"drop_everything.py": f"open({str(tmp_path / 'proof')!r}, 'w').close()\n"})
    written(tmp_path, {"broken_module.py": "class X(:\n"})
    with temporary_settings(importable="drop_everything,broken_module,antigravity"):
        for path in ("drop_everything.X", "broken_module.X", "antigravity.fly", "drop_everything.X.Y"):
            with pytest.raises(ValueError, match="not found here"):
                JSONSerializer().loads(payload_of(path))
    assert not (tmp_path / "proof").exists()
    assert "antigravity" not in sys.modules


def test_what_is_imported_is_found(trap: str) -> None:
    __import__(f"{trap}.inner")
    assert JSONSerializer().loads(payload_of(f"{trap}.inner.X")).n == 3


def test_a_module_is_not_asked_for_what_it_would_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"lazy_{uuid4().hex}"
    lazy = f"def __getattr__(name):\n    import importlib\n    return importlib.import_module('{name}_trap').X\n"
    written(tmp_path, {f"{name}.py": lazy, f"{name}_trap.py": TRAP})
    monkeypatch.syspath_prepend(tmp_path)
    __import__(name)
    program = {"program": name, "name": "X"}
    for tag in ({"__class__": f"{name}.X"}, {"__class__": "__main__.X", "program": program}):
        with pytest.raises(ValueError, match="payload names"):
            JSONSerializer().loads(json.dumps({**tag, "data": {"n": 3}}).encode())
    assert f"{name}_trap" not in sys.modules


def test_what_the_program_has_named_may_be_named_by_records(store_with: StoreWith, trap: str) -> None:
    own = store_with()
    own.serializer = JSONSerializer(object_decoder=f"{trap}.hook")
    own.write({"a": 1}, key="k")
    assert store_with().read("k").result == {"a": 1}


def test_a_serializer_that_was_handed_over_counts_as_named(tmp_path: Path) -> None:
    written(tmp_path, {"codec.py": "def decode(value): return value\n"})
    script = """
    import pickle, sys, json
    from pgresults.records.records import ResultRecordMetadata
    data = json.dumps({"serializer": {"type": "json", "object_decoder": "codec.decode"}}).encode()
    def try_it():
        try:
            print(ResultRecordMetadata.load_bytes(data).serializer.object_decoder)
        except ValueError:
            print("refused", "codec" in sys.modules)
    try_it()
    pickle.loads(bytes.fromhex(sys.argv[1]))
    try_it()
    """
    made = "from pgresults.serializers import JSONSerializer as J; import pickle; "
    made += "print(pickle.dumps(J(object_decoder='codec.decode')).hex())"
    (handed,) = python("-c", made, directory=tmp_path)
    written(tmp_path, {"reader.py": script})
    assert python("reader.py", handed, directory=tmp_path) == ["refused False", "codec.decode"]


@pytest.mark.parametrize("damaged", [[], "json", {}, 1, None, {"type": []}, [{"type": "json"}]])
async def test_a_description_that_is_none_is_an_error_of_ours(
    store_with: StoreWith, call: Call, damaged: object
) -> None:
    store = store_with()
    store.write({"a": 1}, key="k")
    describe(store, damaged)
    with pytest.raises(SerializationError, match="serializer"):
        await call(store, "read", "k")


def test_unpickling_is_not_asking_for_an_unknown_library() -> None:
    own = JSONSerializer()
    assert pickle.loads(pickle.dumps(own)) == own
    assert Serializer.model_validate(own.model_dump()) == own


@pytest.mark.parametrize("describing", DESCRIPTIONS)
def test_an_imported_file_imports_no_module(
    store_with: StoreWith, tmp_path: Path, trap: str, describing: Callable[[str], dict[str, Any]]
) -> None:
    storage, file = store_with().result_storage, tmp_path / "results.jsonl"
    digest = hashlib.sha256(b"1").hexdigest()
    one = {"key": "k", "version": 1, "created_at": "2026-01-01T00:00:00Z", "size": 1, "sha256": digest}
    file.write_text(json.dumps({**one, "serializer": describing(trap), "payload": "MQ=="}))
    options = ["--database-url", psycopg_url(storage.database.url()), "--storage", storage.name]
    outcome = CliRunner().invoke(app, [*options, "import", "file", str(file), "--create"])
    assert (outcome.exit_code, "PGRESULTS_IMPORTABLE" in outcome.stderr) == (1, True)
    assert not is_sprung(tmp_path, trap)


# Fields that import what they are given


class Importing(BaseModel):
    what: ImportString[Any]


class Holding(BaseModel):
    several: list[Importing | None] = []
    by_name: dict[str, "Holding"] = {}


@dataclass
class ImportingClass:
    what: ImportString[Any]


@dataclass
class HoldingClass:
    held: Importing


class Encoded(BaseModel):
    text: Json[list[ImportString[Any]]]


IMPORTING: dict[type, Callable[[str], Any]] = {
    Importing: lambda trap: {"what": trap},
    Holding: lambda trap: {"by_name": {"a": {"several": [None, {"what": f"{trap}.inner"}]}}},
    ImportingClass: lambda trap: {"what": f"{trap}:hook"},
    HoldingClass: lambda trap: {"held": {"what": f"{trap}.hook"}},
    Encoded: lambda trap: {"text": json.dumps([trap])},
}


@pytest.mark.parametrize("cls", IMPORTING, ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("allow_pickle", [True, False])
def test_a_field_imports_nothing_that_a_payload_names(tmp_path: Path, trap: str, cls: type, allow_pickle: bool) -> None:
    payload = json.dumps({"__class__": f"{cls.__module__}.{cls.__qualname__}", "data": IMPORTING[cls](trap)}).encode()
    with temporary_settings(allow_pickle=allow_pickle), pytest.raises(TypeError, match="ImportString"):
        JSONSerializer().loads(payload)
    assert not is_sprung(tmp_path, trap)


def test_what_a_field_imported_comes_back_where_we_wrote_it() -> None:
    held = Importing(what="math.pi")
    assert JSONSerializer().loads(JSONSerializer().dumps(held)) == held
