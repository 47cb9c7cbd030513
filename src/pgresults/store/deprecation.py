"""Warnings about what is deprecated, at the line of the caller's that uses it."""

import sys
import warnings

_OURS = ("pgresults", "pydantic")


def warn_deprecated(message: str) -> None:
    """Warn in the name of the first caller outside of this package: Python shows only warnings of the user's own code.

    Parameters:
        message: what is deprecated, and what to use instead.
    """
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in _OURS:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, DeprecationWarning, stacklevel=level)
