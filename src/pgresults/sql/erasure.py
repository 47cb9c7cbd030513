"""The statements that pick whatever there ever was of somebody, to erase it."""

from sqlalchemy import ARRAY, Text, Uuid, bindparam, exists, literal_column, select

from pgresults.sql.compiled import Statement
from pgresults.sql.prefixes import begins
from pgresults.sql.schema import history, result

_STORAGE = bindparam("storage_id", type_=Uuid)
_CONDITIONS = {
    "key": (result.c.key == bindparam("key", type_=result.c.key.type),),
    "prefix": begins(result.c.key),
    "tags": (
        exists(
            select(literal_column("1")).where(
                history.c.storage_id == result.c.storage_id,
                history.c.key == result.c.key,
                history.c.tags.contains(bindparam("tags", type_=ARRAY(Text))),
            )
        ),
    ),
}

PICK = {
    scope: Statement(
        select(result.c.key)
        .where(result.c.storage_id == _STORAGE, *conditions)
        .order_by(result.c.key)
        .with_for_update(),
        plan_anew=True,
    )
    for scope, conditions in _CONDITIONS.items()
}
"""The keys of one scope, live or not, whose rows are locked; tags are those of any version."""
