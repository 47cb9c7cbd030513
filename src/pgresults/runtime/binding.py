"""The parameters of a call by name; as `inspect` says, but in a fifth of the time for most functions."""

import inspect
from collections.abc import Mapping, Sequence
from inspect import Parameter
from typing import Any


class Binder:
    """Binds the arguments of calls to a signature.

    Parameters:
        signature: whose parameters; where any is more than a name, `inspect` itself is asked.
    """

    def __init__(self, signature: inspect.Signature) -> None:
        self._signature = signature
        parameters = signature.parameters
        simple = all(parameter.kind is Parameter.POSITIONAL_OR_KEYWORD for parameter in parameters.values())
        self._names = tuple(parameters) if simple else None
        self._defaults = {name: p.default for name, p in parameters.items() if p.default is not Parameter.empty}

    def bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The parameters of a call by name, defaults included.

        Raises: TypeError as the call itself would.
        """
        names = self._names
        if names is not None and len(args) <= len(names):
            given = {**dict(zip(names, args, strict=False)), **kwargs}
            if len(given) == len(args) + len(kwargs):
                values = given if len(given) == len(names) else {**self._defaults, **given}
                if len(values) == len(names) and all(map(values.__contains__, names)):
                    return {name: values[name] for name in names}
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return dict(bound.arguments)
