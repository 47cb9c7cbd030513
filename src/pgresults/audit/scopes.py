"""What a hold or a rule is for, and why, as callers say it."""

from collections.abc import Iterable
from typing import Any

from pgresults.arguments import require_tags, require_text
from pgresults.errors import InvalidArgument
from pgresults.records.keys import require_key


def scope_of(
    advice: str,
    argument: str,
    *,
    key: str | None = None,
    prefix: str | None = None,
    tags: Iterable[str] | None = None,
    task: str | None = None,
) -> dict[str, Any]:
    """The one thing that something is for, by its name.

    Parameters:
        advice: what to say where not one is given.
        argument: which of them that names.
        key: a key.
        prefix: what keys begin with; an empty one is the whole storage.
        tags: words that versions carry, all of them.
        task: the name of a task.

    Raises: InvalidArgument; InvalidKey.
    """
    given: dict[str, Any] = {}
    if key is not None:
        given["key"] = require_key(key)
    if prefix is not None:
        given["prefix"] = prefix and require_text(prefix, "prefix")
    if tags is not None:
        given["tags"] = sorted(set(require_tags(tags) or ()))
        if not given["tags"]:
            raise InvalidArgument("say which tags", argument="tags", value=tags)
    if task is not None:
        given["task"] = require_text(task, "task")
    if len(given) != 1:
        raise InvalidArgument(advice, argument=argument, value=given.get(argument))
    return given


def require_reason(reason: str) -> str:
    """Why something is done; raises InvalidArgument where nobody says."""
    if not require_text(reason, "reason"):
        raise InvalidArgument("say why: the reason is kept", argument="reason", value=reason)
    return reason
