"""The deprecated reference to a result."""

import pickle
import warnings
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import BaseModel

from pgresults import PersistedResult, PostgresStorage, ResultStore
from pgresults.errors import MissingResult
from pgresults.serializers import JSONSerializer
from pgresults.settings import temporary_settings
from tests.support.calls import Call
from tests.support.database import psycopg_url


class Holding(BaseModel):
    """A model with a reference in it."""

    reference: PersistedResult


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
class TestPersistedResult:
    """The deprecated reference."""

    async def test_it_is_written_once_and_read(self, storage: PostgresStorage, call: Call) -> None:
        with pytest.warns(DeprecationWarning, match=r"ResultStore\.write"):
            reference = await call(
                PersistedResult, "create", {"a": 1}, storage, lambda: "k", JSONSerializer(), cache_object=False
            )
        await call(reference, "write")
        await call(reference, "write", "ignored")
        assert await call(reference, "get") == {"a": 1}
        assert (reference.type, reference.serializer_type, reference.storage_key) == ("reference", "json", "k")
        assert ResultStore(result_storage=storage).read("k").metadata.version == 1
        assert reference == reference.model_copy()
        assert reference != reference.model_copy(update={"storage_key": "other"})

    def test_its_key_is_a_text(self, storage: PostgresStorage) -> None:
        with pytest.raises(TypeError, match="int"):
            PersistedResult.create(1, storage, lambda: 1, JSONSerializer())  # type: ignore[arg-type, return-value]

    async def test_none_in_its_place(self, storage: PostgresStorage, call: Call) -> None:
        reference = PersistedResult.create(object(), storage, lambda: "k", JSONSerializer(), serialize_to_none=True)
        await call(reference, "write")
        assert not ResultStore(result_storage=storage).exists("k")
        assert reference.get() is not None
        with pytest.raises(MissingResult, match="never written"):
            await call(reference, "get", ignore_cache=True)
        assert (reference.model_dump(), reference.model_dump_json()) == (None, "null")
        assert Holding(reference=reference).model_dump() == {"reference": None}
        assert reference != reference.model_copy(update={"storage_key": "other"})

    @pytest.mark.parametrize("kept", [True, False])
    async def test_an_object_is_there_until_it_is_written(
        self, storage: PostgresStorage, call: Call, kept: bool
    ) -> None:
        given = {"a": 1}
        reference = PersistedResult.create(given, storage, lambda: "k", JSONSerializer(), cache_object=kept)
        assert reference.has_cached_object()
        assert await call(reference, "get") is given
        await call(reference, "write")
        assert reference.has_cached_object() is kept
        assert await call(reference, "get") == given
        assert reference.has_cached_object() is kept

    async def test_what_is_read_through_a_reference_is_kept_with_its_expiration(
        self, storage: PostgresStorage, call: Call
    ) -> None:
        tomorrow = datetime.now(UTC) + timedelta(days=1)
        store = ResultStore(result_storage=storage, serializer="json")
        store.write([1], key="k", expiration=tomorrow)
        with temporary_settings(database_url=psycopg_url(storage.database.url())):
            storage.save()
            reference = PersistedResult(serializer_type="json", storage_key="k", storage_block_id=storage.id)
            assert not reference.has_cached_object()
            first = await call(reference, "get")
            assert reference.expiration == tomorrow
            assert await call(reference, "get") is first
            store.delete("k")
            assert await call(reference, "get") == [1]
            with pytest.raises(MissingResult, match="deleted"):
                await call(reference, "get", ignore_cache=True)

    async def test_one_without_an_object_writes_none(self, storage: PostgresStorage, call: Call) -> None:
        made = PersistedResult(serializer_type="pickle", storage_key="k")
        for reference in (made, pickle.loads(pickle.dumps(made)), made.model_copy(deep=True)):
            with pytest.raises(ValueError, match="no object to write"):
                await call(reference, "write")
        assert not ResultStore(result_storage=storage).exists("k")

    async def test_its_warnings_point_at_the_caller(self, storage: PostgresStorage, store: ResultStore) -> None:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            PersistedResult(serializer_type="json", storage_key="k")
            PersistedResult.create(1, storage, lambda: "k", JSONSerializer())
            await PersistedResult.acreate(1, storage, lambda: "k", JSONSerializer())
            store.create_result(1, key="k")
            await store.acreate_result(1, key="k")
            ResultStore(persist_result=True)
        deprecated = [warning.filename for warning in warned if warning.category is DeprecationWarning]
        assert deprecated == [__file__] * 8  # a store's references are two deprecated things

    async def test_a_store_creates_it(self, store: ResultStore, call: Call) -> None:
        with pytest.warns(DeprecationWarning, match="create_result"):
            reference = await call(store, "create_result", 1, key="k")
        assert not store.exists("k")
        reference.write()
        assert store.read("k").result == 1
