"""The block: saved and loaded, read and written as one of Prefect's storages, filled from others."""

import pickle
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL

from pgresults.errors import InvalidArgument, MissingResult
from pgresults.store import ResultStore
from tests.support.database import psycopg_url
from tests.support.prefect_fixtures import MARKS, require_prefect

prefect: Any = require_prefect()
from prefect.blocks.core import Block  # noqa: E402
from prefect.filesystems import LocalFileSystem, RemoteFileSystem, WritableFileSystem  # noqa: E402
from prefect.locking.protocol import LockManager  # noqa: E402
from prefect.results import ResultStore as TheirStore  # noqa: E402
from prefect.transactions import IsolationLevel  # noqa: E402

from pgresults.integrations.prefect import PostgresLockManager, PostgresResultStorage  # noqa: E402
from pgresults.integrations.prefect.files import import_files  # noqa: E402
from pgresults.integrations.prefect.places import source_of  # noqa: E402
from tests.support.listing import page  # noqa: E402

pytestmark = MARKS
SERIALIZABLE = IsolationLevel.SERIALIZABLE


def test_the_block_comes_back_from_the_server_without_showing_its_url(block: PostgresResultStorage) -> None:
    loaded = Block.load(f"postgres-result-storage/{block.name}")
    assert isinstance(loaded, PostgresResultStorage)
    assert loaded.storage is block.storage
    assert block.url is not None
    assert block.url.get_secret_value() not in repr(loaded) + str(loaded.model_dump(mode="json"))


async def test_the_server_does_not_show_the_url(block: PostgresResultStorage) -> None:
    async with prefect.client.orchestration.get_client() as client:
        shown = await client.read_block_document_by_name(block.name, "postgres-result-storage", include_secrets=False)
    assert shown.data["url"] == "********"


def test_a_block_has_one_place(shared_url: URL) -> None:
    url = psycopg_url(shared_url)
    with pytest.raises(ValueError, match="not both") as refused:
        PostgresResultStorage(url=url, path="somewhere")
    assert url not in str(refused.value)


def test_the_lock_manager_is_one_of_prefects(block: PostgresResultStorage) -> None:
    manager = block.lock_manager()
    assert isinstance(manager, LockManager)
    assert pickle.loads(pickle.dumps(manager)) == manager
    assert TheirStore(result_storage=block, lock_manager=manager).supports_isolation_level(SERIALIZABLE)


@pytest.mark.parametrize("serializer", ["pickle", "json", "compressed/pickle", "compressed/json"])
def test_a_record_comes_back_as_prefect_wrote_it(
    block: PostgresResultStorage, ours: ResultStore, serializer: str, tmp_path: Path
) -> None:
    expiration = datetime.now(UTC) + timedelta(hours=1)
    result = {"a": [1, "é"], "b": None}
    for storage in (block, LocalFileSystem(basepath=str(tmp_path))):
        store = TheirStore(result_storage=storage, serializer=prefect.serializers.Serializer(type=serializer))
        record = store.create_result_record(result, key="folder/key", expiration=expiration)
        store.persist_result_record(record)
        read = TheirStore(result_storage=storage).read("folder/key")
        assert (read.metadata, read.result) == (record.metadata, result)
    assert ours.read("folder/key").result == result
    entry = ours.history("folder/key")[0]
    assert entry.expiration == expiration
    assert ours.expiring(timedelta(hours=2))[0].serializer == serializer


def test_payloads_are_stored_as_raw_bytes(block: PostgresResultStorage, ours: ResultStore) -> None:
    store = TheirStore(result_storage=block)
    store.write(b"\x00" * 30_000, key="k")
    size = ours.history("k")[0].size
    assert size is not None
    assert 30_000 <= size < 30_100, "base64 would be a third more"


def test_what_is_no_record_is_kept_as_it_is(block: PostgresResultStorage) -> None:
    blobs = (b"", b"\x00\xff", b"{", b'{"metadata": {}, "result": "x"}', b'{"metadata": 1, "result": 2}', b"[1]")
    for blob in blobs:
        block.write_path("blob", blob)
        assert block.read_path("blob") == blob


def test_prefect_reads_what_pgresults_wrote(block: PostgresResultStorage, ours: ResultStore) -> None:
    ours.write({"a": 1}, key="k")
    assert TheirStore(result_storage=block).read("k").result == {"a": 1}


async def test_both_ways_of_calling(block: PostgresResultStorage) -> None:
    await block.write_path("k", b"awaited")
    assert block.read_path("k", _sync=True) == await block.read_path("k") == await block.aread_path("k") == b"awaited"
    with pytest.raises(MissingResult, match="never written"):
        await block.read_path("other")


@pytest.mark.parametrize("key", ["with/slash", "absolute/", "späce ünïcode ✓", "a" * 2048, "%41{x}\\:?*"])
def test_keys_may_be_any_text(block: PostgresResultStorage, ours: ResultStore, key: str) -> None:
    store = TheirStore(result_storage=block)
    store.write("value", key=key)
    assert TheirStore(result_storage=block).read(key).result == "value"
    assert [listed.key for listed in page(ours.result_storage)] == [key.lstrip("/")]


def test_imported_files_are_read_back_equal(block: PostgresResultStorage, tmp_path: Path) -> None:
    files, keys = TheirStore(result_storage=LocalFileSystem(basepath=str(tmp_path))), ["a", "folder/b", "c"]
    for key in keys:
        files.write({"key": key, "time": datetime.now(UTC)}, key=key, expiration=datetime.now(UTC) + timedelta(hours=1))
    source = source_of(str(tmp_path))
    assert [one.outcome for one in import_files(block.storage, source, source.names())] == ["imported"] * 3
    imported = TheirStore(result_storage=block)
    for key in keys:
        ours, theirs = imported.read(key), files.read(key)
        assert (ours.metadata, ours.result) == (theirs.metadata, theirs.result)


def test_results_of_saved_blocks_are_imported(block: PostgresResultStorage, ours: ResultStore, tmp_path: Path) -> None:
    local, remote = LocalFileSystem(basepath=str(tmp_path)), RemoteFileSystem(basepath="memory://results/")
    for number, old in enumerate((local, remote)):
        name = f"{block.name}-{number}"
        old.save(name, _sync=True)
        TheirStore(result_storage=old).write(number, key=f"key-{number}")
        source = source_of(f"block:{old.get_block_type_slug()}/{name}")
        assert [one.outcome for one in import_files(block.storage, source, source.names())] == ["imported"]
        assert TheirStore(result_storage=block).read(f"key-{number}").result == number
    for refused in (f"postgres-result-storage/{block.name}", "local-file-system/none"):
        with pytest.raises(InvalidArgument, match=r"cannot be listed|no block"):
            source_of(f"block:{refused}")


def test_it_is_a_writable_file_system(block: PostgresResultStorage) -> None:
    assert isinstance(block, WritableFileSystem)
    assert isinstance(block.lock_manager(), PostgresLockManager)
