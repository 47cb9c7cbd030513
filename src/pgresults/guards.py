"""What a change proves about its key's lock before it happens."""

from enum import Enum

from sqlalchemy import ColumnElement, and_, bindparam, exists, func, or_, select, true

from pgresults.schema import lock


class Guard(Enum):
    """What a change has to prove about its key's lock, in the same statement and so in the same transaction."""

    NONE = "none"
    """Nothing: the store has no locks."""

    FENCE = "fence"
    """That the lock still is the writer's, by fence and token."""

    NOT_HELD = "not held"
    """That no other holder has the lock."""

    def condition(self) -> ColumnElement[bool]:
        """The proof. The lock's row stays as it is until the transaction ends: who takes the lock over waits."""
        place = (lock.c.storage_id == bindparam("storage_id"), lock.c.key == bindparam("key"))
        unexpired = or_(lock.c.expires_at.is_(None), lock.c.expires_at > func.clock_timestamp())
        held = and_(lock.c.released.is_(False), unexpired).label("held")
        row = select(lock.c.holder, lock.c.fence, lock.c.token, held).where(*place)
        seen = row.with_for_update(read=True).cte("lock_seen")
        if self is Guard.FENCE:
            proof = and_(seen.c.fence == bindparam("fence"), seen.c.token == bindparam("token"), seen.c.held)
            return exists(select(seen.c.fence).where(proof))
        if self is Guard.NOT_HELD:
            return ~exists(select(seen.c.fence).where(seen.c.held, seen.c.holder != bindparam("holder")))
        return true()
