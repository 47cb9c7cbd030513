"""Several results written or read at once."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from itertools import accumulate
from typing import Any

from pgresults.database.programs import Program, aperform, call, compute, perform
from pgresults.errors import InvalidArgument, MissingResult
from pgresults.operations.results import Found, read_all
from pgresults.records.keys import require_key
from pgresults.records.records import ResultRecord, ResultRecordMetadata
from pgresults.storage.encoding import decode, require_live
from pgresults.storage.postgres import PostgresStorage
from pgresults.store.keyed import KeyedStore
from pgresults.store.metadata_apart import pointed_to
from pgresults.store.uploads import Staged, store_staged, stored_metadata


class BatchMethods(KeyedStore):
    """Writing and reading several results in few round trips."""

    def write_many(
        self,
        items: Mapping[str, Any],
        expiration: datetime | None = None,
        holder: str | None = None,
        tags: Iterable[str] | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> dict[str, ResultRecordMetadata]:
        """Store objects under their keys, all of them or none.

        Parameters:
            items: the objects by key.
            expiration: when they cease to be live (aware); None: never.
            holder: who writes; None: this thread.
            tags: words to find them by.
            provenance: a JSON object to keep with each.

        Returns: the metadata as stored, by key.
        Raises: what `write` raises; nothing is stored then.
        """
        return perform(self._write_many(items, expiration, holder, tags, provenance))

    async def awrite_many(
        self,
        items: Mapping[str, Any],
        expiration: datetime | None = None,
        holder: str | None = None,
        tags: Iterable[str] | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> dict[str, ResultRecordMetadata]:
        """Store objects under their keys, all of them or none; see `write_many`."""
        return await aperform(self._write_many(items, expiration, holder, tags, provenance))

    def read_many(self, keys: Iterable[str]) -> dict[str, ResultRecord[Any]]:
        """Read the current results of keys, as they were at one moment; keys without a live one are left out.

        Unlike `read` it waits for no locks.

        Raises: InvalidKey; InvalidArgument; IntegrityError; SerializationError; StorageUnavailable.
        """
        return perform(self._read_many(keys))

    async def aread_many(self, keys: Iterable[str]) -> dict[str, ResultRecord[Any]]:
        """Read the current results of keys, as they were at one moment; see `read_many`."""
        return await aperform(self._read_many(keys))

    def _write_many(
        self,
        items: Mapping[str, Any],
        expiration: datetime | None,
        holder: str | None,
        tags: Iterable[str] | None,
        provenance: Mapping[str, Any] | None,
    ) -> Program[dict[str, ResultRecordMetadata]]:
        if not isinstance(items, Mapping):
            raise InvalidArgument(
                f"items are a mapping of keys to objects, not a {type(items).__name__}", argument="items", value=items
            )
        yield from self.ready()
        drafts = {key: self.draft(obj, key, expiration) for key, obj in items.items()}
        given = None if tags is None else list(tags) if not isinstance(tags, str) else tags
        staged: list[list[Staged]] = []
        for draft in drafts.values():
            staged.append((yield from self.encode(draft, holder, given, provenance)))  # noqa: PERF401 (it yields)
        if not staged:
            return {}
        written = yield from store_staged([version for versions in staged for version in versions])
        firsts = accumulate(map(len, staged[:-1]), initial=0)
        return {
            key: stored_metadata(versions[0], written[first])
            for key, versions, first in zip(drafts, staged, firsts, strict=True)
        }

    def _read_many(self, keys: Iterable[str]) -> Program[dict[str, ResultRecord[Any]]]:
        if isinstance(keys, str):  # its characters would pass for keys
            raise InvalidArgument("keys are several: give a list of them", argument="keys", value=keys)
        wanted = [require_key(key) for key in keys]
        storage, apart = yield from self.storages()
        if apart is None:
            return (yield from self._read_all(storage, wanted))
        pointers = yield from self._read_all(apart, wanted)
        targets = {key: pointed_to(pointer) for key, pointer in pointers.items()}
        found = yield from self._read_all(storage, list(targets.values()))
        return {key: found[target] for key, target in targets.items() if target in found}

    def _read_all(self, storage: PostgresStorage, keys: Sequence[str]) -> Program[dict[str, ResultRecord[Any]]]:
        if not keys:
            return {}
        found = yield from call(storage.database, lambda _: read_all(storage.id, keys), atomic=True)
        live = {key: found[key] for key in keys if key in found and _is_live(found[key], key)}
        size = sum(len(one.payload or b"") for one in live.values())
        return (
            yield from compute(
                lambda: {key: decode(one, key, self.serializer, storage.trust) for key, one in live.items()},
                small=size <= storage.settings.offload_bytes,
            )
        )


def _is_live(found: Found, key: str) -> bool:
    try:
        require_live(found, key)
    except MissingResult:
        return False
    return True
