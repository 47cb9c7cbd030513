"""Failing writes and commits: they store nothing, or say that nobody knows."""

# ruff: noqa: PT012 (what fails is the end of a block)

import logging
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import URL

from pgresults.errors import PayloadTooLarge, StorageUnavailable
from pgresults.settings import Settings
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore
from tests.support.proxy import Proxy
from tests.support.transactions import UNPICKLABLE, Enter, stored


class TestFailures:
    async def test_an_object_without_bytes_is_logged_and_rolls_back(
        self, enter: Enter, store: ResultStore, caplog: pytest.LogCaptureFixture
    ) -> None:
        undone = []
        async with enter("a", store) as root:
            root.stage(1)
            async with enter("b", store) as child:
                child.stage(UNPICKLABLE, on_rollback_hooks=[undone.append])
        assert root.is_rolled_back()
        assert child.is_rolled_back()
        assert undone == [child]
        assert stored(store, "a", "b") == {}
        [record] = [record for record in caplog.records if record.name == "pgresults.transactions"]
        assert record.levelno == logging.WARNING
        assert "'a' is rolled back" in record.getMessage()

    async def test_it_logs_where_it_is_told(self, enter: Enter, store: ResultStore, caplog: Any) -> None:
        async with enter("a", store, logger=logging.getLogger("mine")) as txn:
            txn.stage(UNPICKLABLE)
        assert [record.name for record in caplog.records] == ["mine"]

    async def test_a_payload_beyond_the_limit(self, enter: Enter, shared_url: URL) -> None:
        storage = PostgresStorage(shared_url, f"test-{uuid4().hex}", settings=Settings(max_payload_bytes=1000))
        store, undone = ResultStore(result_storage=storage), []
        with pytest.raises(PayloadTooLarge):
            async with enter("a", store) as root:
                root.stage(1, on_rollback_hooks=[undone.append])
                async with enter("b", store) as child:
                    child.stage(bytes(2000), on_rollback_hooks=[undone.append])
        assert undone == [root, child]
        assert stored(store, "a", "b") == {}
        await storage.aclose()

    async def test_a_write_that_the_server_refuses_stores_nothing(
        self, enter: Enter, store: ResultStore, connection: Any
    ) -> None:
        name = f"refuse_{uuid4().hex}"
        storage_id = store.result_storage.id
        store.write(0, key="seen")
        connection.execute(
            f"CREATE FUNCTION pgresults.{name}() RETURNS trigger LANGUAGE plpgsql AS "
            f"$$BEGIN IF new.storage_id = '{storage_id}' AND new.key = 'b' THEN RAISE 'no'; END IF; RETURN new; END$$;"
            f"CREATE TRIGGER {name} BEFORE INSERT ON pgresults.history FOR EACH ROW EXECUTE FUNCTION pgresults.{name}()"
        )
        try:
            with pytest.raises(StorageUnavailable, match="no"):
                async with enter() as root:
                    for key in "abc":
                        async with enter(key, store) as child:
                            child.stage(key, on_rollback_hooks=[lambda txn: txn.get_parent().set("undone", True)])
        finally:
            connection.execute(f"DROP TRIGGER {name} ON pgresults.history; DROP FUNCTION pgresults.{name}()")
        assert root.get("undone") is True
        assert root.is_rolled_back()
        assert stored(store, *"abc") == {}
        left = "SELECT count(*) FROM pgresults.payload WHERE storage_id = %s AND key <> 'seen'"
        assert connection.execute(left, [storage_id]).fetchone() == (0,)

    async def test_a_commit_whose_answer_is_lost_is_looked_for(self, enter: Enter, shared_url: URL) -> None:
        with Proxy(shared_url) as proxy:
            storage = PostgresStorage(proxy.url, f"test-{uuid4().hex}")
            store = ResultStore(result_storage=storage)
            store.write(0, key="warm")
            undone: list[Any] = []
            async with enter() as root:
                for key in "ab":
                    async with enter(key, store) as child:
                        child.stage(key, on_rollback_hooks=[undone.append])
                proxy.lose(b"COMMIT")
            assert proxy.losses == 0
            assert root.is_committed()
            assert undone == []
            assert [store.read(key).metadata.version for key in "ab"] == [1, 1]
            await storage.aclose()

    async def test_a_commit_that_stays_unknown_says_so(self, enter: Enter, shared_url: URL) -> None:
        with Proxy(shared_url) as proxy:
            storage = PostgresStorage(proxy.url, f"test-{uuid4().hex}", settings=Settings(connect_timeout=1))
            store = ResultStore(result_storage=storage)
            store.write(0, key="warm")
            with pytest.raises(StorageUnavailable) as caught:
                async with enter("a", store) as txn:
                    txn.stage(1)
                    proxy.lose(b"", times=100)
            assert caught.value.outcome_unknown
            await storage.aclose()
