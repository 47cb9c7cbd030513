"""The classes of the program that runs: what payloads call them, and which class of this process that is."""

import sys
from collections.abc import Mapping
from inspect import getattr_static
from types import ModuleType
from typing import Any, Final
from uuid import uuid4

from pgresults.objects.programs import ANONYMOUS, MAIN_NAMES, program_of

Identity = dict[str, str]

_PROCESS: Final = uuid4().hex
"""What tells a program without a file from another one: that it is this process, or a fork of it."""


def identity_of(cls: type) -> Identity | None:
    """Say which class of which program this is; None for a class of no program, or that is not found by its name."""
    module = _main()
    if cls.__module__ not in MAIN_NAMES or found_in(module, cls.__qualname__.split(".")) is not cls:
        return None
    program = program_of(vars(module))
    return {"program": program, "name": cls.__qualname__, **({"process": _PROCESS} if program == ANONYMOUS else {})}


def own_class(identity: Any) -> type | None:
    """Give the class of this process that `identity_of` called so; None when this is another program."""
    if not isinstance(identity, Mapping):
        return None
    program, name = identity.get("program"), identity.get("name")
    if not isinstance(program, str) or not isinstance(name, str):
        return None
    if program == ANONYMOUS and identity.get("process") != _PROCESS:
        return None
    module = _main() if program == program_of(vars(_main())) else sys.modules.get(program)
    found = found_in(module, name.split("."))
    return found if isinstance(found, type) else None


def own_module(name: str) -> str:
    """The module where a class is found whose module is not imported, which may be the program that runs."""
    if name not in sys.modules and name in ("__mp_main__", program_of(vars(_main()))):
        return "__main__"
    return name


def _main() -> ModuleType:
    """The module that this process runs; multiprocessing puts there what its parent runs."""
    return sys.modules["__main__"]


def found_in(place: Any, names: list[str]) -> Any:
    """What a module or class has under names, one in the other; None: nothing.

    Nothing of theirs is called: a module's ``__getattr__`` may import what it is asked for.
    """
    for name in names:
        place = getattr_static(place, name, None)
    return place
