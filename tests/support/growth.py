"""A store that grows in seconds: rows as the writes of one result would have left them, under other keys."""

import psycopg
from psycopg import sql
from sqlalchemy import URL

from tests.support.database import psycopg_url

_COLUMNS = "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped"
_HEAD = {
    "key": "'k/' || md5(g::text)",
    "payload_id": "gen_random_uuid()",
    "tags": "ARRAY['tag ' || mod(g, 5)]",
    "expires_at": "CASE WHEN mod(g, 3) = 0 THEN now() + interval '10 minutes' + g * interval '1 second' END",
    "at": "now() - g * interval '1 second'",
}
_ENTRY = {"key": _HEAD["key"], "at": _HEAD["at"], "actor": "'somebody'", "xid": "g"}


_NAMED = "'1:k/' || md5((1 + mod(3 * g + {step} + %(last)s, %(last)s))::text)"
_DERIVED = f"ARRAY[{', '.join(_NAMED.format(step=step) for step in (-1, 0, 1))}]"
"""Three of the others, each of which is a parent of three: some steps on there are as many as in a tree."""


def grow(url: URL, seed: str, number: int, first: int = 0, *, derived: bool = False) -> None:
    """Add keys with a head and an entry each, like those of a key that is there; payloads are not added.

    Parameters:
        url: a database whose owner connects.
        seed: the key.
        number: how many.
        first: how many were added before.
        derived: whether each says that it was computed from three of the others.
    """
    with psycopg.connect(psycopg_url(url)) as connection:
        connection.execute("SET search_path TO pgresults")
        connection.execute("ALTER TABLE result DISABLE TRIGGER USER")
        for table, others in (("result", _HEAD), ("history", _ENTRY)):
            names = [row[0] for row in connection.execute(_COLUMNS, [table])]
            others = others | ({"derived_from": _DERIVED} if derived else {})
            values = (sql.SQL(others[name]) if name in others else sql.Identifier("t", name) for name in names)
            insert = sql.SQL(
                "INSERT INTO {table} ({names}) SELECT {values} "
                "FROM {table} t, generate_series(%(first)s::bigint, %(last)s::bigint) g WHERE t.key = %(seed)s"
            ).format(
                table=sql.Identifier(table),
                names=sql.SQL(", ").join(map(sql.Identifier, names)),
                values=sql.SQL(", ").join(values),
            )
            connection.execute(insert, {"first": first + 1, "last": first + number, "seed": seed})
        connection.execute("ALTER TABLE result ENABLE TRIGGER USER")
        connection.commit()
        connection.autocommit = True
        connection.execute("VACUUM ANALYZE result")
        connection.execute("VACUUM ANALYZE history")
