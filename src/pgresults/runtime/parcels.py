"""What a call in another process is sent and sends back: its argument, its result, or what it raised."""

import traceback
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from pgresults.errors import PgResultsError, SerializationError
from pgresults.serializers.pickles import dumps, loads

A = TypeVar("A")
T = TypeVar("T")


class Parcel(Generic[T]):
    """A value that is pickled only when it is sent to another process, and unpickled only when it is opened there.

    So a failure to do either is an error of this call, and does not end the process.
    """

    def __init__(self, value: T) -> None:
        self._value = value
        self._packed: bytes | None = None

    def open(self) -> T:
        """Give the value; raises whatever unpickling it raises."""
        if self._packed is not None:
            self._value, self._packed = loads(self._packed), None
        return self._value

    def __reduce__(self) -> Any:
        return _arrived, (type(self), self._packed or self._pack())

    def _pack(self) -> bytes:
        try:
            return dumps(self._value)
        except Exception as error:
            raise SerializationError(
                f"an argument or the result of a call in another process cannot be pickled ({type(error).__name__}: "
                f"{error}): map in threads, or take and return what can be"
            ) from error


class Failure(Parcel[Any]):
    """What a call raised; opening it raises that."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(error)

    def open(self) -> Any:
        """Raise it, in another process with what its traceback was."""
        if self._packed is None:
            raise self._value
        error, told = loads(self._packed)
        _last_cause(error).__cause__ = InAnotherProcess(told)
        raise error

    def _pack(self) -> bytes:
        error, told = self._value, "".join(traceback.format_exception(self._value))
        try:
            packed = dumps((error, told))
            loads(packed)
        except Exception as reason:
            shown = "".join(traceback.format_exception_only(error)).strip()
            cannot = f"{type(reason).__name__}: {reason}"
            return dumps((PgResultsError(f"{shown} (which cannot be sent between processes, {cannot})"), told))
        return packed


class InAnotherProcess(Exception):  # noqa: N818 (no error, but where one was)
    """The traceback of an error in another process; the last cause of the error here."""

    def __str__(self) -> str:
        return f'\n"""\n{self.args[0]}"""'


def answered(function: Callable[[A], T], argument: Parcel[A]) -> Parcel[T]:
    """Call a function; what it raises is an answer as well."""
    try:
        return Parcel(function(argument.open()))
    except BaseException as error:
        return Failure(error)


def _last_cause(error: BaseException) -> BaseException:
    seen = {id(error)}
    while error.__cause__ is not None and id(error.__cause__) not in seen:
        error = error.__cause__
        seen.add(id(error))
    return error


def _arrived(kind: type[Parcel[Any]], packed: bytes) -> Parcel[Any]:
    parcel: Parcel[Any] = kind.__new__(kind)
    parcel._value, parcel._packed = None, packed
    return parcel
