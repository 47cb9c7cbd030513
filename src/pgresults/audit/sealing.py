"""Sealing a storage, and comparing what is there with seals made before."""

import logging
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from uuid import UUID

from pgresults.audit.checks import Finding
from pgresults.audit.seals import (
    FORMAT,
    Seal,
    Tree,
    bucket_of,
    require_genuine,
    require_signed,
    require_trusted,
    root_of,
    sign,
)
from pgresults.audit.signing import require_endorsed
from pgresults.database.programs import Program, call, compute
from pgresults.errors import IntegrityError
from pgresults.operations import verify as operations
from pgresults.operations.requests import Operation
from pgresults.operations.verify import MAINTENANCE, Leaf, Span
from pgresults.storage.postgres import PostgresStorage

logger = logging.getLogger(__name__)

_SHOWN_KEYS = 20


def key_file(storage: PostgresStorage) -> Path:
    """Where the key is that signs the seals of a storage."""
    return storage.settings.seal_key_file


def seal(storage: PostgresStorage, previous: Seal | None, progress: Callable[[int], None] | None) -> Program[Seal]:
    """Sign a root over all entries that are certainly committed; see `ResultStore.seal`."""
    if previous is not None:
        require_genuine(previous, storage.id, key_file(storage), storage.settings.seal_public_key)
    if ahead := (yield from call(storage.database, lambda _: operations.ahead(storage.id))):
        logger.warning(
            "%d entries of %r name transactions that are yet to come, and the seal does not cover them: they were "
            "altered, or the database restored into another cluster (then see Maintenance in docs/sql.md)",
            ahead,
            storage.name,
        )
    certain = yield from call(storage.database, lambda _: operations.certain())
    keys = yield from call(storage.database, lambda _: operations.count_keys(storage.id))
    # What says that it is of a later day no server wrote: it must not stretch what the seal covers.
    far = certain if certain.bound == operations.ANY_TRANSACTION else certain.until_later(timedelta(days=1))
    grove = _Grove([] if previous is None else [previous], (far, Tree.for_keys(keys).depth))
    yield from grove.grow(storage, progress)
    if previous is not None:
        _require_continued(previous, grove)
    tree = grove.trees[-1]
    windows = yield from call(storage.database, lambda _: operations.windows(None))
    buckets = tree.buckets()
    unsigned = Seal(
        format=FORMAT,
        storage=storage.name,
        storage_id=storage.id,
        sealed_at=certain.until,
        bound=certain.bound,
        until=tree.until or certain.until,
        entries=tree.entries,
        windows=len(windows),
        ahead=ahead,
        previous=previous and previous.digest,
        depth=tree.depth,
        buckets=buckets,
        root=root_of(FORMAT, buckets, tree.depth),
    )
    return (yield from compute(lambda: sign(unsigned, key_file(storage)), small=False))


class _Grove:
    """The trees of several seals, grown together: everything is read once.

    Parameters:
        seals: what they cover, and how.
        newest: the span and depth of one more, which is to come.
    """

    def __init__(self, seals: Sequence[Seal], newest: tuple[Span, int] | None = None) -> None:
        self._kinds: list[tuple[Span, int, int]] = [(seal.span, seal.depth, seal.format) for seal in seals]
        if newest is not None:
            self._kinds.append((*newest, FORMAT))
        self._clear()

    def _clear(self) -> None:
        self.trees = [Tree(depth, seal_format) for _, depth, seal_format in self._kinds]
        self.shared = [0] * len(self._kinds)
        """How many entries of each are in the next one as well."""

    def grow(self, storage: PostgresStorage, progress: Callable[[int], None] | None = None) -> Program[None]:
        """Read all that one of them covers; a second try begins anew."""
        spans = [span for span, _, _ in self._kinds]
        widest = Span(max(span.bound for span in spans), max(span.until for span in spans))

        def start(_: bool) -> Operation[None]:
            self._clear()
            number = 0

            def add(storage_id: UUID, leaf: Leaf) -> None:
                nonlocal number
                self._add(storage_id, leaf)
                number += 1
                if progress and number % 1000 == 0:
                    progress(1000)

            return operations.leaves((storage.id, MAINTENANCE), widest, add)

        yield from call(storage.database, start)

    def _add(self, storage_id: UUID, leaf: Leaf) -> None:
        before = False
        for number, (span, _, _) in enumerate(self._kinds):
            covered = leaf.xid < span.bound and leaf.at <= span.until
            if covered:
                self.trees[number].add(storage_id, leaf)
                self.shared[number - 1] += before
            before = covered


