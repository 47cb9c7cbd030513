"""Whether a value that was read is the one that was written, its types and whatever hangs on it included."""

import dataclasses
from collections import deque
from collections.abc import Sequence
from datetime import datetime, time, timezone, tzinfo
from decimal import Decimal
from enum import Enum
from typing import Any
from zoneinfo import ZoneInfo

from pydantic import BaseModel
from pydantic_core import TzInfo

from pgresults.serializers.exceptions import attributes_of


def require_same(read: Any, written: Any) -> None:
    """Check that a value comes back; raises TypeError that names what does not."""
    lost = _difference(read, written)
    if lost is not None:
        kind = type(lost[1])
        back = type(lost[0])
        became = "changed" if back is kind else f"as {back.__module__}.{back.__qualname__}"
        raise TypeError(f"an object of {kind.__module__}.{kind.__qualname__} would come back {became}")


def _difference(read: Any, written: Any) -> tuple[Any, Any] | None:
    """The innermost pair that differs; None: all is the same."""
    if type(read) is not type(written):
        return read, written
    mine, theirs = _parts(read, read), _parts(written, read)
    if mine is None or theirs is None:
        return None if _is_same(read, written) else (read, written)
    if len(mine) != len(theirs):
        return read, written
    for pair in zip(mine, theirs, strict=True):
        if (lost := _difference(*pair)) is not None:
            return lost
    return None


def _parts(value: Any, order: Any) -> Sequence[Any] | None:
    """What a value is made of, keys and members in the order in which another value has them; None: it is one piece."""
    if isinstance(value, Enum):
        return None
    if isinstance(value, tuple | list):
        return [*value, *vars(value).items()] if hasattr(value, "__dict__") else value
    if isinstance(value, deque):
        return [value.maxlen, *value]
    if isinstance(value, dict):
        keys = _in_order(value, order)
        return [*keys, *(value[key] for key in keys)]
    if isinstance(value, set | frozenset):
        return _in_order(value, order)
    if isinstance(value, BaseException):
        return [value.args, attributes_of(value), value.__cause__, value.__suppress_context__]
    if isinstance(value, BaseModel) or dataclasses.is_dataclass(value):
        state = object.__getstate__(value)
        return [*state] if isinstance(state, tuple) else [state]
    return None


def _in_order(value: Any, order: Any) -> list[Any]:
    own = {key: key for key in value}
    return [own[key] for key in order if key in own]


def _is_same(read: Any, written: Any) -> bool:
    if isinstance(written, float | complex):
        return repr(read) == repr(written)  # neither 0.0 and -0.0, nor a number that is none
    if isinstance(written, Decimal):
        return bool(read.as_tuple() == written.as_tuple())
    if isinstance(written, datetime | time):
        bare = read.replace(tzinfo=None), read.fold, written.replace(tzinfo=None), written.fold
        return bare[:2] == bare[2:] and _is_same_zone(read.tzinfo, written.tzinfo)
    return bool(read == written)


def _is_same_zone(read: tzinfo | None, written: tzinfo | None) -> bool:
    if type(read) is not type(written):
        return False
    if isinstance(read, ZoneInfo) and isinstance(written, ZoneInfo):
        return read.key == written.key is not None
    return written is None or (isinstance(written, timezone | TzInfo) and repr(read) == repr(written))
