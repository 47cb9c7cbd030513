"""The analysis of one module: what its syntax tree says about its classes and functions."""

import ast
import warnings
from dataclasses import dataclass
from typing import Any

VERSION = 2
"""Part of every key: a new analysis does not reuse what an older one found."""


@dataclass(slots=True)
class _Function:
    name: str
    line: int
    lines: int
    branches: int = 0

    def report(self) -> dict[str, Any]:
        return {"name": self.name, "line": self.line, "lines": self.lines, "complexity": 1 + self.branches}


def analyse(source: bytes) -> dict[str, Any]:
    """Count what a module is made of.

    Parameters:
        source: the module's file, in whatever encoding it declares.

    Returns: lines, classes, functions (each with its lines and its complexity, which is one more than the ways it
        branches), the longest function, and ``error``: why the file is no Python, or None.
    """
    report: dict[str, Any] = {"lines": len(source.splitlines()), "classes": 0, "functions": [], "longest": None}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the analysed code, of no interest here
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return report | {"error": f"{type(error).__name__}: {error}"}
    classes, functions = _definitions(tree)
    longest = max(functions, key=lambda function: function.lines, default=None)
    return {
        "lines": report["lines"],
        "classes": classes,
        "functions": [function.report() for function in functions],
        "longest": longest and longest.report(),
        "error": None,
    }


def _definitions(tree: ast.Module) -> tuple[int, list[_Function]]:
    """The number of classes, and the functions in order; without recursion, for some trees are very deep."""
    classes, functions = 0, []
    pending: list[tuple[ast.AST, str, _Function | None]] = [(tree, "", None)]
    while pending:
        node, scope, owner = pending.pop()
        if isinstance(node, ast.ClassDef):
            classes += 1
            scope, owner = f"{scope}{node.name}.", None
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            owner = _Function(scope + node.name, node.lineno, (node.end_lineno or node.lineno) - node.lineno + 1)
            functions.append(owner)
            scope = f"{owner.name}."
        elif owner is not None:
            owner.branches += _branches(node)
        pending.extend((child, scope, owner) for child in ast.iter_child_nodes(node))
    return classes, sorted(functions, key=lambda function: function.line)


_FORKS = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler, ast.IfExp, ast.match_case)


def _branches(node: ast.AST) -> int:
    match node:
        case ast.BoolOp(values=values):
            return len(values) - 1
        case ast.comprehension(ifs=conditions):
            return 1 + len(conditions)
        case _:
            return int(isinstance(node, _FORKS))
