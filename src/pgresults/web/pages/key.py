"""One key: what it has, what it had, how two versions differ, who works on it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from starlette.responses import Response

from pgresults.audit.checks import WRITES
from pgresults.audit.entries import HistoryEntry, shown_entry
from pgresults.database.errors import is_forbidden
from pgresults.database.programs import aperform, call
from pgresults.errors import (
    ConfigurationError,
    IntegrityError,
    InvalidArgument,
    MissingResult,
    PgResultsError,
    StorageUnavailable,
)
from pgresults.operations import console
from pgresults.operations.holds import Hold
from pgresults.operations.locks import HeldLock
from pgresults.records.keys import require_key
from pgresults.records.moments import moment
from pgresults.serializers.preview import described_type
from pgresults.sql.grants import Kind
from pgresults.store import ResultStore
from pgresults.web.contents import Difference, Shown, Which, difference, fetch, head_of, look, payload_of
from pgresults.web.pages.holds import covers
from pgresults.web.trees import Node, tree
from pgresults.web.views import View, because, change, page, see

_ENTRIES = 25
_RECORDED = ("process", "task", "flow", "object")


@dataclass(frozen=True)
class _Asked:
    """What is asked of a key.

    Parameters:
        key: which.
        which: which of its results.
        seq: after which entry; None: that is not what is asked.
        said: which result that is, in words.
    """

    key: str
    which: Which
    seq: int | None
    said: str


@page("key", Kind.AUDITOR)
async def key(view: View) -> Response:
    """A key with one of its results."""
    name = require_key(view.asked("key"))
    storage = view.storage
    extent = await aperform(call(storage.database, lambda _: console.extent(storage.id, name)))
    before = view.number("before")
    entries = await _entries(view, name, before, _ENTRIES + 1)
    if extent is None and not entries:
        raise MissingResult(f"nothing ever happened under {name!r}", key=name, reason="never written")
    asked = await _asked_for(view, name)
    shown, why = await _result(view, asked)
    state = await _state(view, name)
    document, left_out = _tree(view, shown)
    lock = await _lock(view, name)
    return view.render(
        key=name,
        asked_for=asked,
        state=state,
        shown=shown,
        serializer=shown and (described_type(shown.head.serializer) or "bytes"),
        why=why,
        damaged=isinstance(why, IntegrityError),
        tree=document,
        left_out=left_out,
        extent=extent,
        entries=entries[:_ENTRIES],
        further=entries[_ENTRIES - 1].seq if len(entries) > _ENTRIES else None,
        version=shown.head.version if shown else state[0],
        made=_made(shown.head.version if shown else state[0], entries),
        lock=lock,
        holds=await _holds(view, name, entries),
        compared=await _compared(view, name),
        current=extent.versions if extent else 0,
    )


async def _entries(view: View, name: str, before: int | None, limit: int) -> list[HistoryEntry]:
    storage = view.storage
    found = await aperform(call(storage.database, lambda _: console.timeline(storage.id, name, before, limit)))
    return [shown_entry(entry) for entry in found]


async def _asked_for(view: View, name: str) -> _Asked:
    version, seq, as_of = view.number("version"), view.number("seq"), view.asked("as_of")
    if version is not None:
        return _Asked(name, Which(version), None, f"version {version}")
    if seq is not None:
        found = await _entries(view, name, seq + 1, 1)
        if not found or found[0].seq != seq:
            raise InvalidArgument(f"the history of {name!r} has no entry {seq}", argument="seq", value=seq)
        return _Asked(name, Which(as_of=found[0].at), seq, f"after entry {seq}")
    if as_of is not None:
        at = moment(as_of)
        return _Asked(name, Which(as_of=at), None, f"at {at:%Y-%m-%d %H:%M:%S}Z")
    return _Asked(name, Which(), None, "live")


async def _state(view: View, name: str) -> tuple[int | None, str]:
    """The number of the live version and nothing, or none and why."""
    try:
        return (await head_of(view.storage, name)).version, ""
    except MissingResult as error:
        return None, str(error)


async def _result(view: View, asked: _Asked) -> tuple[Shown | None, PgResultsError | None]:
    """A result, or why it is not shown."""
    try:
        found = await fetch(view.storage, asked.key, asked.which)
        view.note(asked.key, found.head.version, "value")
        return await look(view.storage, found, asked.key), None
    except StorageUnavailable:
        raise
    except PgResultsError as error:
        return None, error


def _tree(view: View, shown: Shown | None) -> tuple[Node | None, str]:
    """The value as a tree, and which part of it that is."""
    if shown is None or not shown.is_tree:
        return None, ""
    place, start = view.asked("at") or "", view.number("from", 0) or 0
    return tree(shown.document, place, start), place or ("0" if start else "")


def _made(version: int | None, entries: list[HistoryEntry]) -> Mapping[str, Any]:
    """How the result came to be: what was recorded, in words, and what else its writer said."""
    entry = next((one for one in entries if one.version == version and one.action in WRITES), None)
    if entry is None:
        return {}
    given = entry.provenance or {}
    process, task, flow = (_object(given.get(name)) for name in ("process", "task", "flow"))
    place = f"{process.get('host', '?')}, process {process.get('pid', '?')}" if process else ""
    more = {name: value for name, value in given.items() if name not in _RECORDED}
    return {
        "entry": entry,
        "process": place,
        "user": process.get("user"),
        "task": task.get("name"),
        "identity": task.get("identity"),
        "flow": flow.get("name"),
        "more": tree(more) if more else None,
    }


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


async def _lock(view: View, name: str) -> HeldLock | None:
    locks = await view.storage.lock_manager().aheld_locks()
    return next((lock for lock in locks if lock.key == name), None)


async def _holds(view: View, name: str, entries: list[HistoryEntry]) -> list[Hold]:
    """The holds on a key, as far as the entries that are shown tell its tags; none where the role may not see them."""
    try:
        found = await ResultStore(result_storage=view.storage).aholds()
    except ConfigurationError as error:
        if not is_forbidden(error):
            raise
        return []
    tags = frozenset(tag for entry in entries for tag in entry.tags)
    return [hold for hold in found if covers(hold, name, tags)]


async def _compared(view: View, name: str) -> tuple[int, int, Difference | None, str] | None:
    """The two versions that are to be compared, how they differ, or why that cannot be said."""
    old, new = view.number("a"), view.number("b")
    if old is None or new is None:
        return None
    try:
        found = await difference(view.storage, name, old, new)
    except StorageUnavailable:
        raise
    except PgResultsError as error:
        return old, new, None, str(error)
    for version in (old, new):
        view.note(name, version, "difference")
    return old, new, found, ""


@page("key", Kind.AUDITOR)
async def raw(view: View) -> Response:
    """The payload of a version as it was stored, to be kept as a file."""
    name, version = require_key(view.asked("key")), view.number("version")
    found = await fetch(view.storage, name, Which(version))
    payload = await payload_of(view.storage, found, name)
    view.note(name, found.head.version, "payload")
    file = quote(f"{name.rpartition('/')[2][-80:]}-{found.head.version}.bin", safe="")
    return Response(
        payload,
        media_type="application/octet-stream",
        headers={"Content-Disposition": f"attachment; filename*=UTF-8''{file}"},
    )


@change("key", Kind.WRITER)
async def delete(view: View) -> Response:
    """Take the live result of a key away."""
    assert view.place.changing is not None  # noqa: S101 (`change` saw to it)
    name, reason = require_key(str((await view.request.form()).get("key", ""))), await because(view)
    changing = view.place.changing
    await ResultStore(result_storage=changing, lock_manager=changing.lock_manager()).adelete(name, reason)
    return see(view.url("key", key=name))
