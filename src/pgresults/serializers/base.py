"""The `Serializer` contract, with the registry of its types."""

import inspect
from abc import abstractmethod
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeAlias

from pydantic import BaseModel, ConfigDict, ModelWrapValidatorHandler, ValidationError, model_validator
from typing_extensions import TypeVar

from pgresults.serializers.parts import Arrived, Dumped, held

D = TypeVar("D", default=Any)

DOCUMENT: dict[str, bool] = {"document": True}
"""The dump context that gives a serializer the field values which Prefect knows."""


SerializerClass: TypeAlias = "type[Serializer]"


def is_foreign(value: object) -> bool:
    """Whether something is a serializer of Prefect's, which says of itself what one of ours of that type is made of."""
    return (
        isinstance(value, BaseModel)
        and not isinstance(value, Serializer)
        and isinstance(getattr(value, "type", None), str)
        and all(callable(getattr(value, name, None)) for name in ("dumps", "loads"))
    )


class _Parametrized:
    """What stands between brackets says for which objects a serializer is; it makes no class of its own."""

    def __class_getitem__(cls, _: Any) -> Any:
        return cls


if TYPE_CHECKING:

    class _Model(BaseModel, Generic[D]):
        """Generic for type checkers alone: a class of pydantic's for each parameter would be a type of its own."""
else:

    class _Model(_Parametrized, BaseModel):
        """Generic for type checkers alone."""


class Serializer(_Model[D]):
    """How an object becomes a payload and a payload the object again.

    A subclass with a default for ``type`` registers itself under it; ``Serializer(type="json")`` and
    ``Serializer.model_validate({"type": "json"})`` give that subclass. Unknown types and fields are refused.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: str

    _types: ClassVar[dict[str, "SerializerClass"]] = {}
    _registrations: ClassVar[int] = 0
    """How often a class was registered: what is remembered of a type is outdated when it changes."""

    def __new__(cls, **fields: Any) -> "Serializer":
        return super().__new__(type(cls.model_validate(fields)) if cls is Serializer else cls)

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        for replaced, made_of_it in (("dumps", "_dump"), ("loads", "_load")):
            if replaced in vars(cls) and made_of_it not in vars(cls):  # what stands above knows nothing of the new one
                setattr(cls, made_of_it, getattr(Serializer, made_of_it))
        name = cls.model_fields["type"].default
        if "type" not in inspect.get_annotations(cls) or not isinstance(name, str):
            return
        taken = Serializer._types.setdefault(name, cls)
        if (taken.__module__, taken.__qualname__) != (cls.__module__, cls.__qualname__):
            raise TypeError(f"Serializer type {name!r} is taken by {taken.__module__}.{taken.__qualname__}")
        Serializer._registrations += 1
        Serializer._types[name] = cls  # a notebook cell that runs again replaces its own class

    @model_validator(mode="wrap")
    @classmethod
    def _dispatch(cls, value: Any, handler: ModelWrapValidatorHandler["Serializer"]) -> "Serializer":
        if isinstance(value, cls):
            return value
        if isinstance(value, str):
            value = {"type": value}
        elif is_foreign(value):
            value = value.model_dump(serialize_as_any=True)
        if cls is Serializer and isinstance(value, dict):
            return cls._named(value.get("type")).model_validate(value)
        serializer = handler(value)
        expected = type(serializer).model_fields["type"].default
        if serializer.type != expected:
            raise ValueError(f"{type(serializer).__name__} has the type {expected!r}, not {serializer.type!r}")
        return serializer

    @classmethod
    def _named(cls, name: object) -> "SerializerClass":
        try:
            return cls._types[name]  # type: ignore[index]  # anything may stand in a document
        except (KeyError, TypeError):
            known = ", ".join(sorted(cls._types))
            raise ValueError(
                f"unknown serializer type {name!r}; the known types are {known}. One of your own is a subclass of "
                f"pgresults.serializers.Serializer with `type: str = {name!r}`, whose module is imported before"
            ) from None

    def __setstate__(self, state: dict[Any, Any]) -> None:
        super().__setstate__(state)
        with suppress(ValidationError):  # where what it names is missing, its use says so
            type(self).model_validate(self.model_dump())  # who was handed it may read what it has written

    def __hash__(self) -> int:
        return hash(repr(self))

    @abstractmethod
    def dumps(self, obj: D) -> bytes:
        """Give the payload of an object; raises whatever the format raises."""

    @abstractmethod
    def loads(self, blob: bytes) -> D:
        """Give the object of a payload; raises whatever the format raises."""

    def _dump(self, obj: D) -> Dumped:
        """Give the payload of an object, in parts where that saves a copy of what is large."""
        return self.dumps(obj)

    def _load(self, payload: Arrived, *, spend: bool) -> D:
        """Give the object of a payload; ``spend`` says that it is not needed any more."""
        return self.loads(held(payload, spend=spend))

    def _to_text(self, payload: bytes) -> str:
        """Give the payload as the text that stands in a Prefect result document."""
        return payload.decode()

    def _from_text(self, text: str) -> bytes:
        """Give a payload that `loads` takes from the text of a Prefect result document."""
        return text.encode()
