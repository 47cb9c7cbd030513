"""Merkle trees as RFC 6962 has them, grown leaf by leaf: what is kept is as many digests as the tree is high."""

import hashlib


class MerkleTree:
    """A tree that grows at its end; leaves and nodes have prefixes, so that none passes for the other."""

    def __init__(self) -> None:
        self.size = 0
        self._peaks: list[bytes] = []

    def add(self, leaf: bytes) -> None:
        """Put a leaf at the end."""
        node, height = leaf_digest(leaf), self.size
        while height & 1:
            node = self._join(self._peaks.pop(), node)
            height >>= 1
        self._peaks.append(node)
        self.size += 1

    def root(self) -> bytes:
        """The digest of the tree as it is."""
        if not self._peaks:
            return hashlib.sha256(b"").digest()
        *peaks, node = self._peaks
        for left in reversed(peaks):
            node = self._join(left, node)
        return node

    def _join(self, left: bytes, right: bytes) -> bytes:
        return node_digest(left, right)


class Witness(MerkleTree):
    """A tree that notes the path from one of its leaves to its root.

    Parameters:
        leaf: which one; leaves are unlike each other.

    ``index`` is its number, None until it was added; ``path``, lowest digest first, is complete once `root` was asked
    for.
    """

    def __init__(self, leaf: bytes) -> None:
        super().__init__()
        self.index: int | None = None
        self.path: list[bytes] = []
        self._leaf = leaf
        self._node = leaf_digest(leaf)

    def add(self, leaf: bytes) -> None:
        """Put a leaf at the end."""
        if leaf == self._leaf:
            self.index = self.size
        super().add(leaf)

    def _join(self, left: bytes, right: bytes) -> bytes:
        node = super()._join(left, right)
        if self._node in (left, right):
            self.path.append(right if left == self._node else left)
            self._node = node
        return node


def leaf_digest(leaf: bytes) -> bytes:
    """The digest of a leaf."""
    return hashlib.sha256(b"\0" + leaf).digest()


def node_digest(left: bytes, right: bytes) -> bytes:
    """The digest of what two digests are joined into."""
    return hashlib.sha256(b"\1" + left + right).digest()
