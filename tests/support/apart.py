"""A database of a module's own, for tests whose entries others would count: holds, rules, maintenance."""

from collections.abc import Callable

import pytest
from sqlalchemy import URL


@pytest.fixture(scope="module")
def shared_url(create_database: Callable[[], URL]) -> URL:
    """A migrated database that the tests of a module share; each has a storage of its own in it."""
    return create_database()
