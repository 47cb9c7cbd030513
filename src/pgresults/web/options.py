"""How a console is started: what it shows, to whom, and what it may change."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Protocol

from pgresults.errors import ConfigurationError
from pgresults.settings import Settings, variable

LOOPBACK = "127.0.0.1"
PORT = 9790
_OWN_NAMES = ("localhost", LOOPBACK, "[::1]")


class Note(Protocol):
    """Takes a line of the access log."""

    def __call__(self, line: Mapping[str, Any], /) -> None: ...


@dataclass(frozen=True)
class Options:
    """How a console is started.

    Parameters:
        settings: the database, and who may come.
        storage: the storage that is shown first.
        allow_changes: whether locks may be broken and results forgotten here.
        host: the address that it listens at.
        seals: files and directories with seals, whose age is shown.
        note: is told who looked at which payload.
        patience: how long a request waits for sums over the whole store before it is answered without.
    """

    settings: Settings
    storage: str
    note: Note
    allow_changes: bool = False
    host: str = LOOPBACK
    seals: Sequence[Path] = ()
    patience: timedelta = field(default=timedelta(milliseconds=100))

    def require_safe(self) -> None:
        """Refuse to be reached from elsewhere by anybody; raises ConfigurationError."""
        if not is_loopback(self.host) and self.settings.web.token is None and self.settings.web.user_header is None:
            raise ConfigurationError(
                f"at {self.host} others reach the console: set {variable('web.token')} to a secret of 16 characters "
                f"or more that it asks for, or {variable('web.user_header')} to the header in which a proxy names its "
                "user",
                setting="web.token",
            )

    def seal_files(self) -> list[Path]:
        """The files that may have seals."""
        return [file for path in self.seals for file in (sorted(path.glob("*.json")) if path.is_dir() else [path])]

    @property
    def hosts(self) -> frozenset[str]:
        """The names by which browsers may call it, in lower case."""
        names = {*_OWN_NAMES, *self.settings.web.hosts}
        if self.host not in ("0.0.0.0", "::"):  # noqa: S104 (compared)
            names.add(f"[{self.host}]" if ":" in self.host else self.host)
        return frozenset(name.lower() for name in names)


def is_loopback(host: str) -> bool:
    """Whether an address is this machine's own."""
    try:
        return ip_address(plain_address(host)).is_loopback
    except ValueError:
        return host == "localhost"


def plain_address(host: str) -> str:
    """An address of version 4 as such, also where it comes as one of version 6."""
    try:
        mapped = getattr(ip_address(host), "ipv4_mapped", None)
    except ValueError:
        return host
    return host if mapped is None else str(mapped)
