"""How often a tag occurs, by what Postgres has sampled: how results are found depends on whether they are many.

Walking the keys finds the first of many at once, and goes through the whole table for few. The planner takes a tag of
which it knows nothing for one that half a per cent of all rows have.
"""

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Column,
    Float,
    MetaData,
    Table,
    Text,
    and_,
    any_,
    bindparam,
    cast,
    column,
    func,
    literal_column,
    select,
    true,
)
from sqlalchemy.dialects.postgresql import OID

from pgresults.sql.compiled import Statement
from pgresults.sql.schema import result

_catalog = MetaData(schema="pg_catalog")
_CLASS = Table("pg_class", _catalog, *(Column(name, OID) for name in ("oid", "relnamespace")), Column("relname", Text),
               Column("reltuples", Float))  # fmt: skip
_NAMESPACE = Table("pg_namespace", _catalog, Column("oid", OID), Column("nspname", Text))
_STATS = Table(
    "pg_stats",
    _catalog,
    *(Column(name, Text) for name in ("schemaname", "tablename", "attname")),
    *(Column(name, ARRAY(Float)) for name in ("most_common_elems", "most_common_elem_freqs")),
)

_ITSELF = select(literal_column("tableoid", OID)).select_from(result).limit(literal_column("1")).scalar_subquery()
_TAGS = bindparam("tags", type_=ARRAY(Text))
_KNOWN = (
    func.unnest(cast(cast(_STATS.c.most_common_elems, Text), ARRAY(Text)), _STATS.c.most_common_elem_freqs)
    .table_valued(column("tag", Text), column("frequency", Float))
    .render_derived("known")
)
_RAREST = func.min(_KNOWN.c.frequency)
_ROWS = func.max(func.greatest(_CLASS.c.reltuples, literal_column("1.0")))

ARE_FREQUENT = Statement(
    select(
        and_(
            func.count() == func.cardinality(_TAGS),
            func.coalesce(bindparam("limit", type_=BigInteger) < _RAREST * _RAREST * _ROWS, literal_column("false")),
        )
    )
    .select_from(_CLASS)
    .join(_NAMESPACE, _NAMESPACE.c.oid == _CLASS.c.relnamespace)
    .join(_STATS, and_(_STATS.c.schemaname == _NAMESPACE.c.nspname, _STATS.c.tablename == _CLASS.c.relname))
    .join(_KNOWN, true())
    .where(_CLASS.c.oid == _ITSELF, _STATS.c.attname == literal_column("'tags'"), _KNOWN.c.tag == any_(_TAGS))
)
"""Whether walking the keys finds the first ``limit`` results with all of some tags sooner than sorting all of them.

A walk passes ``limit / frequency`` rows, sorting takes ``rows * frequency`` of them. Without statistics: no.
"""
