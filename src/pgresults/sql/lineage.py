"""The statements that go along a lineage: up to what a version was computed from, or down to what was from it.

Each walk is one statement, which visits a version once, however many ways lead to it: where it has to say how far it
went, once for each distance.
"""

from functools import cache

from psycopg import sql

from pgresults.sql.compiled import Query, Statement


class Walk(Statement):
    """A statement that Core has no words for.

    Parameters:
        text: it, with ``{schema}`` where the schema's name stands.
        names: its parameters, in the order of their numbers.
    """

    changes = False

    def __init__(self, text: str, *names: str) -> None:
        self._text, self._names = text, names
        self.query = cache(self._compile)

    def _compile(self, schema: str) -> Query:
        return Query(sql.SQL(self._text).format(schema=sql.Identifier(schema)).as_bytes(None), self._names)


MADE = "h.action IN ('write', 'import')"
"""The condition of an entry that made a version: each version has one."""

# An entry's number is no lower than its version's, so what made the version is found by the key of the table.
_MAKING = f"""
    SELECT h.derived_from, h.at, h.actor, h.size, h.provenance
    FROM {{schema}}.history h
    WHERE h.storage_id = v.storage_id AND h.key = v.key AND h.seq >= v.version AND h.version = v.version AND {MADE}
    ORDER BY h.seq LIMIT 1
"""  # noqa: S608 (the names are ours)

_START = """
    SELECT r.storage_id, r.key, coalesce($3::bigint, r.version), 0::bigint
    FROM {schema}.result r
    WHERE r.storage_id = $1::uuid AND r.key = $2::text AND coalesce($3::bigint, r.version) BETWEEN 1 AND r.version
"""

_FURTHER = "CASE WHEN $4::bigint IS NULL THEN 0 ELSE v.distance + 1 END"
_WITHIN = "($4::bigint IS NULL OR v.distance < $4::bigint)"

_PARENTS = f"""
    SELECT coalesce(nullif(split_part(said.place, '@', 2), '')::uuid, v.storage_id),
           substr(given.parent, length(said.place) + 2), split_part(said.place, '@', 1)::bigint, {_FURTHER}
    FROM walk v
    CROSS JOIN LATERAL ({_MAKING}) made
    CROSS JOIN LATERAL unnest(made.derived_from) AS given(parent)
    CROSS JOIN LATERAL (SELECT split_part(given.parent, ':', 1) AS place) said
    WHERE {_WITHIN}
"""  # noqa: S608 (the names are ours)

NAMED = "v.version || ':' || v.key"
NAMED_ELSEWHERE = "v.version || '@' || v.storage_id || ':' || v.key"
OF_PARENT = f"""
    h.derived_from && ARRAY[{NAMED}, {NAMED_ELSEWHERE}] COLLATE "C" AND h.derived_from IS NOT NULL AND {MADE}
    AND CASE WHEN h.storage_id = v.storage_id THEN {NAMED} ELSE {NAMED_ELSEWHERE} END = ANY (h.derived_from)
"""
"""The condition of the entries that made what was derived from a version; an index has it."""

_EACH = "OFFSET 0"
"""Has the planner look up one version's children at a time: what it takes for few versions it joins by reading all."""

_CHILDREN = f"""
    SELECT child.storage_id, child.key, child.version, {_FURTHER}
    FROM walk v
    CROSS JOIN LATERAL (
        SELECT h.storage_id, h.key, h.version FROM {{schema}}.history h WHERE {OF_PARENT} {_EACH}
    ) child
    WHERE {_WITHIN}
"""  # noqa: S608 (the names are ours)


_LIVE = "r.payload_id IS NOT NULL AND (r.expires_at IS NULL OR r.expires_at > statement_timestamp())"

_SHOWN = f"""v.storage_id::text, coalesce(s.name, v.storage_id::text), v.key, v.version,
    array_to_json(made.derived_from)::text,
    timezone('UTC', made.at), made.actor, made.size, made.provenance #>> '{{{{task,name}}}}',
    made.provenance #>> '{{{{flow,name}}}}',
    coalesce(made.provenance #>> '{{{{task,run_id}}}}', made.provenance #>> '{{{{flow,run_id}}}}'),
    coalesce(r.version = v.version AND {_LIVE}, false)"""
