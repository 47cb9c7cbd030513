"""Asking for live results without SQL."""

from abc import abstractmethod
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from pgresults.arguments import require_text
from pgresults.database.programs import Program, aperform, call, perform
from pgresults.errors import InvalidArgument
from pgresults.locking.methods import LockMethods
from pgresults.operations import queries
from pgresults.operations.queries import FoundResult
from pgresults.records.keys import prefix_end, require_key
from pgresults.records.records import aware_utc
from pgresults.storage.postgres import PostgresStorage

_MOST = 10_000


class QueryMethods(LockMethods):
    """Finding results by what is known of them."""

    @abstractmethod
    def ready(self) -> Program[PostgresStorage]:
        """Where results go."""

    @abstractmethod
    def indexed(self) -> Program[PostgresStorage]:
        """Where keys are looked up: where results go, unless their metadata is kept apart."""

    def find(
        self,
        prefix: str | None = None,
        tags: Iterable[str] | None = None,
        task: str | None = None,
        flow: str | None = None,
        written_after: datetime | None = None,
        written_before: datetime | None = None,
        expires_before: datetime | None = None,
        min_size: int | None = None,
        max_size: int | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> list[FoundResult]:
        """A page of the live results that meet every given condition, by key.

        The next page begins after the last key of this one: whatever is written meanwhile, no result that stays is
        left out or shown twice.

        Parameters:
            prefix: what their keys begin with.
            tags: words they all carry.
            task: the name of the task that wrote them.
            flow: the name of the flow that wrote them.
            written_after: the first moment (aware) of their writing.
            written_before: the moment (aware) before which they were written.
            expires_before: the moment (aware) before which they expire.
            min_size: bytes of payload, at least.
            max_size: bytes of payload, at most.
            after: the last key of the page before; None: the first page.
            limit: how many at most, up to 10,000.

        Raises: InvalidArgument; StorageUnavailable.
        """
        moments = {"written_after": written_after, "written_before": written_before, "expires_before": expires_before}
        given = chosen_conditions(prefix, tags, task, flow) | _moments(moments)
        return perform(self._find(given | _sizes(min_size=min_size, max_size=max_size), after, limit))

    async def afind(
        self,
        prefix: str | None = None,
        tags: Iterable[str] | None = None,
        task: str | None = None,
        flow: str | None = None,
        written_after: datetime | None = None,
        written_before: datetime | None = None,
        expires_before: datetime | None = None,
        min_size: int | None = None,
        max_size: int | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> list[FoundResult]:
        """A page of the live results that meet every given condition, by key; see `find`."""
        moments = {"written_after": written_after, "written_before": written_before, "expires_before": expires_before}
        given = chosen_conditions(prefix, tags, task, flow) | _moments(moments)
        return await aperform(self._find(given | _sizes(min_size=min_size, max_size=max_size), after, limit))

    def _find(self, given: dict[str, Any], after: str | None, limit: int) -> Program[list[FoundResult]]:
        storage = yield from self.indexed()
        if not isinstance(limit, int) or not 0 < limit <= _MOST:
            raise InvalidArgument(f"limit is a number from 1 to {_MOST:,}", argument="limit", value=limit)
        page = {"storage_id": storage.id, "after": "" if after is None else require_key(after), "limit": limit}
        return (yield from call(storage.database, lambda _: queries.find(page | bound(given), frozenset(given))))


def chosen_conditions(
    prefix: str | None, tags: Iterable[str] | None, task: str | None, flow: str | None
) -> dict[str, Any]:
    """The conditions that are given, checked.

    Raises: InvalidArgument.
    """
    if isinstance(tags, str):
        raise InvalidArgument("tags are a list of texts", argument="tags", value=tags)
    texts: dict[str, Any] = {
        name: require_text(text, name)
        for name, text in (("prefix", prefix), ("task", task), ("flow", flow))
        if text is not None
    }
    return texts if tags is None else texts | {"tags": [require_text(tag, "tags") for tag in tags]}


def bound(given: dict[str, Any]) -> dict[str, Any]:
    """The parameters of conditions."""
    return {**given, "end": prefix_end(given["prefix"])} if "prefix" in given else given


def require_moment(moment: object, argument: str) -> datetime:
    """A moment in UTC.

    Raises: InvalidArgument for a naive one and for what is none.
    """
    try:
        return aware_utc(moment)  # type: ignore[no-any-return]
    except ValueError as error:
        raise InvalidArgument(f"{argument}: {error}", argument=argument, value=moment) from error


def _moments(moments: dict[str, datetime | None]) -> dict[str, Any]:
    return {name: require_moment(moment, name) for name, moment in moments.items() if moment is not None}


def _sizes(**sizes: int | None) -> dict[str, Any]:
    for name, size in sizes.items():
        if size is not None and (not isinstance(size, int) or not 0 <= size < 2**63):
            raise InvalidArgument(f"{name} is a number of bytes", argument=name, value=size)
    return {name: size for name, size in sizes.items() if size is not None}
