"""Transactions in either way of entering them."""

from contextlib import asynccontextmanager
from typing import Any

import pytest

from pgresults.storage import PostgresStorage
from pgresults.transactions import transaction
from tests.support.calls import Call
from tests.support.transactions import Enter


@pytest.fixture(params=["sync", "async"])
def enter(request: pytest.FixtureRequest) -> Enter:
    """Enters a transaction in either way; its methods are called in the same way with `do`."""

    @asynccontextmanager
    async def enter(*arguments: Any, **options: Any) -> Any:
        if request.param == "sync":
            with transaction(*arguments, **options) as txn:
                yield txn
        else:
            async with transaction(*arguments, **options) as txn:
                yield txn

    return enter


@pytest.fixture
def do(enter: Enter, request: pytest.FixtureRequest) -> Call:
    """Calls a method in the way of `enter`."""
    kind = request.node.callspec.params["enter"]

    async def do(target: Any, name: str, *arguments: Any) -> Any:
        if kind == "sync":
            return getattr(target, name)(*arguments)
        return await getattr(target, f"a{name}")(*arguments)

    return do


@pytest.fixture(autouse=True)
async def _closed(storage: PostgresStorage) -> Any:
    yield
    await storage.aclose()
