"""The statements that record in a key's history that its lock was taken away."""

from typing import Any

from sqlalchemy import BigInteger, ColumnElement, DateTime, Text, bindparam, cast, literal_column, null, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from pgresults.sql.compiled import Statement
from pgresults.sql.digests import entry_digest_sql, expiry_sql, place_sql
from pgresults.sql.history import DESCRIBED
from pgresults.sql.results import CONTENT, ENTRY_PARAMETERS, ONE_KEY, as_read, next_entry
from pgresults.sql.schema import result

_KEY = select(*(as_read(result, name) for name in DESCRIBED)).where(ONE_KEY)
KEY, LOCK_KEY = Statement(_KEY), Statement(_KEY.with_for_update())
"""What a key's row says, live or not, to say it again; and lock it."""


def _record() -> Statement:
    head = (
        update(result)
        .where(ONE_KEY)
        .values(**ENTRY_PARAMETERS, **next_entry(result.c.version, result.c.expires_at))
        .returning(*result.c)
        .cte("head")
    )
    return Statement(select(head.c.seq))


RECORD_BREAK = _record()
"""Append an entry to the history of a locked row, which stays what it is."""


def _record_first() -> Statement:
    now: ColumnElement[Any] = literal_column("statement_timestamp()", DateTime(timezone=True))
    user = cast(literal_column("session_user"), Text)
    place = {name: bindparam(name, type_=result.c[name].type) for name in ("storage_id", "key")}
    first, none = literal_column("1", BigInteger), literal_column("0", BigInteger)
    genesis = literal_column("''::bytea", result.c.previous.type)
    never = cast(null(), DateTime(timezone=True))
    digest = entry_digest_sql(genesis, place_sql(*place.values()), first, none, now, expiry_sql(never), user, CONTENT)
    row: dict[str, ColumnElement[Any]] = {
        **place,
        **ENTRY_PARAMETERS,
        "version": none,
        "seq": first,
        "at": now,
        "db_user": user,
        "previous": genesis,
        "digest": digest,
    }
    statement = upsert(result).from_select(list(row), select(*row.values())).on_conflict_do_nothing()
    head = statement.returning(*result.c).cte("head")
    return Statement(select(head.c.seq))


RECORD_FIRST_BREAK = _record_first()
"""Begin the history of a key that never had a result, at version 0; no row where it has begun meanwhile."""
