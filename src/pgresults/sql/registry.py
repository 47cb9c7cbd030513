"""What is said about storages and about the schema itself."""

from sqlalchemy import Column, MetaData, Table, Text, bindparam, cast, exists, func, literal_column, or_, select
from sqlalchemy.dialects.postgresql import INTERVAL, OID
from sqlalchemy.dialects.postgresql import insert as upsert

from pgresults.sql.compiled import Statement
from pgresults.sql.schema import SCHEMA, VERSION_TABLE, payload, storage
from pgresults.sql.shard_functions import MARK

REGISTER = Statement(
    upsert(storage)
    .values(id=bindparam("id"), name=bindparam("name"), created_at=func.statement_timestamp())
    .on_conflict_do_nothing()
)
"""Enter a storage's name in the registry."""

ENTERED = Statement(
    select(storage.c.id, storage.c.name).where(
        or_(storage.c.id == bindparam("id"), storage.c.name == bindparam("name"))
    )
)
"""What stands under an id and a name."""

IDENTITY = Statement(select(storage.c.identity).where(storage.c.id == bindparam("id")))
"""What tells a storage from those of the same name in other databases."""

STORAGES = Statement(select(storage.c.id, storage.c.name).order_by(storage.c.name))
"""Every registered storage."""

LONG_KNOWN = Statement(
    select(storage.c.id).where(
        storage.c.id == bindparam("id"),
        storage.c.created_at < func.statement_timestamp() - cast(literal_column("'1 minute'"), INTERVAL),
    )
)
"""Whether a storage was registered so long ago that whoever did it has written by now."""

_SCHEMA_VERSION = Table(VERSION_TABLE, MetaData(schema=SCHEMA), Column("version_num", Text), Column("tableoid", OID))
_CLASS = Table(
    "pg_class",
    MetaData(schema="pg_catalog"),
    *(Column(name, OID) for name in ("oid", "relnamespace", "relname", "relkind")),
)
_OURS = _CLASS.alias("ours")
_PROC = Table("pg_proc", MetaData(schema="pg_catalog"), Column("proname", Text), Column("pronamespace", OID))

CONDITION = Statement(
    select(
        _SCHEMA_VERSION.c.version_num,
        exists(
            select(_CLASS.c.oid)
            .join(_OURS, _OURS.c.relnamespace == _CLASS.c.relnamespace)
            .where(
                _OURS.c.oid == _SCHEMA_VERSION.c.tableoid,
                _CLASS.c.relname == literal_column(f"'{payload.name}'"),
                func.has_table_privilege(_CLASS.c.oid, literal_column("'SELECT'")),
            )
        ),
        exists(
            select(_PROC.c.proname)
            .join(_OURS, _OURS.c.relnamespace == _PROC.c.pronamespace)
            .where(_OURS.c.oid == _SCHEMA_VERSION.c.tableoid, _PROC.c.proname == literal_column(f"'{MARK}'"))
        ),
    )
)
"""The revision of the schema, whether the role may see its table of payloads, and whether it is on several servers."""

_NAMESPACE = Table("pg_namespace", MetaData(schema="pg_catalog"), Column("oid", OID), Column("nspname", Text))

SCHEMAS = Statement(
    select(cast(_NAMESPACE.c.nspname, Text))
    .select_from(_CLASS.join(_NAMESPACE, _NAMESPACE.c.oid == _CLASS.c.relnamespace))
    .where(_CLASS.c.relname == literal_column(f"'{VERSION_TABLE}'"), _CLASS.c.relkind == literal_column("'r'"))
    .order_by(literal_column("1"))
)
"""The schemas with tables of ours."""

SERVER_TIME = Statement(select(func.statement_timestamp()))
"""What time it is."""

PING = Statement(select(literal_column("1")))
"""Prove that a connection still answers."""
