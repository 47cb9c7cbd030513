"""Which texts Postgres can keep."""

from pgresults.errors import InvalidArgument


def flaw_of(text: object, max_bytes: int | None = None) -> str | None:
    """Why a value cannot be stored as text of at most so many bytes of UTF-8; None when it can."""
    if not isinstance(text, str):
        return f"it is a {type(text).__name__}, not a str"
    if not text:
        return "it is empty"
    if "\0" in text:
        return "it holds a NUL character"
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        return "it is no valid Unicode: it holds half a surrogate pair"
    if max_bytes is not None and size > max_bytes:
        return f"it has {size:,} bytes of UTF-8, the limit is {max_bytes:,}"
    return None


def require_text(text: str | None, argument: str, max_bytes: int | None = None) -> str | None:
    """Give a text back if it can be stored; None is left out.

    Raises: InvalidArgument naming the argument.
    """
    flaw = None if text is None else flaw_of(text, max_bytes)
    if flaw:
        raise InvalidArgument(f"{argument} cannot be stored: {flaw}", argument=argument, value=text)
    return text
