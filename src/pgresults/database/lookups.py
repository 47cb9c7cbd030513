"""What objects of Django and of SQLAlchemy's async and ORM parts are, without importing any of these."""

import sys
from typing import TYPE_CHECKING, Any, Protocol, TypeGuard

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession
    from sqlalchemy.orm import Session

_ASYNC = "sqlalchemy.ext.asyncio"
_ORM = "sqlalchemy.orm"


class DjangoConnection(Protocol):
    """What is needed of ``django.db.connection``."""

    connection: Any
    in_atomic_block: bool


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


def is_django(obj: object) -> TypeGuard[DjangoConnection]:
    """Whether an object is a connection of Django's, or what stands for one in ``django.db``."""
    return _is_a(obj, "django.db.backends.base.base", "BaseDatabaseWrapper") or _is_a(
        obj, "django.utils.connection", "ConnectionProxy"
    )


def _is_a(obj: object, module: str, name: str) -> bool:
    """Whether an object is of a class; where the class's module was never imported, none is."""
    imported = sys.modules.get(module)
    kind = getattr(imported, name, None)  # None as well while another thread is importing it
    return kind is not None and isinstance(obj, kind)
