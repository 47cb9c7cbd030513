"""Why a call would run or not, without running it."""

from dataclasses import dataclass, field
from typing import Any

from pgresults.database.programs import Program, calling
from pgresults.errors import MissingResult, SerializationError
from pgresults.runtime.calls import Called
from pgresults.runtime.iterables import Arguments
from pgresults.store.reading import read_at_once


@dataclass(frozen=True)
class Explanation:
    """Why a call would run or not: its key, the parts of it, whether a live result is there, and why (not)."""

    key: str | None
    hit: bool
    reason: str
    parts: dict[str, str | None] = field(default_factory=dict)


def explaining(task: Called[Any, Any], arguments: Arguments) -> Program[Explanation]:
    """Say which key a call has, what made it, and whether it would run."""
    context = yield from task._running(task._run_of(arguments))
    key = calling(lambda: task._key_of(context))
    with context:
        parts = calling(lambda: task._policy_parts(context))
        if key is None:
            why = "its policy gives no key" if context.persist_result else "results are not persisted here"
            return Explanation(None, False, f"the call always runs: {why}", parts)
        if task.refresh_cache:
            return Explanation(key, False, "the call always runs: refresh_cache is set", parts)
        try:
            found = yield from read_at_once((yield from context.result_store._keyspace()), key)
        except MissingResult as miss:
            return Explanation(key, False, str(miss), parts)
        except SerializationError as error:
            return Explanation(key, False, f"the call computes it again: {error}", parts)
        return Explanation(key, True, f"version {found.metadata.version} is live", parts)
