"""Merkle trees as RFC 6962 has them, grown leaf by leaf: what is kept is as many digests as the tree is high."""

import hashlib
from functools import cached_property


class MerkleTree:
    """A tree that grows at its end; leaves and nodes have prefixes, so that none passes for the other."""

    def __init__(self) -> None:
        self.size = 0
        self._peaks: list[bytes] = []

    def add(self, leaf: bytes) -> None:
        """Put a leaf at the end."""
        node, height = leaf_digest(leaf), self.size
        while height & 1:
            node = node_digest(self._peaks.pop(), node)
            height >>= 1
        self._peaks.append(node)
        self.size += 1

    def root(self) -> bytes:
        """The digest of the tree as it is."""
        if not self._peaks:
            return hashlib.sha256(b"").digest()
        *peaks, node = self._peaks
        for left in reversed(peaks):
            node = node_digest(left, node)
        return node


class WholeTree:
    """A tree that is kept whole, for the paths from its leaves to its root; its leaves are unlike each other."""

    def __init__(self) -> None:
        self._leaves: list[bytes] = []

    def add(self, leaf: bytes) -> None:
        """Put a leaf at the end, before anything is asked."""
        self._leaves.append(leaf_digest(leaf))

    @property
    def size(self) -> int:
        """How many leaves there are."""
        return len(self._leaves)

    @cached_property
    def _levels(self) -> list[list[bytes]]:
        """The digests from the leaves to the root; where there is an odd one at the end, it goes up as it is."""
        level = self._leaves
        levels = [level]
        while len(level) > 1:
            joined = [node_digest(left, right) for left, right in zip(level[::2], level[1::2], strict=False)]
            level = joined + level[len(joined) * 2 :]
            levels.append(level)
        return levels

    @cached_property
    def _places(self) -> dict[bytes, int]:
        return {digest: index for index, digest in enumerate(self._leaves)}

    def root(self) -> bytes:
        """The digest of the tree."""
        return self._levels[-1][0] if self._leaves else hashlib.sha256(b"").digest()

    def path(self, leaf: bytes) -> tuple[int, list[bytes]] | None:
        """A leaf's number and the digests that it is joined with, the lowest first; None where it is not there."""
        index = self._places.get(leaf_digest(leaf))
        if index is None:
            return None
        others = [(level, (index >> height) ^ 1) for height, level in enumerate(self._levels[:-1])]
        return index, [level[other] for level, other in others if other < len(level)]


def leaf_digest(leaf: bytes) -> bytes:
    """The digest of a leaf."""
    return hashlib.sha256(b"\0" + leaf).digest()


def node_digest(left: bytes, right: bytes) -> bytes:
    """The digest of what two digests are joined into."""
    return hashlib.sha256(b"\1" + left + right).digest()
