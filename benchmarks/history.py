"""What history and expirations cost with many results: ``python -m benchmarks.history [--results N]``."""

import argparse
import resource
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter
from typing import Any, TypeVar
from uuid import UUID

import psycopg
from rich.console import Console
from rich.table import Table

from pgresults.database import migrations
from pgresults.server.embedded import EmbeddedPostgres
from pgresults.settings import Settings
from pgresults.sql.digests import CONTENT_FIELDS, framed, payload_digest
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore

T = TypeVar("T")

_CALLS = 30
_EXPIRED = 100_000

_PAYLOAD = b"12345"
_MARK = UUID(int=2**127 + 1)
_DESCRIBED = {
    "action": "write",
    "actor": "a",
    "payload_id": _MARK,
    "payload_digest": payload_digest(b"", sha256(_PAYLOAD).digest()),
    "size": len(_PAYLOAD),
    "serializer": {"type": "json"},
    "provenance": {"process": {"pid": 1, "host": "h", "user": "u"}},
}

# As writes would leave them, a thousand times faster: key n of every prefix with all its versions, one key in ten
# about to expire. The server chains the entries; of what their digests cover only the payload's id differs.
_FILL = """
INSERT INTO pgresults.storage VALUES (%(id)s, 'benchmark', now());
INSERT INTO pgresults.history (storage_id, key, version, payload_id, expires_at, size, seq, action, at, actor, db_user,
    previous, digest, serializer, payload_digest, provenance)
WITH RECURSIVE chain AS (
    SELECT first.*, 1::bigint AS seq, ''::bytea AS previous, pgresults.entry_digest('', %(id)s, key, 1, 1, at,
        expires_at, 'b', sha256(%(before)s || uuid_send(md5(key || ' 1')::uuid) || %(after)s)) AS digest
    FROM (
        SELECT format('p%%s/k%%s', n %% 1000, n) AS key, now() - interval '30 days' + n * interval '1 second' AS at,
            CASE WHEN n %% 10 = 0 THEN now() + n * interval '1 minute' END AS expires_at
        FROM generate_series(1, %(keys)s::int) n
    ) first
    UNION ALL
    SELECT key, at + interval '1 millisecond', expires_at, seq + 1, digest, pgresults.entry_digest(digest, %(id)s, key,
        seq + 1, seq + 1, at + interval '1 millisecond', expires_at, 'b',
        sha256(%(before)s || uuid_send(md5(key || ' ' || seq + 1)::uuid) || %(after)s))
    FROM chain WHERE seq < %(versions)s
)
SELECT %(id)s, key, seq, md5(key || ' ' || seq)::uuid, expires_at, 5, seq, 'write', at, 'a', 'b', previous, digest,
    '{"type": "json"}', sha256(sha256('12345')), '{"process": {"pid": 1, "host": "h", "user": "u"}}'
FROM chain ORDER BY at;
ALTER TABLE pgresults.result DISABLE TRIGGER record_entry;
INSERT INTO pgresults.result (storage_id, key, version, payload_id, expires_at, size, seq, action, at, actor, db_user,
    previous, digest, created_at, serializer, sha256, payload_digest, provenance)
SELECT storage_id, key, version, payload_id, expires_at, size, seq, action, at, actor, db_user, previous, digest, at,
    serializer, sha256('12345'), payload_digest, provenance
FROM pgresults.history WHERE seq = %(versions)s;
ALTER TABLE pgresults.result ENABLE TRIGGER record_entry;
INSERT INTO pgresults.payload (storage_id, key, payload_id, chunk, data, salt, sha256)
SELECT storage_id, key, payload_id, 0, '12345', '', sha256('12345') FROM pgresults.history
"""
_EXPIRE = """
UPDATE pgresults.result SET expires_at = now() - interval '1 hour'
WHERE key IN (SELECT key FROM pgresults.result WHERE expires_at IS NULL LIMIT %(count)s)
"""


@contextmanager
def _filled(keys: int, versions: int = 1) -> Iterator[ResultStore]:
    before, after = framed(_DESCRIBED, CONTENT_FIELDS).split(_MARK.bytes)
    with tempfile.TemporaryDirectory(prefix="pgresults-benchmark-") as directory:
        server = EmbeddedPostgres(Path(directory) / "server")
        try:
            settings = Settings(seal_key=Path(directory) / "seal.pem")
            storage = PostgresStorage(server, "benchmark", settings=settings)
            migrations.upgrade(storage.database.url(), storage.schema)
            for statement in _FILL.split(";"):
                _execute(storage, statement, keys=keys, versions=versions, before=before, after=after)
            _execute(storage, "VACUUM ANALYZE")
            yield ResultStore(result_storage=storage)
            storage.close()
        finally:
            server.stop()


