"""Checking the options of tasks and flows where they are made, not where they are first called."""

from collections.abc import Callable, Mapping
from typing import Any

from pgresults.errors import InvalidArgument
from pgresults.runtime.absent import advice
from pgresults.serializers import Serializer
from pgresults.serializers.base import is_foreign
from pgresults.storage.registry import require_spec

_KINDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "name": (lambda value: isinstance(value, str) and bool(value), "a text"),
    "persist_result": (lambda value: isinstance(value, bool), "True, False or None"),
    "refresh_cache": (lambda value: isinstance(value, bool), "True or False"),
    "cache_result_in_memory": (lambda value: isinstance(value, bool), "True or False"),
    "result_storage_key": (lambda value: isinstance(value, str), "a template of the key, a text"),
    "result_serializer": (
        lambda value: isinstance(value, Serializer | str) or is_foreign(value),
        "a Serializer or the type of one",
    ),
    "cache_key_fn": (callable, "a function of the context and the parameters"),
}


def require_options(what: str, options: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    """Refuse options of no use; None always stands for one that is not given.

    Parameters:
        what: whose they are, for the error.
        options: by name.
        known: the names that there are.

    Raises: TypeError for an unknown one; InvalidArgument for a value of another kind.
    """
    if unknown := sorted(options.keys() - known.keys()):
        raise TypeError(
            f"a {what} has no option {unknown[0]!r}; {advice(unknown[0])}. Its options are {', '.join(known)}"
        )
    if options.get("result_storage") is not None:
        require_spec(options["result_storage"], "result_storage", f"a {what}")
    for name, value in options.items():
        fits, kind = _KINDS.get(name, (None, ""))
        if value is not None and fits is not None and not fits(value):
            raise InvalidArgument(f"{name} of a {what} is {kind}, not {value!r}", argument=name, value=value)
