"""What the tests of faults share."""

from collections.abc import Callable

import pytest

Tell = Callable[..., None]


@pytest.fixture
def tell(record_property: Callable[[str, object], None]) -> Tell:
    """Says what came of a fault, for the table at the end of the run."""

    def row(fault: str, *, rounds: int, acknowledged: int, lost: int, stuck: int) -> None:
        record_property("fault", (fault, rounds, acknowledged, lost, stuck))
        assert lost == stuck == 0

    return row
