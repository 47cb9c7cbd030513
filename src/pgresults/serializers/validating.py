"""Validating what stored data says of an instance, by its class, unless the class would import what the data names."""

from functools import lru_cache
from typing import Any, Final

from pydantic import BaseModel, ImportString, TypeAdapter

_IMPORT: Final[Any] = TypeAdapter[Any](ImportString).core_schema["function"]["function"]


def validated(cls: Any, data: Any) -> Any:
    """Give the instance of a model or dataclass that its class makes of some data.

    Raises: ValidationError; TypeError where a field of the class, or of one within, is an ``ImportString``.
    """
    if _imports(cls):
        raise TypeError(
            f"{cls.__module__}.{cls.__qualname__} has a field of the type ImportString, which imports whatever the "
            "payload names: such a field is read back only from what this library has written"
        )
    if issubclass(cls, BaseModel):
        return cls.model_validate(data, by_alias=True, by_name=True)
    return TypeAdapter(cls).validate_python(data)


@lru_cache(maxsize=1024)
def _imports(cls: Any) -> bool:
    """Whether validation by a class imports what it is told to."""
    left: list[Any] = [TypeAdapter(cls).core_schema]
    while left:
        schema = left.pop()
        if schema is _IMPORT:
            return True
        if isinstance(schema, dict):
            left.extend(schema.values())
        elif isinstance(schema, list | tuple):
            left.extend(schema)
    return False
