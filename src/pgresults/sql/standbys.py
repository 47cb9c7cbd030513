"""What tells how far a standby follows its primary."""

from typing import Any

from sqlalchemy import BigInteger, Boolean, DateTime, Integer, Interval, case, cast, func, literal_column, select

from pgresults.sql.compiled import Statement

_FOLLOWS: Any = literal_column("pg_is_in_recovery()", Boolean)
_REPLAYED = "(pg_last_wal_replay_lsn() - '0/0')::bigint"
_FLUSHED = "(pg_current_wal_flush_lsn() - '0/0')::bigint"
_WRITTEN = "(pg_current_wal_insert_lsn() - '0/0')::bigint"
# The primary's own is in the name of the file that it writes. A standby's is in its control file, which may be behind.
_WRITING_ON = "('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::integer"
_REPLAYING = """(
    SELECT greatest(c.timeline_id, r.min_recovery_end_timeline) FROM pg_control_checkpoint() c, pg_control_recovery() r
)"""

PLACE = Statement(
    select(
        _FOLLOWS,
        literal_column("(SELECT system_identifier FROM pg_control_system())", BigInteger),
        literal_column("(SELECT oid::bigint FROM pg_database WHERE datname = current_database())", BigInteger),
        case((_FOLLOWS, literal_column(_REPLAYING, Integer)), else_=literal_column(_WRITING_ON, Integer)),
        case((_FOLLOWS, literal_column(_REPLAYED, BigInteger)), else_=literal_column(_FLUSHED, BigInteger)),
        case((_FOLLOWS, literal_column(_REPLAYED, BigInteger)), else_=literal_column(_WRITTEN, BigInteger)),
        literal_column("3 * current_setting('wal_writer_delay')::interval", Interval),
        cast(func.clock_timestamp(), DateTime(timezone=True)),
    )
)
"""Whether a server is a standby, which database this is, and up to where it has come in the log."""

LAST_REPLAYED = Statement(select(literal_column("pg_last_xact_replay_timestamp()", DateTime(timezone=True))))
"""When what a standby has repeated last was committed on its primary, by that one's clock."""
