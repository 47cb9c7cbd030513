"""Modules, functions and classes found by the dotted names that records carry."""

import importlib
import pkgutil
import symtable
import sys
from contextvars import ContextVar
from functools import cache, reduce
from importlib.abc import InspectLoader
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from pydantic import AfterValidator

from pgresults.serializers.own_classes import own_module
from pgresults.settings import current_settings

_KNOWN = frozenset(
    (
        *("json", "orjson", "cloudpickle", "pickle", "bz2", "gzip", "lzma", "zlib"),
        *("pgresults.serializers.json_object_encoder", "pgresults.serializers.json_object_decoder"),
    )
)
"""What a record may name where pickle is refused; other code could run what the payload says just as well."""

_BOUNDS: ContextVar[tuple[bool, int] | None] = ContextVar("pgresults.bounds", default=None)


class within_bounds:  # noqa: N801 (used as a function; as a generator it would cost more than many a payload)
    """Serialize inside of the block as a storage's settings say, whatever the present ones are.

    Parameters:
        allow_pickle: whether pickle and code named by records is allowed.
        max_bytes: how large what comes out of a compressed payload may be.
    """

    __slots__ = ("_bounds", "_token")

    def __init__(self, allow_pickle: bool, max_bytes: int) -> None:
        self._bounds = (allow_pickle, max_bytes)

    def __enter__(self) -> None:
        self._token = _BOUNDS.set(self._bounds)

    def __exit__(self, *_: object) -> None:
        _BOUNDS.reset(self._token)


def is_pickle_allowed() -> bool:
    """Whether pickle and code named by records is allowed here: as the enclosing block or the settings say."""
    bounds = _BOUNDS.get()
    return current_settings().allow_pickle if bounds is None else bounds[0]


def max_decompressed() -> int:
    """How many bytes may come out of a compressed payload: as the enclosing block or the settings say."""
    bounds = _BOUNDS.get()
    return current_settings().max_payload_bytes if bounds is None else bounds[1]


def code_named(path: str) -> Any:
    """Give the library or function that the configuration of a serializer names; raises ValueError."""
    if path not in _KNOWN and not is_pickle_allowed():
        raise ValueError(f"{path!r} is refused together with pickle (PGRESULTS_ALLOW_PICKLE): only known code is named")
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
        return path

    return AfterValidator(check)


def _callable(path: str | None) -> str | None:
    if path is not None and not callable(code_named(path)):
        raise ValueError(f"{path!r} is not a function")
    return path


DUMPS_AND_LOADS = _library("dumps", "loads")
COMPRESSES = _library("compress", "decompress")
CALLABLE = AfterValidator(_callable)


def find_class(path: str) -> type:
    """Give the class that a payload names; raises ValueError.

    Importing runs a module, and a payload may come from anyone: so a module that is not loaded is imported
    only when it is a package on the way, or when its source, read and not run, binds the name asked for.
    """
    names = path.split(".")
    module: ModuleType | None = None
    rest = names
    for cut in range(1, len(names)):
        step = _import_if_it_binds(".".join(names[:cut]), names[cut])
        if step is None:
            break
        module, rest = step, names[cut:]
    try:
        found = reduce(getattr, rest, module)
    except AttributeError:
        found = None
    if module is None or not isinstance(found, type):
        raise ValueError(f"the payload names the class {path!r}, which is not found here: install its package")
    return found


def _import_if_it_binds(module: str, name: str) -> ModuleType | None:
    module = own_module(module)
    if module in sys.modules:
        return sys.modules[module]
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
