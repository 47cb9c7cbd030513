"""Any sequence of calls does to a store what it does to a dictionary with versions."""

from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from sqlalchemy import URL

from pgresults.errors import MissingResult
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore
from tests.support.listing import page

KEYS = st.sampled_from(["a", "b", "c/%"])
RESULTS = st.one_of(st.integers(), st.text(max_size=5), st.just(b"x" * 1_100_000))
WHO = st.integers(0, 1)


class Kept(NamedTuple):
    """What the model knows of a key."""

    result: Any
    version: int
    gone: str | None


class Machine(RuleBasedStateMachine):
    """Two stores over one storage, each with a memory of its own, against one dictionary."""

    url: URL

    def __init__(self) -> None:
        super().__init__()
        self.storage = PostgresStorage(self.url, name=f"test-{uuid4().hex}")
        self.stores = [ResultStore(result_storage=self.storage) for _ in range(2)]
        self.kept: dict[str, Kept] = {}

    def teardown(self) -> None:
        self.storage.close()

    @rule(who=WHO, key=KEYS, result=RESULTS)
    def write(self, who: int, key: str, result: Any) -> None:
        self._write(who, key, result, None)

    @rule(who=WHO, key=KEYS, result=RESULTS)
    def write_expired(self, who: int, key: str, result: Any) -> None:
        self._write(who, key, result, "expired")

    def _write(self, who: int, key: str, result: Any, gone: str | None) -> None:
        expiration = datetime.now(UTC) - timedelta(minutes=1) if gone else None
        version = self.kept[key].version + 1 if key in self.kept else 1
        assert self.stores[who].write(result, key=key, expiration=expiration).version == version
        self.kept[key] = Kept(result, version, gone)

    @rule(who=WHO, key=KEYS)
    def read(self, who: int, key: str) -> None:
        kept = self.kept.get(key, Kept(None, 0, "never written"))
        if kept.gone is None:
            record = self.stores[who].read(key)
            assert (record.result, record.metadata.version) == (kept.result, kept.version)
        else:
            with pytest.raises(MissingResult) as miss:
                self.stores[who].read(key)
            assert miss.value.reason == kept.gone

    @rule(who=WHO, key=KEYS)
    def exists(self, who: int, key: str) -> None:
        assert self.stores[who].exists(key) is (key in self.kept and self.kept[key].gone is None)

    @rule(who=WHO, key=KEYS)
    def delete(self, who: int, key: str) -> None:
        kept = self.kept.get(key)
        there = kept is not None and kept.gone is None
        assert self.stores[who].delete(key) is there
        if kept and there:
            self.kept[key] = kept._replace(gone="deleted")

    @rule(key=KEYS)
    def expire(self, key: str) -> None:
        if key in self.kept and self.kept[key].gone is None:
            self._write(0, key, self.kept[key].result, "expired")

    @rule(who=WHO)
    def forget(self, who: int) -> None:
        self.stores[who] = self.stores[who].model_copy(update={"cache_result_in_memory": bool(who)})

    @invariant()
    def pages_show_what_is_live(self) -> None:
        live = {key: kept.version for key, kept in self.kept.items() if kept.gone is None}
        assert {listed.key: listed.version for listed in page(self.storage)} == live


def test_a_store_is_a_dictionary_with_versions(shared_url: URL) -> None:
    class Here(Machine):
        url = shared_url

    run_state_machine_as_test(
        Here,
        settings=settings(max_examples=12, stateful_step_count=25, suppress_health_check=list(HealthCheck)),
    )
