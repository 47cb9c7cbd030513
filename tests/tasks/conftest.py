"""Every test of tasks begins without calls."""

from collections.abc import Iterator

import pytest

from tests.support.work import calls


@pytest.fixture(autouse=True)
def _no_calls() -> Iterator[None]:
    calls.clear()
    yield
    calls.clear()
