"""Which program a module belongs to: what `__main__` stands for."""

import os
import sys
from collections.abc import Mapping
from functools import cache
from typing import Any, Final

ANONYMOUS: Final = "<no file>"
"""The program of what was typed, piped in or given by ``-c``: there is no telling it from another one."""

MAIN_NAMES: Final = ("__main__", "__mp_main__")
"""What the module that was started is called; the second one by multiprocessing, in a child."""


def program_of(module: Mapping[str, Any]) -> str:
    """The program, or the importable module, to which the module with these globals belongs, in every process alike.

    Parameters:
        module: the globals of a module, best those that a function itself has: profilers and `runpy` run programs in
            modules other than `sys.modules["__main__"]`.

    Returns: the name of a module, however it was started (``python -m package.module``); the real path of a script or
        notebook; else ANONYMOUS.
    """
    name = module.get("__name__")
    if not isinstance(name, str):
        return ANONYMOUS
    if name not in MAIN_NAMES:
        return name
    known = getattr(module.get("__spec__"), "name", None)
    if isinstance(known, str) and known not in MAIN_NAMES:
        return known
    path = module.get("__file__") or notebook_of(module)
    if not isinstance(path, str) or path.startswith("<"):  # "<stdin>"
        return ANONYMOUS
    return _real(path)


def main_module_program() -> str:
    """The program that this process runs, or that its parent does where multiprocessing has started it."""
    main = sys.modules.get("__mp_main__") or sys.modules.get("__main__")
    return ANONYMOUS if main is None else program_of(vars(main))


def notebook_of(module: Mapping[str, Any]) -> str | None:
    """The path of the notebook whose cells run in a module, where the kernel tells it."""
    path = module.get("__vsc_ipynb_file__")
    if path is None and "get_ipython" in module:  # children inherit the variable, and may be any program
        path = os.environ.get("JPY_SESSION_NAME")
    return path if isinstance(path, str) and path else None


@cache  # a relative path is that of the directory in which the program began
def _real(path: str) -> str:
    return os.path.realpath(path)
