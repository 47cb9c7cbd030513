"""What a payload holds, as a page may show it: found out without running anything that it names, within bounds."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from difflib import unified_diff
from itertools import islice
from typing import Any, NamedTuple

from pgresults.audit.past import find_as_of, find_version
from pgresults.database.programs import aperform, call
from pgresults.errors import PayloadTooLarge
from pgresults.operations import console
from pgresults.operations.results import Found, Head, look_up
from pgresults.records.keys import require_key
from pgresults.records.outlines import OUTLINE
from pgresults.records.provenance import shown as shown_provenance
from pgresults.serializers.permits import Permit, within_permit
from pgresults.serializers.preview import Content, content_of, described_type, hexdump, imports
from pgresults.storage.checking import require_intact, require_signed
from pgresults.storage.misses import require_live
from pgresults.storage.postgres import PostgresStorage
from pgresults.web.heads import Sample, sample_of

MOST_BYTES = 8 * 1024 * 1024
"""The largest payload that is looked into, and how large it may become when it is unpacked."""

_MOST_LINES = 2_000
_MOST_COLUMNS = 100
_PAIR = 2
_MOST_SHOWN = 100_000


class Which(NamedTuple):
    """Which result of a key: a version, what there was at a moment, or what is live."""

    version: int | None = None
    as_of: datetime | None = None


class Outline(NamedTuple):
    """What the writer said of an array or a frame: its type, its shape, its parts' and its columns' types."""

    type: str
    shape: str
    dtype: str
    columns: Sequence[tuple[str, str]]


def _outline(said: Any) -> Outline | None:
    """What is said of an array or a frame; nothing of it is certain to be there, or to be what it should."""
    if not isinstance(said, dict):
        return None
    shape, columns = said.get("shape"), said.get("columns")
    lengths = " x ".join(map(str, shape)) if isinstance(shape, list) else ""
    pairs = [one for one in columns if isinstance(one, list) and len(one) == _PAIR] if isinstance(columns, list) else []
    kinds = [(str(name), str(of)) for name, of in pairs[:_MOST_COLUMNS]]
    return Outline(str(said.get("type") or ""), lengths, str(said.get("dtype") or ""), kinds)


@dataclass(frozen=True)
class Shown:
    """A result as a page shows it.

    Parameters:
        head: what is said of it.
        content: what its payload holds.
        sample: the head of an array or a frame.
        outline: what the writer said of an array or a frame.
        imports: what a pickle would import.
        bytes: the first bytes of what cannot be shown otherwise.
    """

    head: Head
    content: Content
    sample: Sample | None = None
    outline: Outline | None = None
    imports: Sequence[str] = ()
    bytes: Sequence[str] = ()

    @property
    def document(self) -> Any:
        """The value, where it is a plain one that a tree can show."""
        return self.content.document

    @property
    def is_tree(self) -> bool:
        """Whether a tree shows it."""
        return self.content.kind == "json" or isinstance(self.document, dict | list | tuple | set | frozenset)

    @property
    def text(self) -> str | None:
        """The text that it is; None where it is none."""
        if self.content.is_opaque or self.is_tree:
            return None
        try:
            self.content.data.decode()
        except UnicodeDecodeError:
            return None
        return self.content.data[:_MOST_SHOWN].decode(errors="ignore")


async def fetch(storage: PostgresStorage, key: str, which: Which) -> Found:
    """A result with its payload, unless that is too large to be looked into.

    Raises: MissingResult; PayloadTooLarge; StorageUnavailable.
    """
    if which.as_of is not None:
        _require_bounded(key, await _size_as_of(storage, key, which.as_of))
        return await aperform(find_as_of(storage, key, which.as_of))
    # A version stays what it is, and so does its size.
    version = (await head_of(storage, key)).version if which.version is None else which.version
    _require_bounded(key, await _size_of(storage, key, version))
    return await aperform(find_version(storage, key, version))


def _require_bounded(key: str, size: int | None) -> None:
    if size is not None and size > MOST_BYTES:
        raise PayloadTooLarge(
            f"the payload has {size:,} bytes: too large to be looked into here. `pgresults get` prints it",
            key=key,
            size=size,
            limit=MOST_BYTES,
        )


async def head_of(storage: PostgresStorage, key: str) -> Head:
    """What is said of what is live under a key; raises MissingResult with the reason."""
    checked = require_key(key)
    return require_live(await aperform(call(storage.database, lambda _: look_up(storage.id, checked))), key).head


async def _size_of(storage: PostgresStorage, key: str, version: int) -> int | None:
    return await aperform(call(storage.database, lambda _: console.version_size(storage.id, key, version)))


async def _size_as_of(storage: PostgresStorage, key: str, moment: datetime) -> int | None:
    return await aperform(call(storage.database, lambda _: console.size_as_of(storage.id, key, moment)))


async def look(storage: PostgresStorage, found: Found, key: str) -> Shown:
    """What a result holds.

    Raises: IntegrityError for what is not as it was written, before anything is looked into; PayloadTooLarge.
    """
    return await asyncio.to_thread(_look, storage, found, key)


async def payload_of(storage: PostgresStorage, found: Found, key: str) -> bytes:
    """The payload as it was written; raises IntegrityError."""
    return await asyncio.to_thread(lambda: _believed(storage, found, key))


def _believed(storage: PostgresStorage, found: Found, key: str) -> bytes:
    require_signed(found.head, key, storage._trust)
    return bytes(require_intact(found, key))


def _look(storage: PostgresStorage, found: Found, key: str) -> Shown:
    payload, head = _believed(storage, found, key), found.head
    with within_permit(Permit(allow_pickle=False, max_bytes=MOST_BYTES)):
        content = content_of(head.serializer, payload)
    return Shown(
        head,
        content,
        sample_of(described_type(head.serializer), payload),
        _outline((shown_provenance(head.provenance) or {}).get(OUTLINE)),
        list(islice(imports(payload), 50)) if content.kind == "pickle" else (),
        list(hexdump(content.data)) if content.is_opaque or content.kind == "bytes" else (),
    )


class Difference(NamedTuple):
    """How two versions differ: in lines (None: that cannot be said), or not at all."""

    lines: list[str] | None
    is_none: bool


async def difference(storage: PostgresStorage, key: str, old: int, new: int) -> Difference:
    """How one version of a key differs from another; see `look`."""
    found = [await fetch(storage, key, Which(version)) for version in (old, new)]
    return await asyncio.to_thread(_difference, storage, key, found, (f"version {old}", f"version {new}"))


def _difference(storage: PostgresStorage, key: str, found: Sequence[Found], names: tuple[str, str]) -> Difference:
    before, after = (_look(storage, one, key).content for one in found)
    old, new = before.lines(), after.lines()
    if (before.kind, before.data) == (after.kind, after.data) or (old is not None and old == new):
        return Difference([], True)
    if old is None or new is None or max(len(old), len(new)) > _MOST_LINES:
        return Difference(None, False)
    return Difference(list(unified_diff(old, new, *names, lineterm="")), False)
