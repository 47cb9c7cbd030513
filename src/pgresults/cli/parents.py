"""What the command line names as that from which something was computed."""

from collections.abc import Iterator

from pgresults.database.programs import call, perform
from pgresults.operations.results import look_up
from pgresults.records.keys import require_key
from pgresults.storage.misses import require_live
from pgresults.storage.postgres import PostgresStorage


def parents(storage: PostgresStorage, given: list[str] | None) -> list[tuple[str, int]] | None:
    """What the texts ``KEY@VERSION`` name; a KEY alone stands for what is live there now.

    Raises: MissingResult where nothing is; InvalidKey.
    """
    return None if given is None else list(_parents(storage, given))


def _parents(storage: PostgresStorage, given: list[str]) -> Iterator[tuple[str, int]]:
    for one in given:
        key, _, version = one.rpartition("@")
        if key and version.isdecimal() and version.isascii():
            yield key, int(version)
        else:
            yield one, _current(storage, require_key(one))


def _current(storage: PostgresStorage, key: str) -> int:
    found = perform(call(storage.database, lambda _: look_up(storage.id, key)))
    return require_live(found, key).head.version
