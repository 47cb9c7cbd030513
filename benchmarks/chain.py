"""What the history costs 16 writers on distinct keys: ``python -m benchmarks.chain [--rounds N]``.

As a share of it: writes whose entries have empty digests, and writes that insert their entry themselves, as any writer
could forge it, where the server takes none.
"""

import argparse
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from time import perf_counter
from unittest.mock import patch

import psycopg
from rich.console import Console
from sqlalchemy import LargeBinary, insert, literal_column, select

from pgresults.database import migrations
from pgresults.server.embedded import EmbeddedPostgres
from pgresults.settings import Settings
from pgresults.sql import results as statements
from pgresults.sql.compiled import Statement
from pgresults.sql.guards import Guard
from pgresults.sql.results import Kind
from pgresults.sql.schema import history, result
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore

_WRITERS = 16
_WRITES = 100
_KIND = Kind(Guard.NONE, with_payload=True, relative=False)
_RETURNED = ("version", "created_at", "expires_at")
_UNGUARDED = "unguarded"


@contextmanager
def _as_it_is() -> Iterator[None]:
    yield


@contextmanager
def _without_chain() -> Iterator[None]:
    """Writes that keep a history whose entries have empty digests."""
    empty = literal_column("''::bytea", LargeBinary)
    with patch.object(statements, "entry_digest_sql", lambda *_: empty):
        bare = Statement(statements._write(Guard.NONE, with_payload=True, relative=False))
    with patch.object(statements, "WRITE", {_KIND: bare}):
        yield


@contextmanager
def _by_the_statement() -> Iterator[None]:
    """Writes that insert their entry themselves."""
    names = [name for name in history.c.keys() if name != "xid"]  # noqa: SIM118
    written = statements._write(Guard.NONE, with_payload=True, relative=False)
    head = written.returning(*(column for column in result.c if column.name not in _RETURNED)).cte("head")
    entry = insert(history).from_select(names, select(*(head.c[name] for name in names))).cte("entry")
    own = Statement(select(*(head.c[name] for name in _RETURNED)).add_cte(entry))
    with patch.object(statements, "WRITE", {_KIND: own}):
        yield


def _rate(store: ResultStore, number: int) -> float:
    """Writes a second of all writers together."""

    def write(writer: int) -> None:
        for n in range(_WRITES):
            store.write(n, key=f"w{writer}/{number}/{n % 10}")

    with ThreadPoolExecutor(_WRITERS) as pool:
        start = perf_counter()
        list(pool.map(write, range(_WRITERS)))
        return _WRITERS * _WRITES / (perf_counter() - start)


def main() -> None:
    """Measure in turns, then print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chain", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    console = Console()
    with tempfile.TemporaryDirectory(prefix="pgresults-benchmark-") as directory:
        server = EmbeddedPostgres(Path(directory) / "server")
        try:
            guarded, unguarded = (_store(server, schema) for schema in ("pgresults", _UNGUARDED))
            _switch_off(server)
            rates: dict[str, list[float]] = {"as it is": [], "without chain": [], "by the statement": []}
            for number in range(rounds):
                for name, store, way in (
                    ("as it is", guarded, _as_it_is),
                    ("without chain", guarded, _without_chain),
                    ("by the statement", unguarded, _by_the_statement),
                ):
                    with way():
                        rates[name].append(_rate(store, 3 * number + len(rates[name])))
            for store in (guarded, unguarded):
                store.result_storage.close()
        finally:
            server.stop()
    for name, found in rates.items():
        share = median(a / b for a, b in zip(rates["as it is"], found, strict=True))
        console.print(f"{name}: {median(found):,.0f} writes a second; as it is, {share:.3f} of that")


def _store(server: EmbeddedPostgres, schema: str) -> ResultStore:
    storage = PostgresStorage(server, "benchmark", schema=schema, settings=Settings(pool_size=_WRITERS))
    migrations.upgrade(storage.database.url(), schema)
    store = ResultStore(result_storage=storage)
    _rate(store, -1)
    return store


def _switch_off(server: EmbeddedPostgres) -> None:
    """Have the server take no entries of its own."""
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute(f"ALTER TABLE {_UNGUARDED}.result DISABLE TRIGGER record_entry")


if __name__ == "__main__":
    main()