def _require_continued(previous: Seal, grove: _Grove) -> None:
    before, after = grove.trees
    if before.buckets() != previous.buckets or grove.shared[0] != before.entries:
        raise IntegrityError(
            f"what was sealed at {previous.sealed_at} is not all there as it was, and no seal continues that one: "
            f"`pgresults verify --against` it says what; {after.entries:,} entries are there, {previous.entries:,} were"
        )


def compare(storage: PostgresStorage, seals: Sequence[Seal]) -> Program[list[Finding]]:
    """Recompute what seals cover, each of which is to continue the one before."""
    grove = _Grove(seals)
    yield from grove.grow(storage)
    findings: list[Finding] = []
    known: set[tuple[int, int]] = set()
    for seal, tree in zip(seals, grove.trees, strict=True):
        now = tree.buckets()
        places = {place for place in now.keys() | seal.buckets.keys() if now.get(place) != seal.buckets.get(place)}
        places = {place for place in places if not _is_known(known, seal.depth, place)}
        known |= {(seal.depth, place) for place in places}
        keys = (yield from _keys_in(storage, seal, places)) if places else {}
        of = f" of the seal of {seal.sealed_at}" if len(seals) > 1 else ""
        findings += [_differing(place, keys[place], seal, now.get(place), of) for place in sorted(places)]
    for (before, after), tree, shared in zip(pairwise(seals), grove.trees, grove.shared, strict=False):
        if shared != tree.entries:
            missing = f"{tree.entries - shared} entries of the seal of {before.sealed_at}"
            findings.append(Finding("seal", (), f"{missing} are not covered by that of {after.sealed_at}"))
    return findings


def _is_known(known: Iterable[tuple[int, int]], depth: int, place: int) -> bool:
    """Whether one of some buckets is within another one, or has it within."""
    return any(of >> (height - depth) == place if height >= depth else place >> (depth - height) == of
               for height, of in known)  # fmt: skip


def _keys_in(storage: PostgresStorage, seal: Seal, places: Iterable[int]) -> Program[dict[int, list[str]]]:
    keys: dict[int, list[str]] = {}

    def start(_: bool) -> Operation[None]:
        keys.update({place: [] for place in places})

        def note(storage_id: UUID, leaf: Leaf) -> None:
            place = bucket_of(storage_id, leaf.key, seal.depth)
            if place in keys and leaf.key not in keys[place][-1:]:
                keys[place].append(leaf.key)

        return operations.leaves((storage.id, MAINTENANCE), seal.span, note)

    yield from call(storage.database, start)
    return keys


def _differing(place: int, keys: list[str], against: Seal, now: object, of: str) -> Finding:
    before = against.buckets.get(place)
    had, has = (before.entries if before else 0), getattr(now, "entries", 0)
    what = (
        f"{had - has} entries that were sealed are gone" if has < had
        else f"{has - had} entries were added to what was sealed" if has > had
        else "entries were rewritten since they were sealed"
    )  # fmt: skip
    among = ", ".join(map(repr, keys[:_SHOWN_KEYS])) or "no key that is left"
    return Finding("seal", tuple(keys), f"{what}, in bucket {place} of {1 << against.depth}{of}: among {among}")


def require_chain(storage: PostgresStorage, chain: Iterable[Seal]) -> tuple[list[Seal], list[Finding]]:
    """Order seals by time, and see that each names the one before; one that is trusted vouches for all.

    A seal's word reaches back by the digest of the one before it, and forward by its key, or one that this endorsed.

    Returns: the seals, and where they are no chain.
    Raises: IntegrityError for a seal that is not genuine, and where none is signed with a key that is trusted.
    """
    seals = sorted(chain, key=lambda seal: seal.sealed_at)
    behind = {}
    for seal in seals:
        require_signed(seal, storage.id)
        behind[seal.digest] = require_endorsed(seal.endorsements, seal.public_key)
    trusted = False
    refusal: IntegrityError | None = None
    for seal in seals:
        try:
            require_trusted(seal, key_file(storage), storage.settings.seal_public_key)
            trusted = True
        except IntegrityError as error:
            refusal = error
    if refusal is not None and not trusted:
        raise refusal
    findings: list[Finding] = []
    for before, after in pairwise(seals):
        flaw = None
        if after.previous != before.digest:
            flaw = "does not name"
        elif before.public_key not in behind[after.digest]:
            flaw = "is signed with a key that is not endorsed by that of"
        if flaw:
            findings.append(
                Finding("seal", (), f"the seal of {after.sealed_at} {flaw} the one before it, of {before.sealed_at}")
            )
    return seals, findings
