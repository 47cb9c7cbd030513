"""What objects of SQLAlchemy's async and ORM parts are: parts that nobody pays for who did not import them."""

import sys
from typing import TYPE_CHECKING, TypeGuard

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession
    from sqlalchemy.orm import Session

_ASYNC = "sqlalchemy.ext.asyncio"
_ORM = "sqlalchemy.orm"


def is_async_engine(obj: object) -> "TypeGuard[AsyncEngine]":
    """Whether an object is an ``AsyncEngine``."""
    return _is_a(obj, _ASYNC, "AsyncEngine")


def is_async_connection(obj: object) -> "TypeGuard[AsyncConnection]":
    """Whether an object is an ``AsyncConnection``."""
    return _is_a(obj, _ASYNC, "AsyncConnection")


def is_async_session(obj: object) -> "TypeGuard[AsyncSession]":
    """Whether an object is an ``AsyncSession``."""
    return _is_a(obj, _ASYNC, "AsyncSession")


def is_session(obj: object) -> "TypeGuard[Session]":
    """Whether an object is a ``Session``."""
    return _is_a(obj, _ORM, "Session")


def _is_a(obj: object, module: str, name: str) -> bool:
    """Whether an object is of a class; where the class's module was never imported, none is."""
    imported = sys.modules.get(module)
    kind = getattr(imported, name, None)  # None as well while another thread is importing it
    return kind is not None and isinstance(obj, kind)
