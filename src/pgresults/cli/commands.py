"""The commands of the program, each imported when it is asked for: to start with all of them takes twice as long."""

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

import typer
from typer.main import get_group

_COMMANDS = {
    "results": ("put", "get", "touch"),
    "listing": ("ls", "expiring", "storages"),
    "removing": ("rm", "redact"),
    "history": ("history", "show", "diff"),
    "log": ("log",),
    "lineage": ("lineage",),
    "explaining": ("explain",),
    "upkeep": ("sweep", "retain"),
    "holding": ("hold", "holds", "release"),
    "audit": ("verify", "stats"),
    "sealing": ("seal", "attach-timestamp", "rotate-seal-key"),
    "proving": ("prove", "check-proof", "evidence"),
    "metrics": ("metrics",),
    "transfer": ("export",),
    "demo": ("demo",),
    "web": ("web",),
}
"""What the ``register`` of each module of this room adds, in the order of the help."""

_GROUPS = {
    "config": "config",
    "db": "database",
    "embedded": "embedded",
    "import": "importing",
    "locks": "locks",
    "retention": "retention",
}
"""The modules whose ``app`` is a group of commands."""

_MODULES = {name: module for module, names in _COMMANDS.items() for name in names} | _GROUPS


class Commands(Mapping[str, Any]):
    """All commands by name; one that is looked up is imported."""

    def __getitem__(self, name: str) -> Any:
        module = import_module(f"pgresults.cli.{_MODULES[name]}")
        if name in _GROUPS:
            group = get_group(module.app)
            group.name = name
            return group
        app = typer.Typer()
        module.register(app)
        return get_group(app).commands[name]

    def __iter__(self) -> Iterator[str]:
        return iter(_MODULES)

    def __len__(self) -> int:
        return len(_MODULES)
