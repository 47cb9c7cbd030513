"""Blocks of a user's own that hand bytes on to ours: what is committed is stored, and no lock stays."""

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from pgresults.store import ResultStore
from tests.support.prefect_fixtures import MARKS, require_prefect

prefect: Any = require_prefect()
from prefect.filesystems import LocalFileSystem, WritableFileSystem  # noqa: E402
from prefect.results import ResultStore as TheirStore  # noqa: E402
from prefect.transactions import IsolationLevel, transaction  # noqa: E402

from pgresults.integrations.prefect import PostgresResultStorage  # noqa: E402
from tests.support.listing import page  # noqa: E402

pytestmark = MARKS
SERIALIZABLE = IsolationLevel.SERIALIZABLE


class Handing(WritableFileSystem):  # type: ignore[misc, unused-ignore]
    """Hands bytes on as they are."""

    to: Any

    def _resolve_path(self, path: str) -> str:
        return path  # Prefect asks for it where a block is not saved

    def read_path(self, path: str, _sync: bool | None = None) -> Any:
        return self.to.read_path(path, _sync=_sync)

    def write_path(self, path: str, content: bytes, _sync: bool | None = None) -> Any:
        return self.to.write_path(path, content, _sync=_sync)

    async def aread_path(self, path: str) -> bytes:
        return await self.to.aread_path(path)  # type: ignore[no-any-return]

    async def awrite_path(self, path: str, content: bytes) -> None:
        await self.to.awrite_path(path, content)


class Scrambling(Handing):
    """Hands other bytes on, as encryption does."""

    def read_path(self, path: str, _sync: bool | None = None) -> Any:
        return self.to.read_path(path, _sync=True)[::-1]

    def write_path(self, path: str, content: bytes, _sync: bool | None = None) -> Any:
        return self.to.write_path(path, content[::-1], _sync=True)

    async def aread_path(self, path: str) -> bytes:
        return (await self.to.aread_path(path))[::-1]  # type: ignore[no-any-return]

    async def awrite_path(self, path: str, content: bytes) -> None:
        await self.to.awrite_path(path, content[::-1])


class Prefixing(Handing):
    """Hands bytes on under other keys."""

    def read_path(self, path: str, _sync: bool | None = None) -> Any:
        return super().read_path(f"team/{path}", _sync)

    def write_path(self, path: str, content: bytes, _sync: bool | None = None) -> Any:
        return super().write_path(f"team/{path}", content, _sync)

    async def aread_path(self, path: str) -> bytes:
        return await super().aread_path(f"team/{path}")

    async def awrite_path(self, path: str, content: bytes) -> None:
        await super().awrite_path(f"team/{path}", content)


class Derived(PostgresResultStorage):
    """One of ours that puts everything under a prefix."""

    _block_type_slug = "derived"

    def _resolve_path(self, path: str) -> str:
        return f"team/{super()._resolve_path(path).removeprefix('team/')}".rstrip("/")


class Filtering(PostgresResultStorage):
    """One of ours that keeps what is large elsewhere, here nowhere."""

    _block_type_slug = "filtering"

    def write_path(self, path: str, content: bytes, _sync: bool | None = None) -> Any:
        return None

    async def awrite_path(self, path: str, content: bytes) -> None:
        return None


Wrap = Callable[[Any], Any]
WRAPPERS: dict[str, Wrap] = {
    "none": lambda block: block,
    "handing": lambda block: Handing(to=block),
    "scrambling": lambda block: Scrambling(to=block),
    "prefixing": lambda block: Prefixing(to=block),
    "two": lambda block: Scrambling(to=Prefixing(to=block)),
}


@pytest.fixture
def keys(block: PostgresResultStorage) -> PostgresResultStorage:
    """A block for metadata, in the same database."""
    return PostgresResultStorage(url=block.url, name=f"{block.name}-keys")


def stored(store: TheirStore, *names: str) -> dict[str, Any]:
    """What a program that starts anew finds."""
    fresh = TheirStore(result_storage=store.result_storage, metadata_storage=store.metadata_storage)
    return {name: fresh.read(name).result for name in names if fresh.exists(name)}


def forget(*blocks: PostgresResultStorage) -> None:
    """Have nothing left of what was stored."""
    for block in blocks:
        for listed in page(block.storage):
            ResultStore(result_storage=block.storage).delete(listed.key)


async def nest(store: TheirStore, asynchronous: bool, root_store: TheirStore | None = None, **options: Any) -> Any:
    """A tree of three: ``deep`` in ``middle`` in ``root``; the root has the store or one of its own."""
    root_store = root_store or store
    if not asynchronous:
        with transaction(key="root", store=root_store, **options) as root:
            with transaction(key="middle", store=store, **options) as middle:
                with transaction(key="deep", store=store, **options) as deep:
                    deep.stage(3)
                middle.stage(2)
            root.stage(1)
        return root
    atransaction = prefect.transactions.atransaction
    async with atransaction(key="root", store=root_store, **options) as root:
        async with atransaction(key="middle", store=store, **options) as middle:
            async with atransaction(key="deep", store=store, **options) as deep:
                deep.stage(3)
            middle.stage(2)
        root.stage(1)
    return root


