"""What Prometheus is told of a schema: as it is now, and nothing where that is not known."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.exposition import choose_encoder

from pgresults.audit.seals import Seal
from pgresults.database.database import Database
from pgresults.database.errors import StandbyError, is_forbidden
from pgresults.database.programs import call, perform
from pgresults.errors import ConfigurationError, IntegrityError, PgResultsError, reason_of
from pgresults.operations import monitoring, registry, views
from pgresults.operations.requests import Operation

T = TypeVar("T")

_STORAGE = ("storage",)


@dataclass(frozen=True, eq=False)
class Told:
    """The metrics of a moment, and what there is to say beside them."""

    metrics: Sequence[Metric]
    notes: Sequence[str] = ()
    failure: str | None = None
    """Why there is nothing but that; None where all is well."""

    def collect(self) -> Iterable[Metric]:
        """The metrics, as a registry asks for them."""
        return self.metrics

    def encoded(self, accepted: str) -> tuple[bytes, str]:
        """The metrics as text, and its type; in the form that whoever asks takes."""
        encode, kind = choose_encoder(accepted)
        collected = CollectorRegistry(auto_describe=False)
        collected.register(self)
        return encode(collected), kind


def gather(database: Database, only: str | None, seals: Iterable[Path]) -> Told:
    """Ask a schema how it is.

    Parameters:
        database: with the schema.
        only: the name of a storage, where the others are of no interest.
        seals: files whose seals' ages are wanted.

    Returns: the metrics; with a failure where the database could not be asked. It raises nothing of ours.
    """
    asked = _Asked(database, only)
    try:
        metrics = [*asked.metrics(), *asked.seals(seals)]
    except PgResultsError as error:
        return Told([_gauge("up", "Whether the database answers.", 0)], failure=str(error))
    up = _gauge("up", "Whether the database answers.", 1)
    return Told([up, *metrics, *asked.left_out()], asked.notes)


class _Asked:
    """One look at a schema; what its role may not see is left out, and noted."""

    def __init__(self, database: Database, only: str | None) -> None:
        self._database = database
        self._only = only
        self._hidden: list[str] = []
        self.notes: list[str] = []

    def metrics(self) -> Iterator[Metric]:
        """What the database tells."""
        found = self._ask(registry.condition)
        info = {"schema": self._database.schema, "revision": found.revision if found else "none"}
        yield InfoMetricFamily("pgresults_schema", "The schema, and the revision that it is at.", info)
        names = self._named(self._ask(registry.registered))
        totals = self._seen("totals", lambda: {names[id]: self._totals(id) for id in names})  # noqa: A001 (it is one)
        for name, described in _TOTALS.items():
            figures = {storage: getattr(found, name) for storage, found in (totals or {}).items()}
            yield from _by_storage(f"storage_{name}", described, figures)
        guessed = {storage: int(not found.exact) for storage, found in (totals or {}).items()}
        yield from _by_storage("storage_estimated", "Whether the figures of a storage are estimated.", guessed)
        if (seconds := self._seen("expirations", lambda: self._ask(monitoring.overdue))) is not None:
            yield _gauge("expiration_overdue_seconds", "How long the first to expire waits to be swept.", seconds)
        locks = self._seen("locks", lambda: self._ask(monitoring.lock_counts))
        if locks is not None:
            yield from _of_locks(locks, names.values())
        changes = self._seen("last_change", lambda: self._ask(monitoring.last_changes)) or {}
        moments = {names[storage]: moment for storage, moment in changes.items() if storage in names}
        yield from _by_storage("storage_last_change_timestamp_seconds", "When a storage last changed.", moments)

    def seals(self, files: Iterable[Path]) -> Iterator[Metric]:
        """What is in files of seals, whose signatures nobody checks here."""
        found: dict[str, Seal] = {}
        for file in files:
            try:
                seal = Seal.load_bytes(file.read_bytes())
            except OSError as error:
                self.notes.append(f"the seal is left out: {reason_of(error)}")
            except IntegrityError as error:
                self.notes.append(f"the seal in {file} is left out: {error}")
            else:
                newest = found.get(seal.storage)
                found[seal.storage] = seal if newest is None or newest.sealed_at < seal.sealed_at else newest
        moments = {name: seal.sealed_at.timestamp() for name, seal in found.items()}
        yield from _by_storage("seal_timestamp_seconds", "When the newest given seal was made.", moments)
        entries = {name: seal.entries for name, seal in found.items()}
        yield from _by_storage("seal_entries", "How many entries the newest given seal covers.", entries)

    def left_out(self) -> Iterator[Metric]:
        """What the role may not see."""
        if self._hidden:
            family = GaugeMetricFamily(
                "pgresults_hidden", "What is left out, for the role may not see it.", None, ["of"]
            )
            for what in self._hidden:
                family.add_metric([what], 1)
            yield family

    def _ask(self, start: Callable[[], Operation[T]]) -> T:
        return perform(call(self._database, lambda _: start()))

    def _totals(self, storage: Any) -> views.Totals:
        return self._ask(lambda: views.totals(storage))

    def _named(self, registered: dict[Any, str]) -> dict[Any, str]:
        """The storages that are of interest."""
        if self._only is None:
            return registered
        chosen = {storage: name for storage, name in registered.items() if name == self._only}
        if not chosen:
            self.notes.append(f"there is no storage named {self._only!r} yet")
        return chosen

    def _seen(self, what: str, look: Callable[[], T]) -> T | None:
        """What can be seen; None where it cannot be: nobody is told a number then."""
        try:
            return look()
        except ConfigurationError as error:
            if not is_forbidden(error) and not isinstance(error, StandbyError):
                raise
            self._hidden.append(what)
            why = "a standby has none" if isinstance(error, StandbyError) else "this role may not see it"
            self.notes.append(f"{what} is left out: {why}")
            return None


_TOTALS = {
    "keys": "Keys that have or had a result.",
    "live": "Results that are there.",
    "live_bytes": "Bytes of the results that are there.",
    "expired": "Results that have expired and wait to be swept.",
    "expired_bytes": "Bytes of the results that have expired and wait to be swept.",
}


def _of_locks(locks: Sequence[monitoring.LockCount], storages: Iterable[str]) -> Iterator[Metric]:
    """Held locks and waiters, 0 in a storage without any."""
    counts = {name: monitoring.LockCount(name, 0, 0) for name in storages}
    counts |= {lock.storage: lock for lock in locks if lock.storage in counts}
    held = {name: lock.held for name, lock in counts.items()}
    yield from _by_storage("locks_held", "Locks that somebody holds.", held)
    waiting = {name: lock.waiting for name, lock in counts.items()}
    yield from _by_storage("locks_waiting", "Holders that wait for a lock.", waiting)


def _by_storage(name: str, described: str, values: dict[str, Any]) -> Iterator[Metric]:
    if values:
        family = GaugeMetricFamily(f"pgresults_{name}", described, None, _STORAGE)
        for storage, value in values.items():
            family.add_metric([storage], value)
        yield family


def _gauge(name: str, described: str, value: float) -> Metric:
    return GaugeMetricFamily(f"pgresults_{name}", described, value)