def _execute(storage: PostgresStorage, statement: str, **parameters: Any) -> None:
    url = storage.database.url().set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url, autocommit=True, cursor_factory=psycopg.ClientCursor) as connection:
        connection.execute(statement, {"id": storage.id, **parameters} if "%" in statement else None)


def _timed(call: Callable[[], Any], calls: int = _CALLS) -> list[float]:
    times = []
    for _ in range(calls):
        start = perf_counter()
        call()
        times.append((perf_counter() - start) * 1000)
    return times


def _lookups(store: ResultStore, count: int) -> dict[str, Callable[[], Any]]:
    number = count // 2 + 1
    key = f"p{number % 1000}/k{number}"
    moment = store.history(key)[0].at + timedelta(seconds=1)
    return {
        "expiring(1 day)": lambda: store.expiring(timedelta(days=1)),
        "ls --prefix, 1,000 keys": lambda: store.find(prefix="p7/", limit=1000),
        "ls --prefix, none": lambda: store.find(prefix="nothing"),
        "history KEY": lambda: store.history(key),
        "read(as_of)": lambda: store.read(key, as_of=moment),
        "find(prefix, min_size)": lambda: store.find(prefix="p7/", min_size=1),
    }


def _sweep(store: ResultStore, console: Console) -> None:
    """Sweep while a reader reads; its usual times are those before."""
    _execute(store.result_storage, _EXPIRE, count=_EXPIRED)
    reader = store.model_copy(update={"cache_result_in_memory": False})
    live = [row.key for row in store.find(prefix="p3/", limit=200)]
    usual = [time for key in live * 10 for time in _timed(lambda key=key: reader.read(key), 1)]
    during: list[float] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            for key in live:
                during.extend(_timed(lambda key=key: reader.read(key), 1))

    thread = threading.Thread(target=read)
    start = perf_counter()
    thread.start()
    swept = store.sweep()
    seconds = perf_counter() - start
    done.set()
    thread.join()
    console.print(f"sweep of {swept:,}: {seconds:.1f} s, {swept / seconds:,.0f} a second")
    for name, times in (("usual read", usual), ("read while sweeping", during)):
        console.print(
            f"{name}: median {median(times):.2f} ms, 99 % {quantiles(times, n=100)[-1]:.2f}, most {max(times):.1f}"
        )


def _verify(store: ResultStore, console: Console) -> None:
    """Seal and verify everything, and what came after the seal."""
    seal = _once("seal", store.seal, console)
    keys = [row.key for row in store.find(limit=100)]
    for n in range(1000):
        store.write(n, key=keys[n % len(keys)])
    checks: dict[str, Callable[[], Any]] = {
        "verify since the seal": lambda: store.verify(since=seal),
        "verify one key against the seal": lambda: store.verify(keys[0], against=seal),
        "verify": store.verify,
    }
    for name, check in checks.items():
        report = _once(name, check, console)
        console.print(f"    {report.entries:,} entries of {report.keys:,} keys: {len(report.findings)} findings")


def _once(name: str, call: Callable[[], T], console: Console) -> T:
    start = perf_counter()
    result = call()
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    console.print(f"{name}: {perf_counter() - start:.2f} s, at most {most} MB of memory so far")
    return result


def main() -> None:
    """Measure, then print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.history", description=__doc__)
    parser.add_argument("--results", type=int, default=1_000_000)
    count = parser.parse_args().results
    console = Console()
    with _filled(count) as store:
        table = Table("call", "median", "most", title=f"{count:,} results")
        for name, call in _lookups(store, count).items():
            times = _timed(call)
            table.add_row(name, f"{median(times):.2f} ms", f"{max(times):.2f} ms")
        console.print(table)
        _verify(store, console)
        if count >= 2 * _EXPIRED:
            _sweep(store, console)
    with _filled(max(1, count // 1000), 1000) as store:
        console.print("Keys with 1,000 versions each")
        _verify(store, console)


if __name__ == "__main__":
    main()
