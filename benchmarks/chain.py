"""What the chain of digests costs 16 writers on distinct keys: ``python -m benchmarks.chain [--rounds N]``."""

import argparse
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from time import perf_counter
from unittest.mock import patch

from rich.console import Console
from sqlalchemy import LargeBinary, literal_column

from pgresults.database import migrations
from pgresults.server.embedded import EmbeddedPostgres
from pgresults.settings import Settings
from pgresults.sql import results as statements
from pgresults.sql.guards import Guard
from pgresults.storage import PostgresStorage, encoding
from pgresults.store import ResultStore

_WRITERS = 16
_WRITES = 100


@contextmanager
def _without_chain() -> Iterator[None]:
    """Writes that keep a history whose entries have empty digests."""
    empty = literal_column("''::bytea", LargeBinary)
    with patch.object(statements, "entry_digest_sql", lambda *_: empty):
        bare = {Guard.NONE: statements._write(Guard.NONE, with_payload=True)}
    with patch.object(statements, "WRITE", bare), patch.object(encoding, "content_digest", lambda _: b""):
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
    with tempfile.TemporaryDirectory(prefix="pgresults-benchmark-") as directory:
        server = EmbeddedPostgres(Path(directory) / "server")
        try:
            storage = PostgresStorage(server, "benchmark", settings=Settings(pool_size=_WRITERS))
            migrations.upgrade(storage.database.url(), storage.schema)
            store = ResultStore(result_storage=storage)
            _rate(store, -1)
            with_chain, without = [], []
            for number in range(rounds):
                with_chain.append(_rate(store, number))
                with _without_chain():
                    without.append(_rate(store, number + rounds))
            storage.close()
        finally:
            server.stop()
    share = median(chained / bare for chained, bare in zip(with_chain, without, strict=True))
    console = Console()
    console.print(f"with chain: {median(with_chain):,.0f} writes a second, without: {median(without):,.0f}")
    console.print(f"with chain as a share of without, median over {rounds} rounds: {share:.3f}")


if __name__ == "__main__":
    main()
