"""The modules of the running Python's standard library, and the key each has by its content."""

import hashlib
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pgresults.demo.analysis import VERSION

PREFIX = f"demo/stdlib/{VERSION}/"
"""What the keys of the results begin with."""

_NOT_OURS = {"site-packages", "dist-packages"}


@dataclass(frozen=True, slots=True)
class Module:
    """A module: ``name`` is its path within the library, ``source`` the content of its file."""

    name: str
    source: bytes = field(repr=False)
    key: str = field(init=False)
    """Of the module's result; modules of the same content share it."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", PREFIX + hashlib.sha256(self.source).hexdigest()[:32])


def standard_library(limit: int | None = None) -> list[Module]:
    """Every module of the standard library by name, or the first ``limit`` of them."""
    root = Path(sysconfig.get_paths()["stdlib"])
    paths = (path for path in root.rglob("*.py") if not _NOT_OURS & set(path.parts) and path.is_file())
    return [Module(path.relative_to(root).as_posix(), path.read_bytes()) for path in sorted(paths)[:limit]]


def distinct(modules: Sequence[Module]) -> list[Module]:
    """One module for each content, the largest first, so that several workers end at the same time."""
    modules = list({module.key: module for module in reversed(modules)}.values())
    return sorted(modules, key=lambda module: len(module.source), reverse=True)