EITHER_WAY = [
    False,
    pytest.param(
        True, marks=pytest.mark.skipif(not hasattr(prefect.transactions, "atransaction"), reason="there are none")
    ),
]


@pytest.mark.parametrize("asynchronous", EITHER_WAY)
async def test_whatever_is_around_the_blocks_all_is_stored_and_no_lock_stays(
    block: PostgresResultStorage, keys: PostgresResultStorage, asynchronous: bool
) -> None:
    for of_results, of_metadata in product(WRAPPERS, ("without", *WRAPPERS)):
        metadata = None if of_metadata == "without" else WRAPPERS[of_metadata](keys)
        store = TheirStore(
            result_storage=WRAPPERS[of_results](block),
            metadata_storage=metadata,
            lock_manager=(block if metadata is None else keys).lock_manager(),
        )
        committed = await nest(store, asynchronous, isolation_level=SERIALIZABLE, overwrite=True)
        assert committed.is_committed()
        found = stored(store, "root", "middle", "deep"), [*filter(store.is_locked, ("root", "middle", "deep"))]
        assert (of_results, of_metadata, *found) == (of_results, of_metadata, {"root": 1, "middle": 2, "deep": 3}, [])
        forget(block, keys)


@pytest.mark.parametrize("asynchronous", EITHER_WAY)
async def test_what_is_below_a_root_that_writes_elsewhere_is_stored(
    block: PostgresResultStorage, keys: PostgresResultStorage, tmp_path: Path, asynchronous: bool
) -> None:
    store = TheirStore(result_storage=block, lock_manager=block.lock_manager())
    for name, other in {
        "files": LocalFileSystem(basepath=str(tmp_path)),
        "derived": Derived(url=block.url, name=block.name),
        "filtering": Filtering(url=block.url, name=block.name),
        **{name: wrap(block) for name, wrap in WRAPPERS.items()},
    }.items():
        root_store = TheirStore(result_storage=other, lock_manager=block.lock_manager())
        committed = await nest(store, asynchronous, root_store, isolation_level=SERIALIZABLE, overwrite=True)
        assert committed.is_committed()
        assert (name, stored(store, "middle", "deep")) == (name, {"middle": 2, "deep": 3})
        assert (name, stored(root_store, "root")) == (name, {} if name == "filtering" else {"root": 1})
        assert not any(map(store.is_locked, ("root", "middle", "deep")))
        forget(block, keys)


@pytest.mark.parametrize("asynchronous", EITHER_WAY)
async def test_our_locks_over_foreign_storage_end_with_the_transaction(
    block: PostgresResultStorage, tmp_path: Path, asynchronous: bool
) -> None:
    files = LocalFileSystem(basepath=str(tmp_path))
    store = TheirStore(result_storage=files, lock_manager=block.lock_manager())
    ours = TheirStore(result_storage=Handing(to=block), lock_manager=block.lock_manager())
    for below, root in ((store, store), (ours, store), (store, ours)):
        committed = await nest(below, asynchronous, root, isolation_level=SERIALIZABLE, overwrite=True)
        assert committed.is_committed()
        assert stored(below, "middle", "deep") == {"middle": 2, "deep": 3}
        assert stored(root, "root") == {"root": 1}
        assert not any(map(store.is_locked, ("root", "middle", "deep")))


@pytest.mark.parametrize("wrap", [WRAPPERS["none"], WRAPPERS["handing"]])
def test_what_is_committed_or_written_within_a_tree_is_stored_at_once(
    block: PostgresResultStorage, ours: ResultStore, wrap: Wrap
) -> None:
    store = TheirStore(result_storage=wrap(block), lock_manager=block.lock_manager())
    with transaction(key="root", store=store) as root:
        for key in ("said", "by hand"):
            with transaction(key=key, store=store, isolation_level=SERIALIZABLE) as child:
                child.stage(f"of {key}")
        said, by_hand = root.children
        assert said.commit()
        assert ours.read("said").result == "of said"
        assert not store.is_locked("said")
        store.write("by hand", key="by hand", holder=getattr(by_hand, "_holder", None))
        store.write("by hand", key="root")
        assert ours.read("by hand").result == ours.read("root").result == "by hand"
        root.rollback()
    assert (said.is_committed(), by_hand.is_rolled_back(), root.is_rolled_back()) == (True, True, True)
    assert stored(store, "said", "by hand", "root") == {"said": "of said", "by hand": "by hand", "root": "by hand"}
    assert not any(map(store.is_locked, ("said", "by hand")))


def test_a_failure_below_a_wrapper_leaves_nothing(block: PostgresResultStorage, ours: ResultStore) -> None:
    store = TheirStore(result_storage=Handing(to=block), lock_manager=block.lock_manager())
    with transaction(key="root", store=store, isolation_level=SERIALIZABLE) as root:
        for key, value in {"a": 1, "b": lambda: prefect, "c": (n for n in ())}.items():
            with transaction(key=key, store=store, isolation_level=SERIALIZABLE) as child:
                child.stage(value)
        root.stage(0)
    assert root.is_rolled_back()
    assert page(ours.result_storage) == []
    assert not any(map(store.is_locked, ("root", "a", "b", "c")))
