"""Modules, functions and classes found by the dotted names that records carry."""

import importlib
import pkgutil
import symtable
import sys
from functools import cache
from importlib.abc import InspectLoader
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from pydantic import AfterValidator

from pgresults.serializers.own_classes import found_in, own_module
from pgresults.serializers.permits import ask, is_importable, require_permitted


def code_named(path: str) -> Any:
    """Give the library or function that the configuration of a serializer names; raises ValueError."""
    require_permitted(path)
    return _imported(path)


@cache
def _imported(path: str) -> Any:
    try:
        return pkgutil.resolve_name(path)
    except (ImportError, AttributeError) as exc:
        raise ValueError(f"{path!r} cannot be imported: install it, or correct the name ({exc})") from exc


def _library(*functions: str) -> AfterValidator:
    def check(path: str) -> str:
        library = code_named(path)
        if missing := [name for name in functions if not callable(getattr(library, name, None))]:
            raise ValueError(f"{path!r} has no function {' and no function '.join(missing)}")
        ask(path)
        return path

    return AfterValidator(check)


def _callable(path: str | None) -> str | None:
    if path is not None and not callable(code_named(path)):
        raise ValueError(f"{path!r} is not a function")
    if path is not None:
        ask(path)
    return path


DUMPS_AND_LOADS = _library("dumps", "loads")
COMPRESSES = _library("compress", "decompress")
CALLABLE = AfterValidator(_callable)


def find_class(path: str) -> type:
    """Give the class that a payload names; raises ValueError.

    Importing runs a module, and a payload may come from anyone: so a module that is not loaded is imported only where
    the settings list it, and only when it is a package on the way or its source, read and not run, binds the name.
    """
    names = path.split(".")
    module: ModuleType | None = None
    rest = names
    for cut in range(1, len(names)):
        step = _import_if_it_binds(".".join(names[:cut]), names[cut])
        if step is None:
            break
        module, rest = step, names[cut:]
    found = found_in(module, rest)
    if module is None or not isinstance(found, type):
        raise ValueError(
            f"the payload names the class {path!r}, which is not found here: import its module before, list it in "
            "PGRESULTS_IMPORTABLE, or install its package"
        )
    return found


def _import_if_it_binds(module: str, name: str) -> ModuleType | None:
    module = own_module(module)
    if module in sys.modules:
        return sys.modules[module]
    if not is_importable(module):
        return None
    try:
        spec = find_spec(module)
    except (ImportError, ValueError):
        return None
    if spec is None or not (spec.submodule_search_locations or _binds(spec, name)):
        return None
    return importlib.import_module(module)


def _binds(spec: ModuleSpec, name: str) -> bool:
    source = spec.loader.get_source(spec.name) if isinstance(spec.loader, InspectLoader) else None
    if source is None:
        return False
    try:
        symbol = symtable.symtable(source, spec.name, "exec").lookup(name)
    except (KeyError, SyntaxError):
        return False
    return symbol.is_assigned() or symbol.is_imported()
