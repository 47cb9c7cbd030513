"""Which keys can be stored, and which number stands for a storage."""

from collections.abc import Iterable, Iterator
from uuid import NAMESPACE_URL, UUID, uuid5

from pgresults.arguments import flaw_of
from pgresults.errors import InvalidArgument, InvalidKey

MAX_KEY_BYTES = 2048
"""The longest key, in bytes of UTF-8: it has to fit into a page of an index with its neighbours."""


_STORAGES = uuid5(NAMESPACE_URL, "pgresults/storage")


def storage_id(name: str) -> UUID:
    """The id of a storage: made from its name, so that nobody has to look it up."""
    return uuid5(_STORAGES, name)


def require_key(key: object) -> str:
    """Give the key back if it can be stored.

    Raises: InvalidKey when it is no text, empty, too long, or holds what Postgres cannot keep.
    """
    flaw = flaw_of(key, MAX_KEY_BYTES)
    if flaw is None:
        return key  # type: ignore[return-value] # a text without flaw
    shown = key[:64] if isinstance(key, str) else key
    raise InvalidKey(f"key {shown!r} cannot be stored: {flaw}", argument="key", value=shown, key=shown, reason=flaw)


_LAST = "\U0010ffff"
_BEYOND_ALL_KEYS = _LAST * (MAX_KEY_BYTES // 4 + 1)


def prefix_end(prefix: str) -> str:
    """The text that follows all keys with a prefix, in the order of their bytes: an index can stop there."""
    stem = prefix.rstrip(_LAST)
    if not stem:
        return _BEYOND_ALL_KEYS
    following = ord(stem[-1]) + 1
    return stem[:-1] + chr(0xE000 if following == 0xD800 else following)  # half a pair is no text


def require_keys(keys: Iterable[str]) -> Iterator[str]:
    """The keys, checked one after the other.

    Raises: InvalidArgument for a single text; InvalidKey.
    """
    if isinstance(keys, str):  # its characters would pass for keys
        raise InvalidArgument("keys are several: give a list of them", argument="keys", value=keys)
    return map(require_key, keys)
