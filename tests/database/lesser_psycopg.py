"""A program that uses a store in every way, on a psycopg that lacked a part when pgresults was imported.

Arguments: the part as ``module:name``, ``module:class.name`` or ``module:``, a database's URL, and a storage's name.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from importlib import import_module
from typing import Any

import pytest

RESULTS = [None, True, 2**40, "é", b"\0\xff", ["a", None]]


class _Missing:
    """An attribute that a base class has, and a class has not."""

    def __get__(self, *_: object) -> None:
        raise AttributeError


@contextmanager
def without(part: str) -> Iterator[None]:
    """Take a part away, until psycopg needs it, which in another version would do without."""
    module_name, _, path = part.partition(":")
    name, _, attribute = path.partition(".")
    module = import_module(module_name)
    with pytest.MonkeyPatch.context() as patch:
        if attribute:  # a compiled class cannot be changed, but replaced
            changes = {attribute: _Missing(), "connect_start": classmethod(lambda cls, _: cls())}
            patch.setattr(module, name, type(name, (getattr(module, name),), changes))
        elif name:
            patch.delattr(module, name)
        else:
            patch.setitem(sys.modules, module_name, None)
        yield


async def use(store: Any, enter: Callable[..., Any], call: Callable[..., Any], key: str) -> None:
    """Write, read, lock and commit, in one of the two ways of waiting."""
    others = [f"{key}-a", f"{key}-b"]
    for version, result in enumerate(RESULTS, 1):
        assert (await call("write", result, key=key)).version == version
        assert (await call("read", key)).result == result
    assert [await call("exists", one) for one in [key, *others]] == [True, False, False]

    items = {f"{key}-{number}": os.urandom(300_000) for number in range(8)}
    assert [metadata.version for metadata in (await call("write_many", items)).values()] == [1] * 8
    assert {one: record.result for one, record in (await call("read_many", items)).items()} == items

    assert await call("acquire_lock", key, "me")
    assert not await call("acquire_lock", key, "you", timeout=0)
    await call("release_lock", key, "me")
    assert not await call("is_locked", key)

    with suppress(ZeroDivisionError):
        async with enter(others[0], store) as txn:
            txn.stage("draft")
            raise ZeroDivisionError
    assert not await call("exists", others[0])
    async with enter():
        for one in others:
            async with enter(one, store) as txn:
                txn.stage(one)
    assert [(await call("read", one)).result for one in others] == others
    assert (await call("verify")).intact


async def main(part: str, url: str, name: str) -> None:
    """Use a store without a part, blocking and awaiting."""
    with without(part):
        from pgresults.database.prepared import PreparedStatements
        from pgresults.storage import PostgresStorage
        from pgresults.store.store import ResultStore
        from pgresults.transactions import transaction

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a statement went without a cursor")

    PreparedStatements.__init__ = refuse
    storage = PostgresStorage(url, name)
    store = ResultStore(result_storage=storage, lock_manager=storage.lock_manager())

    @asynccontextmanager
    async def enter(*arguments: Any) -> AsyncIterator[Any]:
        with transaction(*arguments) as txn:
            yield txn

    async def block(method: str, *arguments: Any, **options: Any) -> Any:
        return getattr(store, method)(*arguments, **options)

    async def wait(method: str, *arguments: Any, **options: Any) -> Any:
        return await getattr(store, f"a{method}")(*arguments, **options)

    await use(store, enter, block, "blocking")
    await use(store, transaction, wait, "awaiting")
    await storage.aclose()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
