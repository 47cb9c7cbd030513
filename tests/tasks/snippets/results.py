"""What programs for Prefect do with results."""

import gzip
import pickle
from typing import Any, Literal

from pgresults import flow, task
from pgresults.errors import ConfigurationError
from pgresults.results import ResultStore, get_result_store
from pgresults.serializers import CompressedSerializer, JSONSerializer, PickleSerializer, Serializer
from tests.tasks.snippets.table import refused, works


@works
def a_template_is_the_key() -> None:
    @task(result_storage_key="hello-{parameters[name]}.pickle")
    def hello(name: str = "world") -> str:
        return f"hello {name}"

    @flow
    def program() -> None:
        hello()
        hello(name="you")

    program()
    assert [ResultStore().read(f"hello-{name}.pickle").result for name in ("world", "you")] == [
        "hello world",
        "hello you",
    ]


@works
def each_task_keeps_its_results_in_its_own_way() -> None:
    @task
    def compute() -> int:
        return 42

    unpersisted = compute.with_options(persist_result=False)
    as_json = compute.with_options(result_serializer="json", result_storage_key="as-json")

    @flow(persist_result=True, cache_result_in_memory=False)
    def program() -> list[int]:
        return [compute(), unpersisted(), as_json()]

    assert program() == [42] * 3
    assert ResultStore().read("as-json").metadata.serializer == JSONSerializer()


@refused(ConfigurationError, r"no storage s3-bucket/mine .* a block of Prefect's as the block that was loaded")
def a_block_is_named() -> None:
    @flow(result_storage="s3-bucket/mine")
    def program() -> int:
        return 1

    program()


@refused(ModuleNotFoundError, "pgresults.filesystems", page="`prefect.filesystems`: `LocalFileSystem`, S3")
def results_are_kept_in_files() -> None:
    from pgresults.filesystems import LocalFileSystem  # type: ignore[import-not-found]

    ResultStore(result_storage=LocalFileSystem(basepath="results"))


@works
def a_record_says_what_it_is() -> None:
    store = ResultStore()
    metadata = store.write({"answer": 42}, key="my-result")
    record = store.read(key="my-result")
    assert (record.result, record.metadata.storage_key, record.metadata.expiration) == (
        {"answer": 42},
        "my-result",
        None,
    )
    assert record.metadata == metadata
    assert record.metadata.serializer.type == "pickle"
    assert type(record).from_metadata(metadata).result == {"answer": 42}


@works
def serializers_compress_and_are_ones_own() -> None:
    class Reversed(Serializer[str]):
        type: str = "snippet-reversed"

        def dumps(self, obj: str) -> bytes:
            return obj[::-1].encode()

        def loads(self, blob: bytes) -> str:
            return blob.decode()[::-1]

    for serializer in (Reversed(), "compressed/json", CompressedSerializer(serializer="json", compressionlib="zlib")):
        store = ResultStore(serializer=serializer)
        store.write("text", key="serialized")
        assert store.read("serialized").result == "text"


@works
def a_serializer_names_its_type_as_a_literal() -> None:
    class Squeezed(Serializer):  # type: ignore[type-arg, unused-ignore]
        type: Literal["snippet-squeezed"] = "snippet-squeezed"  # type: ignore[assignment, unused-ignore]

        def dumps(self, data: Any) -> bytes:
            return gzip.compress(pickle.dumps(data))

        def loads(self, data: bytes) -> Any:
            return pickle.loads(gzip.decompress(data))

    @task(result_serializer="snippet-squeezed", persist_result=True, result_storage_key="squeezed-{parameters[name]}")
    def load(name: str) -> dict[str, str]:
        return {"name": name}

    assert load("a") == load("a") == {"name": "a"}
    assert ResultStore().read("squeezed-a").serializer == Squeezed()


@works
def payloads_are_loaded_by_hand() -> None:
    record = ResultStore(serializer="json").create_result_record({"a": 1}, key="by-hand")
    assert JSONSerializer().loads(record.serialize_result()) == {"a": 1}
    assert PickleSerializer().loads(PickleSerializer().dumps({1, 2})) == {1, 2}


@works
def json_is_written_without_spaces() -> None:
    store = ResultStore(serializer=JSONSerializer(dumps_kwargs={"separators": (",", ":")}))
    assert store.write({"a": [1, 2]}, key="compact").size == len('{"a":[1,2]}')


@refused(ValueError, "takes a function or class, which no record can hold: name a function in 'object_encoder'")
def json_is_encoded_by_a_class() -> None:
    import json

    JSONSerializer(dumps_kwargs={"cls": json.JSONEncoder})


@refused(ConfigurationError, "unknown serializer type 'parquet'; the known types are")
def an_unknown_serializer() -> None:
    ResultStore(serializer="parquet")


@works
def a_task_reads_with_the_store_around() -> None:
    @task(persist_result=True, result_storage_key="first")
    def first() -> int:
        return 1

    @task
    def second() -> int:
        return get_result_store().read("first").result + 1  # type: ignore[no-any-return]

    @flow
    def program() -> int:
        first()
        return second()

    assert program() == 2
