"""The text of modules: what it defines, and whether the code that runs is still what stands there."""

import ast
import inspect
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property, lru_cache
from importlib.util import decode_source
from pathlib import Path
from types import CodeType
from typing import Any
from warnings import catch_warnings

from pgresults.objects.codes import code_token


class Source:
    """The text of a module.

    Parameters:
        text: as it stood in the file.
        filename: how code made of it calls its file.
    """

    def __init__(self, text: str, filename: str) -> None:
        self._text = text
        self._filename = filename

    def defines_once(self, qualname: str) -> bool:
        """Whether it defines a function or class of this qualified name at one place, which runs once."""
        if "<" in qualname:
            return False
        if "." not in qualname:
            found = re.findall(rf"^(.*?)\b(?:def|class)[ \t]+{re.escape(qualname)}\b", self._text, re.MULTILINE)
            if found in ([""], ["async "]):
                return True
        return self._definitions[qualname] == 1

    def text_of(self, code: CodeType) -> str | None:
        """The text of a function, its decorators included, if it is what the function's code was made of."""
        for known in self._codes.get((code.co_qualname, code.co_firstlineno), ()):
            if code.co_name != "<lambda>" and code_token(known) == code_token(code):  # a line may have several lambdas
                return "".join(inspect.getblock(self._text.splitlines(keepends=True)[code.co_firstlineno - 1 :]))
        return None

    @cached_property
    def _definitions(self) -> Counter[str]:
        with catch_warnings(action="ignore"):  # they were seen at the import
            try:
                module = ast.parse(self._text)
            except (SyntaxError, ValueError, RecursionError):
                return Counter()
        definitions: Counter[str] = Counter()
        for name, times in _defined(module.body, "", 1):
            definitions[name] += times
        return definitions

    @cached_property
    def _codes(self) -> dict[tuple[str, int], list[CodeType]]:
        codes: dict[tuple[str, int], list[CodeType]] = {}
        with catch_warnings(action="ignore"):  # they were seen at the import
            try:
                module = compile(self._text, self._filename, "exec", dont_inherit=True)
            except (SyntaxError, ValueError, RecursionError):
                return codes
        for code in _inner(module):
            codes.setdefault((code.co_qualname, code.co_firstlineno), []).append(code)
        return codes


def source_of(filename: str, module: Mapping[str, Any]) -> Source | None:
    """The present text of a file of code, or None where it has no file.

    Parameters:
        filename: as code calls it.
        module: the globals of the module, whose loader knows what lies in an archive.
    """
    try:
        status = Path(filename).stat()
    except (OSError, ValueError):
        return _loaded(filename, module)
    return _read(filename, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=256)
def _read(filename: str, *_state: int) -> Source | None:
    try:
        return Source(decode_source(Path(filename).read_bytes()), filename)
    except (OSError, SyntaxError, UnicodeDecodeError):
        return None


def _loaded(filename: str, module: Mapping[str, Any]) -> Source | None:
    spec = module.get("__spec__")
    if spec is None or spec.origin != filename:
        return None
    try:
        text = spec.loader.get_source(spec.name)
    except (AttributeError, ImportError):
        return None
    return None if text is None else Source(text, filename)


def _inner(code: CodeType) -> Iterator[CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from _inner(constant)


def _defined(body: Iterable[ast.AST], prefix: str, times: int) -> Iterator[tuple[str, int]]:
    """What statements define, by qualified name: a loop defines what stands in it more than once."""
    for node in body:
        inside = 2 if isinstance(node, ast.For | ast.AsyncFor | ast.While) else times
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            if not _is_overload(node):
                yield prefix + node.name, times
            if isinstance(node, ast.ClassDef):
                yield from _defined(node.body, f"{prefix}{node.name}.", times)
        elif not isinstance(node, ast.expr):
            yield from _defined(ast.iter_child_nodes(node), prefix, inside)


def _is_overload(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> bool:
    names = (getattr(decorator, "attr", getattr(decorator, "id", None)) for decorator in node.decorator_list)
    return "overload" in names
