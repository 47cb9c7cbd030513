"""What a result takes on disk and in the log: ``python -m benchmarks.disk [--results N]``, beside a bare upsert.

Results of 1 KB as a flow's task stores them; then some of them once more, with and without an expiration that moves.
"""

import argparse
import hashlib
import os
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any
from unittest.mock import patch

import psycopg
from psycopg import sql
from rich.console import Console
from rich.table import Table

from benchmarks.__main__ import KIB, SCHEMA, prepared
from benchmarks.bare import Bare
from pgresults.records.provenance import recorded
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore, writing

_TABLES = ("result", "history", "payload")
_TO_LOG = 2000
_RUN = {
    "flow": {"name": "nightly", "run_id": "b81f4da1-a7af-4116-b59b-920a2055d313"},
    "task": {
        "name": "render",
        "run_id": "a3a3fd33-f1c3-4d79-a84e-dbd71c2123ff",
        "identity": "reports.nightly:render",
        "code": "61bb27e06b99933f55f8e954f1a070975fd40e14eee1c51cf93be7f8c17c2510",
    },
}
_SIZES = """
    SELECT c.relname, pg_relation_size(c.oid)
           + CASE WHEN c.reltoastrelid <> 0 THEN pg_total_relation_size(c.reltoastrelid) ELSE 0 END
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_index i ON i.indexrelid = c.oid
    WHERE n.nspname = %s AND coalesce(i.indrelid, c.oid) = %s::regclass AND c.relkind IN ('r', 'i')
    ORDER BY c.relkind DESC, c.relname
"""
_SPACE = """
    SELECT pg_relation_size(%s::regclass), pg_relation_size(%s::regclass),
           (SELECT sum(pg_relation_size(oid)) FROM pg_class WHERE relnamespace = %s::regnamespace AND relkind = 'i')
"""
_HOT = "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relid = %s::regclass"


def _key(number: int) -> str:
    return hashlib.sha256(b"%d" % number).hexdigest()


def _name(table: str) -> str:
    return sql.Identifier(SCHEMA, table).as_string(None)


def _fill(store: ResultStore, results: int) -> None:
    store.write_many(((_key(n), os.urandom(KIB)) for n in range(results)), atomic=False)


def _sizes(admin: psycopg.Connection[Any], results: int) -> Table:
    table = Table("table", "relation", "bytes a result", title=f"{results:,} results of 1 KB")
    whole = 0
    for name in _TABLES:
        for relation, size in admin.execute(_SIZES, [SCHEMA, _name(name)]):
            table.add_row(name, relation, f"{size / results:,.0f}")
            whole += size
        table.add_section()
    table.add_row("all", "", f"{whole / results:,.0f}")
    return table


def _logged(admin: psycopg.Connection[Any], subject: Callable[[int], Any], numbers: Iterable[int]) -> float:
    """Bytes of the log for one call; pages have been logged whole before, as all but the first after a checkpoint."""
    chosen = list(numbers)
    for number in chosen:
        subject(number)
    before = admin.execute("SELECT pg_current_wal_insert_lsn()").fetchone()
    for number in chosen:
        subject(number)
    ((logged,),) = admin.execute("SELECT pg_current_wal_insert_lsn() - %s::pg_lsn", before).fetchall()
    return float(logged) / len(chosen)


def _hot(admin: psycopg.Connection[Any], store: ResultStore, subject: Callable[[int], Any]) -> str:
    """How many of the changes of heads left the indexes as they were."""
    store.close()  # sessions report what they did when they end
    admin.execute("SELECT pg_stat_force_next_flush()")
    before = admin.execute(_HOT, [_name("result")]).fetchone() or (0, 0)
    for number in range(_TO_LOG):
        subject(number)
    store.close()
    while (after := admin.execute(_HOT, [_name("result")]).fetchone() or (0, 0))[0] - before[0] < _TO_LOG:
        admin.execute("SELECT pg_stat_clear_snapshot(), pg_sleep(0.05)")
    return f"{(after[1] - before[1]) / (after[0] - before[0]):.0%}"


def _costs(url: str, admin: psycopg.Connection[Any], store: ResultStore) -> Table:
    with psycopg.connect(url, autocommit=True) as connection:
        bare = Bare(connection, SCHEMA)
        soon = datetime.now(UTC) + timedelta(days=1)

        def overwriting(**said: Any) -> Callable[[int], Any]:
            return lambda number: store.write(os.urandom(KIB), key=_key(number), **said)

        later = count()

        def moving(number: int) -> Any:
            return overwriting(expiration=soon + timedelta(seconds=next(later)))(number)

        subjects: dict[str, Callable[[int], Any]] = {
            "bare": lambda number: bare.write(_key(number), os.urandom(KIB)),
            "write": overwriting(),
            "write that expires": moving,
        }
        table = Table("call", "bytes of log", "to bare", "heads without index entries", title="Overwrites of 1 KB")
        yardstick = 0.0
        for name, subject in subjects.items():
            logged = _logged(admin, subject, range(_TO_LOG))
            yardstick = yardstick or logged
            hot = "" if name == "bare" else _hot(admin, store, subject)
            table.add_row(name, f"{logged:,.0f}", f"{logged / yardstick:.2f}", hot)
    return table


def _space(admin: psycopg.Connection[Any], store: ResultStore, results: int) -> Table:
    """What becomes of the space of versions that `retain` takes."""
    table = Table("after", "payloads", "their index", "all indexes", title=f"Megabytes of {results:,} results")

    def measure(after: str) -> None:
        row = admin.execute(_SPACE, [_name("payload"), _name("payload_pkey"), SCHEMA]).fetchone() or ()
        table.add_row(after, *(f"{float(size) / 1e6:,.0f}" for size in row))

    measure("a version each")
    _fill(store, results)
    measure("a second version each")
    store.retain(versions=1)
    measure("retain(versions=1)")
    admin.execute(f"VACUUM {_name('payload')}")
    measure("VACUUM payload")
    _fill(store, results)
    measure("a third version each")
    store.retain(versions=1)
    for command in ("VACUUM", "REINDEX TABLE CONCURRENTLY", "VACUUM FULL"):
        admin.execute(f"{command} {_name('payload')}")
        measure(f"retain(versions=1), {command}")
    for name in ("result", "history"):
        admin.execute(f"REINDEX TABLE CONCURRENTLY {_name(name)}")
    measure("REINDEX of the others, too")
    return table


def main() -> None:
    """Measure, then print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.disk", description=__doc__)
    parser.add_argument("--database-url", help="a server to measure on; default: an embedded one")
    parser.add_argument("--results", type=int, default=50_000)
    options = parser.parse_args()
    console = Console()
    with ExitStack() as stack:
        url = stack.enter_context(prepared(options.database_url))
        admin = stack.enter_context(psycopg.connect(url, autocommit=True))
        storage = PostgresStorage(url, "disk", SCHEMA)
        # What a run says of itself, without runs.
        stack.enter_context(patch.object(writing, "recorded", lambda _: recorded(None) | _RUN))
        store = ResultStore(result_storage=storage, cache_result_in_memory=False)
        _fill(store, options.results)
        console.print(_sizes(admin, options.results))
        console.print(_space(admin, store, options.results))
        console.print(_costs(url, admin, store))
        store.close()


if __name__ == "__main__":
    main()
