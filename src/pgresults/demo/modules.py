"""The modules of the running Python's standard library, and the key each has by its content."""

import hashlib
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pgresults.demo.analysis import VERSION

PREFIX = f"demo/stdlib/{VERSION}/"
"""What the keys of the results begin with."""

_NOT_OURS = {"site-packages", "dist-packages"}


@dataclass(frozen=True, slots=True)
class Module:
    """A module file: ``name`` is its path within the library, ``size`` is in bytes."""

    name: str
    path: Path
    size: int
    key: str


def key_of(source: bytes) -> str:
    """The key of a module's result; files of the same content share it."""
    return PREFIX + hashlib.sha256(source).hexdigest()[:32]


def standard_library(limit: int | None = None) -> list[Module]:
    """Every module file of the standard library by name, or the first ``limit`` of them."""
    root = Path(sysconfig.get_paths()["stdlib"])
    paths = (path for path in root.rglob("*.py") if not _NOT_OURS & set(path.parts) and path.is_file())
    return [_module(root, path) for path in sorted(paths)[:limit]]


def _module(root: Path, path: Path) -> Module:
    source = path.read_bytes()
    return Module(path.relative_to(root).as_posix(), path, len(source), key_of(source))


def distinct(modules: Sequence[Module]) -> list[Module]:
    """One module for each content."""
    return list({module.key: module for module in reversed(modules)}.values())


def batches(modules: Sequence[Module], size: int) -> Iterator[list[Module]]:
    """The modules in groups of at least ``size`` bytes, the largest modules first, so that the end is even."""
    batch: list[Module] = []
    for module in sorted(modules, key=lambda module: module.size, reverse=True):
        batch.append(module)
        if sum(member.size for member in batch) >= size:
            yield batch
            batch = []
    if batch:
        yield batch
