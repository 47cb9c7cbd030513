"""Why a call would run or not, without running it."""

from dataclasses import dataclass, field
from typing import Any

from pgresults.database.programs import Program, calling
from pgresults.errors import MissingResult
from pgresults.runtime.calls import Called
from pgresults.runtime.iterables import Arguments
from pgresults.storage.misses import require_live


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
            storage = (yield from context.result_store._keyspace()).entries
            head = require_live((yield from storage._fetch(key)), key).head
        except MissingResult as miss:
            return Explanation(key, False, str(miss), parts)
        return Explanation(key, True, f"version {head.version} is live", parts)
