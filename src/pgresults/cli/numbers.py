"""Arguments that are negative numbers: a value such as -5 is no option."""

import re
from collections.abc import Iterator
from typing import Any

from typer.core import TyperCommand

_NEGATIVE = re.compile(r"-\.?[0-9]")
_MARK = "\0"  # in no argument of a process


class TakesNumbers(TyperCommand):
    """A command whose arguments may be negative numbers; none of its options begins with a digit."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        rest = super().parse_args(ctx, list(self._marked(args)))
        ctx.params.update({name: _unmarked(value) for name, value in ctx.params.items()})
        return rest

    def _marked(self, args: list[str]) -> Iterator[str]:
        """The arguments, with a mark before each negative number that no option before it takes as its value."""
        taking = {name for one in self.params if not getattr(one, "is_flag", True) for name in one.opts}
        before = ""
        for argument in args:
            marked = before not in taking and _NEGATIVE.match(argument)
            yield _MARK + argument if marked else argument
            before = argument


def _unmarked(value: Any) -> Any:
    if isinstance(value, str):
        return value.removeprefix(_MARK)
    return type(value)(map(_unmarked, value)) if isinstance(value, list | tuple) else value
