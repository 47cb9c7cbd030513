"""Why there is no result: the reasons of a `MissingResult`, each made here."""

from datetime import datetime

from pgresults.errors import MissingResult
from pgresults.operations.history import Removal
from pgresults.operations.results import Found
from pgresults.sql.times import expiry, utc

_REASONS = {"delete": "deleted", "expire": "expired", "redact": "redacted", "retain": "not retained"}
"""What a reader is told, by the action that took the result away."""


def require_live(found: Found | None, key: str) -> Found:
    """What was found, if it is live.

    Raises: MissingResult with the reason.
    """
    if found is None or found.head.version == 0:
        raise never_written(key)
    head = found.head
    if head.payload_id is not None and not head.expired:
        return found
    if head.expired:
        raise _gone(key, "expired", expiry(head.expires_at), None)
    raise _gone(key, _REASONS.get(head.action, "deleted"), utc(head.at), head.actor, swept=head.action == "expire")


def never_written(key: str, moment: datetime | None = None) -> MissingResult:
    """There is nothing under a key, or was nothing yet at a moment."""
    then = f" at {moment}" if moment else ""
    return MissingResult(f"no result under {key!r}{then}: never written", key=key, reason="never written")


def no_such_version(key: str, version: int) -> MissingResult:
    """A key has other versions only."""
    return MissingResult(f"{key!r} has no version {version}", key=key, reason="no such version")


def went_meanwhile(key: str) -> MissingResult:
    """A result was live when it was looked at, and not when it was to be changed."""
    return MissingResult(f"no result under {key!r}: it went this moment", key=key, reason="deleted")


def payload_gone(key: str, version: int, removal: Removal) -> MissingResult:
    """A version is known, but its payload was taken away."""
    reason, since = _REASONS[removal.action], utc(removal.at)
    when = {"retain": f" since {since}, by `retain` of", "expire": f", and was swept at {since} by"}.get(
        removal.action, f" at {since} by"
    )
    return MissingResult(
        f"the payload of {key!r}, version {version}, is gone: {reason}{when} {removal.actor}",
        key=key,
        reason=reason,
        at=since,
        by=removal.actor,
    )


def payload_replaced(key: str, version: int | None, place: str | None) -> MissingResult:
    """An earlier version's metadata points to where a later payload lies by now."""
    return MissingResult(
        f"the payload of {key!r}, version {version}, was replaced by a later one under {place!r}",
        key=key,
        reason="deleted",
    )


def _gone(key: str, reason: str, at: datetime | None, by: str | None, swept: bool = False) -> MissingResult:
    who = f" by {by}" if by else ""
    when = f" at {at}" if at else ""
    return MissingResult(
        f"no result under {key!r}: {reason}{', and was swept' if swept else ''}{when}{who}",
        key=key,
        reason=reason,
        at=at,
        by=by,
    )
