"""Who writes, and what is recorded about a write without being asked."""

import getpass
import json
import os
import socket
import threading
from collections.abc import Mapping
from contextvars import ContextVar
from functools import cache, lru_cache
from types import MappingProxyType
from typing import Any
from uuid import uuid4

from pydantic_core import to_json

from pgresults.errors import InvalidArgument
from pgresults.interruptions import is_interruption
from pgresults.records.outlines import OUTLINE
from pgresults.sql.digests import canonical_json

RECORDED = frozenset(("process", "task", "flow", OUTLINE))
"""The names in a provenance that pgresults fills in itself."""


def transaction_holder() -> str:
    """A new name for a transaction as a holder: ``host:pid:transaction:…``."""
    return f"{_host()}:{os.getpid()}:transaction:{uuid4().hex}"


ACTOR: ContextVar[str | None] = ContextVar("pgresults.actor", default=None)
"""Who acts by this process, where that is somebody else than its user."""


def actor() -> str:
    """Who acts: the operating system's user on this host, or for whom this process acts."""
    return ACTOR.get() or _process_user()


@cache
def _process_user() -> str:
    return f"{_user()}@{_host()}"


HOLDER: ContextVar[str | None] = ContextVar("pgresults.holder", default=None)
"""The holder that stands for the enclosing transaction."""


AWAITED_BY: ContextVar[tuple[str, ...]] = ContextVar("pgresults.awaited_by", default=())
"""The transactions of other processes that wait until what runs here is done."""


def default_holder() -> str:
    """The enclosing transaction, else the running thread: ``host:pid:thread id:thread name``."""
    if (holder := HOLDER.get()) is not None:
        return holder
    thread = threading.current_thread()
    return _thread_holder(os.getpid(), thread.ident, thread.name)


RUN: ContextVar[Mapping[str, Any]] = ContextVar("pgresults.run", default=MappingProxyType({}))
"""What is recorded about the enclosing flow and task."""


_UNREADABLE = "unreadable"
_SHOWN = 200


def shown(text: str | None) -> dict[str, Any] | None:
    """A provenance's JSON text as an object; what is none, which no write puts there, under the name ``unreadable``."""
    if text is None:
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):  # numbers and nesting that Python cannot hold
        value = None
    return value if isinstance(value, dict) else {_UNREADABLE: text[:_SHOWN]}


def recorded(given: Mapping[str, Any] | None, run: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The caller's provenance together with what is recorded about this process and a run; None: the present one.

    Raises: InvalidArgument when it is no JSON object or uses a name that is filled in here.
    """
    process = {"host": _host(), "pid": os.getpid(), "user": _user()}
    provenance: dict[str, Any] = {"process": process, **(RUN.get() if run is None else run)}
    if given is None:
        return provenance
    if not isinstance(given, Mapping):
        raise InvalidArgument(
            f"provenance must be a JSON object, not {type(given).__name__}", argument="provenance", value=given
        )
    if taken := RECORDED & given.keys():
        raise InvalidArgument(
            f"provenance must not use the names {sorted(taken)}: pgresults records them itself",
            argument="provenance",
            value=sorted(taken),
        )
    provenance.update(given)
    return require_json(provenance, "provenance")


def require_json(value: dict[str, Any], argument: str) -> dict[str, Any]:
    """Refuse an object that Postgres could not keep as ``jsonb``."""
    try:
        canonical_json(value)
        to_json(value)  # what is sent, of which less can be nested
    except (TypeError, ValueError, ArithmeticError, RecursionError) as error:
        if is_interruption(error):
            raise
        raise InvalidArgument(f"{argument} must be a JSON object: {error}", argument=argument) from error
    return value


@lru_cache(maxsize=1024)
def _thread_holder(pid: int, ident: int | None, name: str) -> str:
    """A thread as a holder, its name without what Postgres cannot keep."""
    storable = name.replace("\0", "").encode(errors="replace").decode()
    return f"{_host()}:{pid}:{ident}:{storable}"


@cache
def _host() -> str:
    return socket.gethostname()


@cache
def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"
