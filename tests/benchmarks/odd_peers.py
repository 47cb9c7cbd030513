"""Peers that do not do what they should."""

from benchmarks.peers.peer import Place


class Liar:
    """Reads something else than was written, and knows nothing further."""

    def __init__(self, place: Place) -> None:
        """Needs no place."""

    def write(self, key: str, data: bytes) -> None:
        """Forget it."""

    def read(self, key: str) -> bytes:
        return b"something else"

    def close(self) -> None:
        """Nothing is open."""


class Broken:
    """Cannot be made at all."""

    def __init__(self, place: Place) -> None:
        raise ConnectionError("no server\nwith a second line")
