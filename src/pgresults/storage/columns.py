"""Values of columns that are kept as JSON texts."""

import json
from functools import lru_cache
from typing import Any

from pydantic_core import to_json

from pgresults.sql.digests import canonical_json

_DECODE = json.JSONDecoder().raw_decode  # the server puts no space around what it prints


def json_text(value: Any) -> str:
    """A JSON object as the text of a column."""
    return to_json(value).decode()


def parsed(text: str | None) -> Any:
    """What a column of JSON holds.

    Raises: ValueError for what Python cannot hold, and no write of ours has put there.
    """
    try:
        return None if text is None else _DECODE(text)[0]
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error


@lru_cache(maxsize=256)
def canonical(text: str) -> bytes:
    """The canonical bytes of a JSON text, as digests take them; see `canonical_json`.

    Remembered, because one write after the other has the same serializer and comes from the same process.
    """
    return canonical_json(json.loads(text))
