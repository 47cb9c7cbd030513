"""Storing many versions with one statement for hundreds of them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, TypeAlias
from uuid import UUID

from pgresults.operations.arrays import BIGINT, BYTES, TEXT, UUIDS, ElementType, array_text, binary_array
from pgresults.operations.requests import Execute, Operation
from pgresults.operations.results import Own, Upload, Written, find_write, write
from pgresults.sql import bulk as statements
from pgresults.sql.guards import Guard

Run: TypeAlias = Sequence[Upload]
"""Versions of which no two go to the same place, few enough to be sent at once."""

_KINDS: dict[str, ElementType] = {
    "key": TEXT,
    "payload_id": UUIDS,
    "size": BIGINT,
    **dict.fromkeys(("data", "salt", "sha256", "payload_digest", "content", "place_bytes", "signature"), BYTES),
    "provenance": TEXT,
    "holder": TEXT,
    "tags": TEXT,
    "derived_from": TEXT,
}
_PERHAPS_ALIKE = ("provenance", "holder")
_shared = itemgetter("storage_id", *statements.SHARED)


def write_runs(
    runs: Callable[[], Iterable[Run]], take: Callable[[list[Written]], None], *, repeated: bool
) -> Operation[None]:
    """Store runs of versions, in a transaction of their own.

    Parameters:
        runs: gives them, the same ones each time.
        take: told what was written for the versions of each run, in their order.
        repeated: whether an earlier try may have been carried out: all of it, or nothing.
    """
    known: dict[Any, int] = {}
    for run in runs():
        if repeated and run and (yield from find_write(run[0])) is None:
            repeated = False
        ready = [upload.after(known) for upload in run]
        written = yield from (_found(ready) if repeated else write_run(ready))
        known |= {one.origin: done.version for one, done in zip(ready, written, strict=True) if one.origin is not None}
        take(written)


def _found(run: Run) -> Operation[list[Written]]:
    """What was written for versions of which the first one was found."""
    found = []
    for upload in run:
        found.append((yield from write(upload, repeated=True)))  # noqa: PERF401 (it yields)
    return found


def write_run(run: Run) -> Operation[list[Written]]:
    """Store versions, those that are of one kind by one statement; who stores the same keys has the same order."""
    written: dict[int, Written] = {}
    ordered = sorted(range(len(run)), key=lambda number: run[number].place)
    kinds = _Kinds()
    for kind, group in groupby(ordered, lambda number: kinds.of(run[number])):
        numbers = list(group)
        if kind is not None and len(numbers) > 1:
            written |= yield from _write_together({run[number].key: number for number in numbers}, run)
        for number in numbers:
            if number not in written:  # large, proven by a fence, refused by a guard, or somebody came in between
                written[number] = yield from write(run[number])
    return [written[number] for number in range(len(run))]


class _Kinds:
    """What versions have to share to be stored by one statement, as numbers."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[Any, ...], int] = {}
        self._known: dict[tuple[int, Guard], int] = {}

    def of(self, upload: Upload) -> int | None:
        """That of a version, which must not go before this does; None: it is to be stored alone."""
        if not upload.single or upload.guard not in statements.WRITE_MANY:
            return None
        made = id(upload.alike), upload.guard
        if made not in self._known:
            # The guard of a statement knows one holder.
            holder = None if upload.guard is Guard.NONE else upload.alike["holder"]
            kind = upload.guard, holder, _shared(upload.alike)
            self._known[made] = self._numbers.setdefault(kind, len(self._numbers))
        return self._known[made]


def _write_together(numbers: Mapping[str, int], run: Run) -> Operation[dict[int, Written]]:
    uploads = [run[number] for number in numbers.values()]
    first = uploads[0]
    parameters = {name: first.alike[name] for name in ("storage_id", *_PERHAPS_ALIKE, *statements.SHARED)}
    columns = dict(zip(Own._fields, zip(*(upload.own for upload in uploads), strict=True), strict=True))
    for name in statements.ARRAYS:
        values = columns.get(name) or [upload.alike[name] for upload in uploads]
        parameters[f"{name}_array"] = _array(name, values)
    rows = yield Execute(statements.WRITE_MANY[first.guard], parameters)
    return {numbers[key]: Written(*row) for key, *row in rows}


def _array(name: str, values: Sequence[Any]) -> Any:
    if values.count(None) == len(values):
        return None
    if name in _PERHAPS_ALIKE and len(set(values)) == 1:
        return None
    if name in ("tags", "derived_from"):
        values = [array_text(value) for value in values]
    return binary_array(_KINDS[name], values) if name in _KINDS else list(values)


def exist(storage_id: UUID, keys: Sequence[str]) -> Operation[set[str]]:
    """Those of several keys that have a live result; no payload is touched."""
    parameters = {"storage_id": storage_id, "keys": binary_array(TEXT, keys)}
    return {key for (key,) in (yield Execute(statements.EXISTS_MANY, parameters))}
