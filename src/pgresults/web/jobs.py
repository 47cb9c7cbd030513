"""What takes longer than a request: begun by one, told of by others, remembered until the console ends."""

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeAlias

from pgresults.errors import InvalidArgument, PgResultsError
from pgresults.storage.postgres import PostgresStorage

Progress: TypeAlias = Callable[[int], None]
Work: TypeAlias = Callable[[Progress], Awaitable[Any]]
_MOST = 100
_AT_ONCE = 4
_log = logging.getLogger(__name__)


@dataclass
class Job:
    """Something that goes on, or went on.

    Parameters:
        id: names it in an address.
        kind: what it does.
        schema: where.
        storage: where.
        title: what it does, in words.
        who: who began it.
        begun: when.
        total: how many there are to do; None: that is not known.
    """

    id: str
    kind: str
    schema: str
    storage: str
    title: str
    who: str
    begun: datetime
    total: int | None
    done: int = 0
    ended: datetime | None = None
    result: Any = None
    failure: str | None = None
    work: "asyncio.Task[None] | None" = None

    @property
    def goes_on(self) -> bool:
        """Whether it is not over."""
        return self.ended is None


class Jobs:
    """The jobs of a console, of which one of a kind goes on in a storage at a time."""

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}

    def begin(self, kind: str, storage: PostgresStorage, title: str, who: str, total: int | None, work: Work) -> Job:
        """Begin a job; gives the one that goes on where there is one of that kind in the storage.

        Raises: InvalidArgument where several go on.
        """
        for job in self.of(kind, storage):
            if job.goes_on:
                return job
        if sum(job.goes_on for job in self._jobs.values()) >= _AT_ONCE:
            raise InvalidArgument(f"{_AT_ONCE} others go on: begin it when one of them is over")
        job = Job(secrets.token_hex(8), kind, storage.schema, storage.name, title, who, datetime.now(UTC), total)
        self._forget_some()
        self._jobs[job.id] = job
        job.work = asyncio.ensure_future(_carried_out(job, work))
        return job

    def find(self, id: str | None) -> Job | None:  # noqa: A002 (it is one)
        """A job by what names it."""
        return self._jobs.get(id or "")

    def of(self, kind: str, storage: PostgresStorage) -> list[Job]:
        """The jobs of a kind in a storage, the newest first."""
        place = (kind, storage.schema, storage.name)
        return [job for job in reversed(self._jobs.values()) if (job.kind, job.schema, job.storage) == place]

    def last(self, kind: str, schema: str) -> dict[str, Job]:
        """The newest job of a kind that is over without a failure, by storage."""
        done = (job for job in self._jobs.values() if (job.kind, job.schema) == (kind, schema))
        return {job.storage: job for job in done if job.ended and job.failure is None}

    async def aclose(self) -> None:
        """End what goes on."""
        works = [job.work for job in self._jobs.values() if job.work is not None and job.goes_on]
        for work in works:
            work.cancel()
        await asyncio.gather(*works, return_exceptions=True)

    def _forget_some(self) -> None:
        over = [job.id for job in self._jobs.values() if not job.goes_on]
        for one in over[: max(0, len(self._jobs) - _MOST)]:
            del self._jobs[one]


async def _carried_out(job: Job, work: Work) -> None:
    def progress(more: int) -> None:
        job.done += more

    try:
        job.result = await work(progress)
    except PgResultsError as error:
        job.failure = str(error)
    except asyncio.CancelledError:
        job.failure = "the console ended"
        raise
    except Exception:
        _log.exception("%s failed", job.title)
        job.failure = "this failed; the console's own log says why"
    finally:
        job.ended = datetime.now(UTC)
