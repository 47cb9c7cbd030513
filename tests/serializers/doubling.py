"""A compression library with nothing but the two functions."""


def compress(data: bytes) -> bytes:
    """Make it longer."""
    return data + data


def decompress(data: bytes) -> bytes:
    """Make it shorter."""
    return data[: len(data) // 2]
