"""Binding arguments says what `inspect` says."""

import inspect
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgresults.runtime.binding import Binder

FUNCTIONS: list[Callable[..., Any]] = [
    lambda: 0,
    lambda a: 0,
    lambda a, b=1: 0,
    lambda a=1, b=2, c=3: 0,
    lambda a, /, b: 0,
    lambda a, *, b=2: 0,
    lambda a, *args, c=1, **kwargs: 0,
    lambda *, a: 0,
]


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: str(inspect.signature(function)))
@given(
    args=st.lists(st.sampled_from(["x", "y", "z"]), max_size=4),
    kwargs=st.dictionaries(st.sampled_from(["a", "b", "c", "d"]), st.integers(), max_size=3),
)
def test_as_inspect_binds(function: Callable[..., Any], args: list[str], kwargs: dict[str, int]) -> None:
    signature = inspect.signature(function)
    binder = Binder(signature)
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as error:
        with pytest.raises(TypeError, match=f"^{re.escape(str(error))}$"):
            binder.bind(args, kwargs)
    else:
        bound.apply_defaults()
        assert list(binder.bind(args, kwargs).items()) == list(bound.arguments.items())
