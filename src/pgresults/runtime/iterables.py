"""The arguments of many calls: one iterable for each parameter, of the same length, or one value for all calls."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, NamedTuple, TypeVar

from pgresults.errors import InvalidArgument

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class unmapped(Generic[T]):  # noqa: N801 (used like a function)
    """A value that every call of a `map` gets as it is: ``task.map(days, unmapped("EUR"))``."""

    value: T


class Arguments(NamedTuple):
    """What a call gets."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


_END: Final = object()


def lockstep(
    positional: Sequence[Any], keywords: Mapping[str, Any], parameters: Sequence[str] = ()
) -> Iterator[Arguments]:
    """The arguments of one call after the other.

    Parameters:
        positional: an iterable, or something `unmapped`, for each of the first parameters.
        keywords: the same for parameters by name.
        parameters: the names of the first ones, for errors.

    Raises: InvalidArgument for what cannot be mapped over, and where one iterable ends before another.
    """
    names = [*(_name(position, parameters) for position in range(len(positional))), *map(repr, keywords)]
    sources = [_source(name, given) for name, given in zip(names, [*positional, *keywords.values()], strict=True)]
    if all(isinstance(source, unmapped) for source in sources):
        raise InvalidArgument(
            "there is nothing to map over: give an iterable for at least one parameter", argument="iterables"
        )
    return _calls(names, sources, len(positional), list(keywords))


def _calls(
    names: Sequence[str], sources: Sequence[Any], positions: int, keywords: Sequence[str]
) -> Iterator[Arguments]:
    number = 0
    while True:
        values = [source.value if isinstance(source, unmapped) else next(source, _END) for source in sources]
        ended = {name for name, value in zip(names, values, strict=True) if value is _END}
        if ended:
            return _require_ends(
                number,
                ended,
                [name for name, source in zip(names, sources, strict=True) if isinstance(source, Iterator)],
            )
        yield Arguments(tuple(values[:positions]), dict(zip(keywords, values[positions:], strict=True)))
        number += 1


def _require_ends(number: int, ended: set[str], mapped: Sequence[str]) -> None:
    """All of them end together, or none is used."""
    if longer := [name for name in mapped if name not in ended]:
        raise InvalidArgument(
            f"the iterables are of unequal length: {', '.join(sorted(ended))} ended after {number:,} items, and there "
            f"are more of {', '.join(longer)}. A value that all calls share is given as unmapped(value)",
            argument="iterables",
        )


def _name(position: int, parameters: Sequence[str]) -> str:
    return repr(parameters[position]) if position < len(parameters) else f"iterable {position + 1}"


def _source(name: str, given: Any) -> Any:
    """What gives a parameter's values.

    Raises: InvalidArgument for a text, which is seldom meant as its letters, and for what is no iterable.
    """
    if isinstance(given, unmapped):
        return given
    if isinstance(given, str | bytes | bytearray | memoryview) or not isinstance(given, Iterable):
        raise InvalidArgument(
            f"{name} is mapped over, but is a {type(given).__name__}: give a list of values, or unmapped(value) where "
            "all calls get the same",
            argument=name.strip("'"),
            value=given,
        )
    return iter(given)
