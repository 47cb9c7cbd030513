"""Erasing everything of somebody at once, with a signed statement of what it was."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from pgresults.arguments import require_moment, require_tags, require_text
from pgresults.audit.certificates import Certificate, certify
from pgresults.audit.checks import WRITES
from pgresults.audit.holding import only_storage
from pgresults.audit.proving import written
from pgresults.audit.sealing import key_file
from pgresults.audit.signing import SigningKey
from pgresults.audit.standalone import Refused, check_chain
from pgresults.database.programs import Program, call, compute
from pgresults.errors import IntegrityError, InvalidArgument, MissingResult
from pgresults.locking.postgres import PostgresLockManager
from pgresults.operations import erasure as operations
from pgresults.records.keys import require_key
from pgresults.records.provenance import actor, default_holder
from pgresults.sql.digests import content_digest
from pgresults.sql.guards import Guard
from pgresults.storage.finding import bound
from pgresults.storage.keyspace import Keyspace


def erase(
    keyspace: Keyspace,
    key: str | None,
    prefix: str | None,
    tags: Iterable[str] | None,
    reason: str,
    backups_until: datetime | None,
    log_until: datetime | None,
) -> Program[Certificate]:
    """Erase all of a scope, and certify it; see `ResultStore.erase`."""
    scope = _scope(key, prefix, tags)
    if not require_text(reason, "reason"):
        raise InvalidArgument("say why it is erased: reason is kept", argument="reason", value=reason)
    remains = {"backups_until": _said(backups_until, "backups_until"), "log_until": _said(log_until, "log_until")}
    storage = only_storage(keyspace)
    signing = yield from compute(lambda: SigningKey(key_file(storage)), small=False)  # before anything is erased
    manager = keyspace.locks
    guarded = isinstance(manager, PostgresLockManager) and manager._guards(storage.database, storage.id)
    entry: dict[str, Any] = {
        "action": "redact", "actor": actor(), "holder": default_holder(), "fence": None, "reason": reason,
    }  # fmt: skip
    entry |= {"content": content_digest(entry), "storage_id": storage.id, **bound(scope)}
    guard = Guard.NOT_HELD if guarded else Guard.NONE
    (what,) = scope
    erased = yield from call(storage.database, lambda _: operations.erase(entry, what, guard, _certified), atomic=True)
    if not erased:
        raise MissingResult(f"there never was anything of {scope[what]!r} in {storage.name!r}", key=str(scope[what]))
    return (
        yield from compute(
            lambda: certify(
                signing,
                storage=storage.name,
                storage_id=str(storage.id),
                issued_at=_said(datetime.now(UTC), "issued_at"),
                scope=scope,
                reason=reason,
                keys=erased,
                remains=remains,
            ),
            small=False,
        )
    )


def _certified(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What a certificate says of a key; its history is recomputed.

    Raises: IntegrityError for a history that was altered.
    """
    try:
        entries = [written(row) for row in rows]
        check_chain(entries)
    except (Refused, IntegrityError) as error:
        raise IntegrityError(
            f"what is kept of {rows[0]['key']!r} was altered ({error}), and nothing was erased: `pgresults verify` "
            "tells more, `redact` erases it all the same",
            key=rows[0]["key"],
        ) from error
    versions = [
        {name: entry[name] for name in ("version", "size", "payload_digest")}
        for entry in entries
        if entry["action"] in WRITES
    ]
    return {"entry": entries[-1], "entries": len(entries), "versions": versions}


def _scope(key: str | None, prefix: str | None, tags: Iterable[str] | None) -> dict[str, Any]:
    given: dict[str, Any] = {} if key is None else {"key": require_key(key)}
    if prefix is not None:
        given["prefix"] = require_text(prefix, "prefix")
    if tags is not None:
        given["tags"] = sorted(set(require_tags(tags) or ()))
    if len(given) != 1 or not all(given.values()):
        raise InvalidArgument("say what is erased by one of key, prefix and tags", argument="prefix", value=prefix)
    return given


def _said(moment: datetime | None, argument: str) -> str | None:
    if moment is None:
        return None
    return require_moment(moment, argument).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
