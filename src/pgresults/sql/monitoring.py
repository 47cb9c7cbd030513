"""What a monitoring asks of a schema again and again, whose cost does not grow with it."""

from sqlalchemy import BigInteger, bindparam, cast, extract, func, literal_column, select
from sqlalchemy.dialects.postgresql import DOUBLE_PRECISION

from pgresults.sql.compiled import Statement
from pgresults.sql.schema import history
from pgresults.sql.views import EXPIRATIONS, HELD_LOCKS

LOCKS = Statement(
    select(
        HELD_LOCKS.c.storage,
        func.count(),
        func.sum(func.cardinality(HELD_LOCKS.c.waiting_holders)),
    ).group_by(HELD_LOCKS.c.storage)
)
"""How many locks are held in each storage, and how many holders have waited for one for a while."""

_expired_at = EXPIRATIONS.c.expires_at

OVERDUE = Statement(
    select(cast(extract("epoch", func.statement_timestamp() - _expired_at), DOUBLE_PRECISION))
    .where(_expired_at <= func.statement_timestamp(), func.isfinite(_expired_at))
    .order_by(_expired_at)
    .limit(literal_column("1"))
)
"""For how many seconds the result that expired first waits to be swept."""

_latest = (
    select(history.c.storage_id, history.c.at)
    .order_by(history.c.at.desc())
    .limit(bindparam("limit", type_=BigInteger))
    .subquery("latest")
)
LAST_CHANGES = Statement(
    select(_latest.c.storage_id, cast(extract("epoch", func.max(_latest.c.at)), DOUBLE_PRECISION)).group_by(
        _latest.c.storage_id
    ),
    plan_anew=True,
)
"""When something last happened in each storage that the latest entries are of, in seconds since 1970."""
