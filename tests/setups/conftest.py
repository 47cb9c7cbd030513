"""Servers that several tests of setups share."""

from collections.abc import Iterator

import pytest

from pgresults.database import migrations
from pgresults.errors import ConfigurationError
from pgresults.server import binaries
from pgresults.server.embedded import EmbeddedPostgres
from tests.support.standbys import own_server, standby_of, url_of


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[EmbeddedPostgres, EmbeddedPostgres]]:
    """A primary and its standby."""
    try:
        binaries.bin_directory()
    except ConfigurationError:
        pytest.skip("the extra 'embedded' is not installed: there is no server that could have a standby")
    with own_server() as primary:
        migrations.upgrade(url_of(primary))
        with standby_of(primary) as standby:
            yield primary, standby