"""What is shown of a version, of which its entry is called ``made``, in the order of `operations.lineage.Visited`."""


def _walk(step: str) -> Walk:
    text = f"""
WITH RECURSIVE start (storage_id, key, version, distance) AS ({_START}),
walk AS (SELECT * FROM start UNION {step}),
seen AS (SELECT * FROM walk LIMIT $5::bigint),
v AS (SELECT DISTINCT storage_id, key, version FROM seen)
SELECT {_SHOWN},
       (v.storage_id, v.key, v.version) = (SELECT storage_id, key, version FROM start)
FROM v
CROSS JOIN LATERAL ({_MAKING}) made
LEFT JOIN {{schema}}.result r ON r.storage_id = v.storage_id AND r.key = v.key
LEFT JOIN {{schema}}.storage s ON s.id = v.storage_id
"""  # noqa: S608 (the names are ours)
    return Walk(text, "storage_id", "key", "version", "depth", "limit")


WALKS = {"up": _walk(_PARENTS), "down": _walk(_CHILDREN)}
"""The versions that one was computed from, or those that were from it, itself included, each as what made it says."""

DOWNSTREAM = Walk(
    f"""
WITH RECURSIVE v (storage_id, key, version) AS (
    SELECT $1::uuid, given.key COLLATE "C", given.version FROM unnest($2::text[], $3::bigint[]) AS given(key, version)
    UNION
    SELECT child.storage_id, child.key, child.version
    FROM v
    CROSS JOIN LATERAL (
        SELECT h.storage_id, h.key, h.version
        FROM {{schema}}.history h
        JOIN {{schema}}.result r ON r.storage_id = h.storage_id AND r.key = h.key AND r.version = h.version
        WHERE {OF_PARENT} AND {_LIVE}
        {_EACH}
    ) child
)
SELECT v.storage_id::text, v.key, v.version, array_to_json(made.derived_from)::text
FROM v CROSS JOIN LATERAL ({_MAKING}) made
""",  # noqa: S608 (the names are ours)
    "storage_id",
    "keys",
    "versions",
)
"""Versions, and what is live of what was computed from them by what is live, each with what it was computed from."""

PARENTS_OF_CURRENT = Walk(
    """
SELECT r.key, r.version, r.derived_from FROM {schema}.result r
WHERE r.storage_id = $1::uuid AND r.key = ANY ($2::text[]) AND r.derived_from IS NOT NULL
""",
    "storage_id",
    "keys",
)
"""What the current versions of some keys were computed from."""

SOME = Walk(
    f"""
SELECT {_SHOWN}
FROM unnest($1::uuid[], $2::text[], $3::bigint[]) AS v(storage_id, key, version)
JOIN {{schema}}.history made ON made.storage_id = v.storage_id AND made.key = v.key AND made.version = v.version
    AND made.action IN ('write', 'import')
LEFT JOIN {{schema}}.result r ON r.storage_id = made.storage_id AND r.key = made.key
LEFT JOIN {{schema}}.storage s ON s.id = made.storage_id
""",  # noqa: S608 (the names are ours)
    "storage_ids",
    "keys",
    "versions",
)
"""Some versions, each as what made it says."""

NAMING = Walk(
    f"""
SELECT h.storage_id::text, h.key, h.version, array_to_json(h.derived_from)::text FROM {{schema}}.history h
WHERE h.derived_from && $1::text[] COLLATE "C" AND h.derived_from IS NOT NULL AND {MADE}
""",  # noqa: S608 (the names are ours)
    "names",
)
"""The versions that name one of some as a parent."""

CURRENT_VERSION = Walk(
    "SELECT r.version FROM {schema}.result r WHERE r.storage_id = $1::uuid AND r.key = $2::text", "storage_id", "key"
)
"""The newest version of a key."""
