"""The statements that read what a proof is made of."""

from sqlalchemy import BigInteger, LargeBinary, Text, and_, bindparam, cast, func, literal_column, or_, select

from pgresults.sql.compiled import Statement
from pgresults.sql.schema import history, payload
from pgresults.sql.times import sayable
from pgresults.sql.verify import ENTRY_NAMES, SEALED, STORAGE, as_checked

_KEY = bindparam("key", type_=history.c.key.type)
_VERSION = bindparam("version", type_=BigInteger)

_OF_KEY = and_(history.c.storage_id == STORAGE, history.c.key == _KEY)
_MADE = history.c.action.in_([literal_column("'write'"), literal_column("'import'")])
_FIRST_CHUNK = and_(
    payload.c.storage_id == history.c.storage_id,
    payload.c.key == history.c.key,
    payload.c.payload_id == history.c.payload_id,
    payload.c.chunk == literal_column("0"),
)


_provable = (
    select(*(as_checked(history, name) for name in ENTRY_NAMES), payload.c.salt, payload.c.sha256)
    .select_from(history.outerjoin(payload, _FIRST_CHUNK))
    .where(_OF_KEY)
)
_newest = _provable.where(_MADE).order_by(history.c.seq.desc()).limit(literal_column("1"))

NEWEST, VERSION = Statement(_newest), Statement(_newest.where(history.c.version == _VERSION))
"""The entry that made a key's newest version, or one of them, with its payload's salt and digest."""

_last = select(func.max(history.c.seq)).where(_OF_KEY, SEALED).scalar_subquery()
VERSIONS = Statement(_provable.where(SEALED, or_(_MADE, history.c.seq == _last)).order_by(history.c.seq))
"""The same of all versions of a key that a seal covers, and of the last entry that it covers."""

CHAIN = Statement(select(*(as_checked(history, name) for name in ENTRY_NAMES)).where(_OF_KEY).order_by(history.c.seq))
"""All entries of a key."""

_place = func.sha256(
    func.uuid_send(history.c.storage_id).op("||")(func.convert_to(cast(history.c.key, Text), literal_column("'UTF8'"))),
    type_=LargeBinary,
)
BUCKET = Statement(
    select(history.c.key, history.c.seq, history.c.digest, sayable(history.c.at), history.c.xid)
    .where(
        history.c.storage_id == STORAGE,
        SEALED,
        _place >= bindparam("low", type_=LargeBinary),
        _place < bindparam("high", type_=LargeBinary),
    )
    .order_by(history.c.key, history.c.seq),
    plan_anew=True,
)
"""What a seal covers in one of its buckets."""
