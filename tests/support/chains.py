"""What an auditor does with a history: recompute its digests."""

from itertools import groupby, pairwise
from operator import itemgetter
from typing import Any

import psycopg
from psycopg.rows import dict_row

from pgresults.sql.digests import GENESIS, content_digest, entry_digest
from pgresults.store import ResultStore

HALVES = """
    SELECT 'payload without an entry', p.key FROM pgresults.payload p
    WHERE NOT EXISTS (SELECT FROM pgresults.history h WHERE h.key = p.key AND h.payload_id = p.payload_id)
    UNION ALL
    SELECT 'entry without its payload', h.key FROM pgresults.history h
    WHERE h.payload_id IS NOT NULL AND h.size <> (
        SELECT coalesce(sum(octet_length(p.data)), -1) FROM pgresults.payload p
        WHERE p.key = h.key AND p.payload_id = h.payload_id)
    UNION ALL
    SELECT 'head that is not its last entry', r.key FROM pgresults.result r
    WHERE r.digest <> (SELECT h.digest FROM pgresults.history h WHERE h.key = r.key ORDER BY h.seq DESC LIMIT 1)
"""
"""One row for each change that is there by half."""


def entries(connection: psycopg.Connection[Any], store: ResultStore) -> list[dict[str, Any]]:
    """The history of a store's storage as the tables have it, without what only the server knows of an entry."""
    with connection.cursor(row_factory=dict_row) as cursor:
        found = cursor.execute(
            "SELECT * FROM pgresults.history WHERE storage_id = %s ORDER BY key, seq", [store.result_storage.id]
        ).fetchall()
    return [{name: value for name, value in entry.items() if name != "xid"} for entry in found]


def recomputed(entry: dict[str, Any]) -> bytes:
    """What the digest of an entry must be."""
    return entry_digest(
        entry["previous"],
        entry["storage_id"],
        entry["key"],
        entry["seq"],
        entry["version"],
        entry["at"],
        entry["expires_at"],
        entry["db_user"],
        content_digest(entry),
    )


def is_intact(chain: list[dict[str, Any]]) -> bool:
    """Whether the entries of one key follow each other, also in time, and each matches its digest."""
    previous = GENESIS
    for number, entry in enumerate(chain, start=1):
        if (entry["seq"], entry["previous"], entry["digest"]) != (number, previous, recomputed(entry)):
            return False
        previous = entry["digest"]
    return all(before["at"] < after["at"] for before, after in pairwise(chain))


def are_intact(chains: list[dict[str, Any]]) -> bool:
    """Whether the entries, by key, are chains without a gap."""
    return all(is_intact(list(chain)) for _, chain in groupby(chains, itemgetter("key")))
