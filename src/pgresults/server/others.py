"""Other embedded servers: those that run on this machine, and those that a program may have meant."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pgresults.errors import ConfigurationError

_PROCESSES = Path("/proc")
_OURS = b"cluster_name=pgresults-"
_GONE = " (deleted)"


@dataclass(frozen=True)
class RunningServer:
    """An embedded server that runs; ``exists`` is False where somebody has removed its directory meanwhile."""

    path: Path
    pid: int
    exists: bool = True


def running_servers() -> list[RunningServer]:
    """The embedded servers that run as this user (for root: as any), by directory.

    Raises: ConfigurationError on systems that do not show their processes as files.
    """
    if not (_PROCESSES / "self/cwd").exists():
        raise ConfigurationError("only Linux says which servers run: look for processes named `postgres`")
    found = (_server(process) for process in _PROCESSES.iterdir() if process.name.isdigit())
    return sorted((server for server in found if server is not None), key=lambda server: (str(server.path), server.pid))


def elsewhere(path: Path) -> Path | None:
    """The directory of a server of the same name in a directory above, or in the home directory, if there is one."""
    above = [*path.parent.parents]
    with suppress(RuntimeError):  # a user whom the system does not know has none
        above.append(Path.home())
    places = (directory / path.name for directory in above)
    return next((place for place in places if place != path and _has_server(place)), None)


def _has_server(path: Path) -> bool:
    with suppress(OSError):
        return (path / "data" / "PG_VERSION").exists()
    return False


def _server(process: Path) -> RunningServer | None:
    """The server that a process is the first of."""
    with suppress(OSError):  # it ended meanwhile, or is another user's
        if any(part.startswith(_OURS) for part in (process / "cmdline").read_bytes().split(b"\0")):
            directory = str((process / "cwd").readlink())
            return RunningServer(
                Path(directory.removesuffix(_GONE)).parent, int(process.name), not directory.endswith(_GONE)
            )
    return None
