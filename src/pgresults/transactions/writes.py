"""Storing what a tree of transactions staged: in one database transaction, its own or the caller's."""

from collections.abc import Sequence
from typing import Any

from pgresults.database.caller_transactions import Caller, call_on
from pgresults.database.observing import BATCH, SIZE, About, observed
from pgresults.database.programs import Program, call
from pgresults.errors import ConfigurationError
from pgresults.operations import locks
from pgresults.operations.locks import Grant
from pgresults.operations.requests import Operation
from pgresults.operations.results import Upload, find_write, write_all
from pgresults.store.writing import Staged, number


def about_versions(staged: Sequence[Staged], *_: Any) -> About | None:
    """What a span says of versions that are stored together."""
    if not staged:
        return None
    said = {SIZE: sum(version.upload.size for version in staged)}
    if len(staged) > 1:
        return staged[0].storage._about(**said, **{BATCH: len(staged)})
    return staged[0].storage._about(staged[0].upload.key, **said)


@observed("write", about_versions)
def store_all(staged: Sequence[Staged], caller: Caller | None, grants: Sequence[Grant]) -> Program[None]:
    """Store versions together or not at all.

    Parameters:
        staged: the versions.
        caller: a connection whose transaction they join; None: a transaction of their own.
        grants: locks that end with the caller's transaction.

    Raises: ConfigurationError when the versions do not share a database; LockLostError; LockedError;
        StorageUnavailable.
    """
    if not staged:
        return
    database, uploads = staged[0].storage.database, [version.upload for version in staged]
    if any(version.storage.database != database for version in staged):
        raise ConfigurationError(
            "the transactions of a tree store in different databases, which cannot commit as one: "
            "give one of them commit_mode=CommitMode.EAGER",
            setting="store",
        )
    for storage in {version.storage.id: version.storage for version in staged}.values():
        yield from storage._register()
    if caller is None:
        several = len(uploads) > 1 or not uploads[0].single
        written = yield from call(database, lambda repeated: write_all(uploads, repeated=repeated), atomic=several)
        number(staged, written)
    else:
        yield from call_on(caller, database.schema, database.as_carried_out(_write_and_release(uploads, grants)))


def were_stored(staged: Sequence[Staged]) -> Program[bool]:
    """Look whether versions were stored by a call that was interrupted before it could say so."""
    if not staged:
        return False
    database, upload = staged[0].storage.database, staged[0].upload
    return (yield from call(database, lambda _: find_write(upload))) is not None


def _write_and_release(uploads: Sequence[Upload], grants: Sequence[Grant]) -> Operation[None]:
    """Release in the same transaction that proved the locks: from outside, the release would wait for its end."""
    yield from write_all(uploads)
    for grant in grants:
        yield from locks.release(grant.place, grant.token, session=None)
